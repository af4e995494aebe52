"""What a notebook works with: its settings, its runs, and where its tables and figures go."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from ipslib.config import RunConfig, arithmetic_of
from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.runs.profiles import (
    Layout,
    base_config,
    committed_overnight,
    load_parameters,
    resolve_notebook,
)
from ipslib.runs.records import RecordStore, in_found_precision
from ipslib.runs.schedule import run_all
from ipslib.study.figures import save_figure, use_style
from ipslib.study.findings import Finding, findings_table, load_findings
from ipslib.study.tables import ShownTable, show


class Study:
    """One notebook's work in one profile.

    Args:
        notebook: its name, e.g. `01_o2i_datasize`.
        profile: `smoke`, `quick`, `overnight` or `paper`; its base settings come from params/.
        base: fields that this notebook sets apart from the profile's base, such as `dataset`.
        overrides: fields of RunConfig that differ from them in every run of this notebook.
        jobs: runs side by side, see `run_all`.

    Raises:
        IpslibError: for an unknown notebook, profile or field, or a bad value.
    """

    def __init__(
        self,
        notebook: str,
        profile: str,
        *,
        base: Mapping[str, object] | None = None,
        overrides: Mapping[str, object] | None = None,
        jobs: int | None = None,
    ):
        self.notebook, self.profile, self.jobs = resolve_notebook(notebook).stem, profile, jobs
        self._number = self.notebook.split("_")[0]
        self._overrides = dict(overrides or {})
        self.base = base_config(profile, {**(base or {}), **self._overrides})
        self.layout = Layout.of(profile).create()
        self.store = RecordStore(self.layout.records)
        use_style()

    def __repr__(self) -> str:
        data, model, training = self.base.data, self.base.model, self.base.training
        device = "GPU" if torch.cuda.is_available() else "CPU"
        network = f"{model.encoder} of width {model.width:g}, {model.n_stages} stages"
        if model.encoder == "features":
            network = f"features of {data.in_channels}, embedded in {model.embedding_dim}"
        elif "/" in model.encoder:
            network = model.encoder
        patches = ""
        if data.grid:
            canvas = f"canvas {data.canvas[0]} x {data.canvas[1]} px"
            patches = f"{canvas}, patches of {data.patch_size} px (N = {data.grid.n_patches}), "
        tested = f", {data.n_test} test images" if hasattr(data, "n_test") else ""
        return (
            f"profile {self.profile} on the {device}; data: {self.source}\n"
            f"{patches}{network}, M = {model.memory_size}, I = {model.iter_size}\n"
            f"{training.epochs} epochs in batches of {training.batch_size}{tested}"
        )

    @property
    def source(self) -> str:
        """What every result of this notebook is made of, in words."""
        return self.base.data.source

    @property
    def same_scale(self) -> bool:
        """Whether runs have the published study's scale, so that levels can be compared too: those
        of `paper` with no overrides but its own."""
        if self.profile != "paper":
            return False
        return self._overrides == load_parameters("paper", self.notebook)["overrides"]

    def config(self, **changes: object) -> RunConfig:
        """The base run with some fields changed; one that `overrides` names too is refused, since
        one would hide the other."""
        for name in changes:
            if name in self._overrides:
                raise IpslibError(
                    f"overrides: {name} is set by this notebook's own parameters; change those."
                )
        return self.base.replace(**changes)

    @staticmethod
    def digit_settings(digit_sizes: Sequence[int], noise_counts: Sequence[int]) -> list[dict]:
        """Digit sizes, each with its noise count, as fields of a run."""
        if len(digit_sizes) != len(noise_counts):
            raise IpslibError(
                f"noise_counts: wanted one count for each of the {len(digit_sizes)} digit_sizes, "
                f"got {len(noise_counts)}; give both lists the same length."
            )
        pairs = zip(digit_sizes, noise_counts, strict=True)
        return [{"digit_size": size, "n_noise": n_noise} for size, n_noise in pairs]

    def made_of(self, records: Sequence[dict]) -> str:
        """What runs were made of and by: data, commits of the code, and their number."""
        commits = sorted({str(record["provenance"]["commit"]) for record in records})
        versions = " and ".join(map(str, sorted({arithmetic_of(record) for record in records})))
        mixed = "; more than one version of the code made these" if len(commits) > 1 else ""
        precisions = sorted({record["config"].get("precision", "fp32") for record in records})
        low = f" in {' and '.join(precisions)}" if precisions != ["fp32"] else ""
        made_by = f"arithmetic {versions}, commit {', '.join(commits)}{mixed}"
        return f"{len(records)} runs on {self.source}{low}; {made_by}."

    def run(self, configs: Iterable[RunConfig]) -> list[dict]:
        """The records of the runs; what has none yet is trained now. Runs of the published scale
        may have been made in either precision."""
        if self.profile == "paper" and "precision" not in self._overrides:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            configs = [in_found_precision(each, self.store, device=device) for each in configs]
        return run_all(configs, self.store, jobs=self.jobs)

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Write `NN_name.csv` among this profile's tables."""
        path = self.layout.tables / f"{self._number}_{name}.csv"
        write_atomically(path, table.to_csv(index=False))

    def save_figure(self, name: str, figure: Figure) -> None:
        """Write `NN_name.png` among this profile's figures; a notebook shows it as well."""
        save_figure(figure, self.layout.figures / f"{self._number}_{name}.png")

    def finding(self, finding: Finding | None, *, figure: str) -> ShownTable:
        """State what this notebook found, for the summary: `NN_finding.json` among its tables. What
        the committed results of `overnight` say of the same question is shown below it.

        Args:
            finding: None where there are too few runs for one; an earlier statement is removed.
            figure: the name under which the figure that shows it was saved.
        """
        path = self.layout.tables / f"{self._number}_finding.json"
        if finding is None:
            path.unlink(missing_ok=True)
        else:
            shown_by = {"figure": f"{self._number}_{figure}.png", "source": self.source}
            finding = finding._replace(notebook=self.notebook, **shown_by)
            finding.save(path)
        stated = {self.profile: finding} if finding else {}
        if self.profile != "overnight":
            for night in load_findings(committed_overnight().tables):
                if night.notebook == self.notebook:
                    stated[f"overnight, committed ({night.source})"] = night
        table = findings_table(list(stated.values()))
        table.insert(0, "profile", list(stated))
        return show(table, caption="" if finding else "too few runs for a finding here")
