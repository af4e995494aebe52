"""The published Megapixel MNIST runs as configurations of ours, in the order of their value:
the 16 runs of the O2I figure, then one run of every other published setting category by category,
then the further seeds. And how many of them have a record, category by category.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ipslib.config import RunConfig
from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import write_atomically
from ipslib.runs.profiles import Layout, base_config
from ipslib.runs.records import RecordStore, in_found_precision
from ipslib.study.published import load_published

CATEGORIES = (
    "O2I_datasize",
    "Semantic_Diversity_Regularisation",
    "Attention_Masking",
    "Dataset_Size",
    "Noise_Size",
    "Digit_Thickness",
    "Backbones",
    "Patch_Size",
    "Noise_Generator",
)
_FIGURE, _OTHERS = "O2I_datasize: its figure", "O2I_datasize: others"
_BEGIN = "<!-- made by: python -m ipslib queue --readme -->\n"
_END = "<!-- end of what was made -->\n"
_NOISE_UNSTATED = 50  # objects, where a name does not say: the oldest runs, of 1500 px


class PublishedRun(NamedTuple):
    """A published run of the study's naming as one of ours; `note` says what is odd about it."""

    category: str
    name: str
    config: RunConfig
    note: str


def published_runs(
    profile: str = "paper",
    overrides: Mapping[str, object] | None = None,
    *,
    category: str | None = None,
    start: str = "own",
) -> list[PublishedRun]:
    """The queue: every published Megapixel MNIST run, each setting and seed once, in order; those
    that stopped early as they were meant to be, and they say so.

    Args:
        profile: whose base settings hold where a published run says nothing.
        overrides: fields of RunConfig that differ from the published ones in every run.
        category: the one of CATEGORIES whose runs are wanted; if None, all.
        start: `published` starts every run as it was started then. Those of which that is not
            known keep a start of their own, and their notes say why.
    """
    if category is not None and category not in CATEGORIES:
        hint = did_you_mean(category, CATEGORIES)
        raise IpslibError(f"category: wanted a published one, got {category!r}{hint}.")
    base, table = base_config(profile), load_published()
    # Logs of efficiency alone have no training set.
    wanted = CATEGORIES if category is None else [category]
    table = table[table["category"].isin(wanted) & table["n_train"].notna()]
    rank = table["category"].map(CATEGORIES.index)
    is_small = (rank == 0) & (table["canvas"] < 3000)  # the figure's canvas comes first
    distinct: dict[str, PublishedRun] = {}
    for _, row in table.iloc[np.lexsort((is_small, rank))].iterrows():
        config, notes = base.replace(**_fields(row) | dict(overrides or {})), [row["note"]]
        if pd.isna(row["n_noise"]):
            notes.append(f"noise count unstated: {_NOISE_UNSTATED} taken")
        try:
            config = config.replace(start=start)
        except IpslibError as error:
            notes.append(f"own start: {error}")
        note = "; ".join(filter(None, notes))
        earlier = distinct.get(config.id)
        if earlier is None or (row["complete"] and "incomplete" in earlier.note):
            distinct[config.id] = PublishedRun(row["category"], row["name"], config, note)
    figure = [run for run in distinct.values() if in_o2i_figure(run)]
    first, further = [], []
    seen = {run.config.replace(seed=0).id for run in figure}
    for run in distinct.values():
        if run not in figure:
            setting = run.config.replace(seed=0).id
            (further if setting in seen else first).append(run)
            seen.add(setting)
    return figure + first + further


def in_o2i_figure(run: PublishedRun) -> bool:
    """Whether it is one of the 16 runs of the figure of object size and training set size."""
    return run.category == "O2I_datasize" and "_3000_3000_" in run.name


def _fields(row: pd.Series) -> dict[str, object]:
    """A published row's settings; what it does not state is as in the study's description."""
    counts = ("digit_size", "canvas", "n_train", "patch_size", "memory_size", "mask_k")
    fields: dict[str, object] = {name: int(row[name]) for name in counts}
    fields |= {
        "n_noise": int(row["n_noise"]) if pd.notna(row["n_noise"]) else _NOISE_UNSTATED,
        "iter_size": fields["memory_size"],  # published: I = M
        "mask_p": float(row["mask_p"]),
        "mask_in_eval": fields["mask_k"] > 0,  # as published
        "epochs": _epochs(row),
        "seed": int(row["seed"]) if row["seed"] > 0 else 0,
    }
    if row["noise"] == "line":
        fields["noise"] = "line"
    if pd.notna(row["stroke_width"]):
        fields["stroke_width"] = float(row["stroke_width"])
    if row["diversity_weight"] > 0:
        fields |= {"semantic_weight": 1.0, "diversity_weight": float(row["diversity_weight"])}
        fields["diversity_on"] = "outputs"  # as published
    if row["weights"] != "none":
        fields |= {"encoder": row["encoder"], "weights": row["weights"]}
        fields["frozen"] = row["encoder"] == "resnet50"
    return fields


def _epochs(row: pd.Series) -> int:
    """What the log planned: a run that stopped early was meant to go on."""
    if row["category"] == "Digit_Thickness" and row["canvas"] == 1500:
        return 50  # the category's; the log that planned 100 stopped at 51
    if row["complete"]:
        return int(row["epochs_run"])
    return int(re.search(r"of (\d+) epochs", row["note"])[1])


class Regenerated(NamedTuple):
    """Published runs of a category: those that today's arithmetic made, those that only an earlier
    version made, and all."""

    done: int
    earlier: int
    planned: int


def regenerated(store: RecordStore) -> dict[str, Regenerated]:
    """By category, each run counted once; the runs of the O2I figure stand for themselves."""
    counts = {part: [0, 0, 0] for part in (_FIGURE, _OTHERS, *CATEGORIES[1:])}
    for run in published_runs("paper"):
        part = _OTHERS if run.category == CATEGORIES[0] else run.category
        count = counts[_FIGURE if in_o2i_figure(run) else part]
        config = in_found_precision(run.config, store)
        is_done = store.find(config) is not None
        count[0] += is_done
        count[1] += not is_done and store.find_earlier(config) is not None
        count[2] += 1
    return {part: Regenerated(*count) for part, count in counts.items()}


def as_markdown(counts: dict[str, Regenerated]) -> str:
    """The table, its last row the sum."""
    total = Regenerated(*map(sum, zip(*counts.values(), strict=True)))
    head = "| published runs | regenerated | by an earlier arithmetic only |\n| --- | --- | --- |\n"
    return head + "".join(
        f"| {part} | {each.done} of {each.planned} | {each.earlier} |\n"
        for part, each in [*counts.items(), ("**all**", total)]
    )


def renew_readme(path: Path, store: RecordStore) -> bool:
    """Write the table into a README between its two marks; return whether it changed."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise IpslibError(
            f"{path.name}: wanted a line {_BEGIN.strip()!r} and below it {_END.strip()!r}, where "
            "the table goes; put them back."
        )
    renewed = before + begin + as_markdown(regenerated(store)) + end + after
    if renewed == text:
        return False
    write_atomically(path, renewed)
    return True


def renew_project_readme(root: Path) -> int:
    """outputs/README.md of the checkout, from its `paper` records; returns an exit status."""
    store = RecordStore(Layout.of("paper").records)
    changed = renew_readme(root / "outputs" / "README.md", store)
    print(f"outputs/README.md: {'renewed' if changed else 'up to date'}")
    return 0
