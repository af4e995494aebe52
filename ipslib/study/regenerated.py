"""Which of the published runs have a record: the repeats of one, how many of each category, and the
README's table."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ipslib.arithmetic import version_of
from ipslib.config import RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.paths import project_root, write_atomically
from ipslib.runs.profiles import Layout
from ipslib.runs.records import RecordStore, in_found_precision
from ipslib.study.published_configs import CATEGORIES, in_o2i_figure, published_runs

_FIGURE, _OTHERS = "O2I_datasize: its figure", {"O2I_datasize": "O2I_datasize: others"}
_OF_REPEATS = ("start", "seed")  # what repeats of one run may differ in
_BEGIN = "<!-- made by: python -m ipslib queue --readme -->\n"
_END = "<!-- end of what was made -->\n"


class Regenerated(NamedTuple):
    """Published runs of a category: those that today's arithmetic made, those that only an earlier
    version made, and all."""

    done: int
    earlier: int
    planned: int


def repeats(config: RunConfig, store: RecordStore | None = None) -> list[dict]:
    """The records of a run whatever its start, its seed and the arithmetic: those from the
    published start first, then the latest arithmetic, by seed.

    Args:
        config: one of the repeats.
        store: None: the records of `paper` that come with the checkout.
    """
    store = store or RecordStore(project_root() / "outputs" / "paper" / "records")

    def setting(of: RunConfig) -> dict[str, object]:
        return {name: value for name, value in of.flat().items() if name not in _OF_REPEATS}

    found = {}
    for record in store.all():
        own = run_config(record["config"])
        if setting(own) == setting(config):
            place = (not own.published_start, -version_of(record), own.training.seed)
            found[place, record["id"]] = record
    return [found[place] for place in sorted(found)]


def regenerated(store: RecordStore) -> dict[str, Regenerated]:
    """By category, each run counted once; the runs of the O2I figure stand for themselves."""
    done, earlier, planned = Counter(), Counter(), Counter()
    for run in published_runs("paper"):
        part = _FIGURE if in_o2i_figure(run) else run.category
        planned[part] += 1
        config = in_found_precision(run.config, store)
        is_done = store.find(config) is not None
        done[part] += is_done
        earlier[part] += not is_done and store.find_earlier(config) is not None
    parts = (_FIGURE, *CATEGORIES)
    return {
        _OTHERS.get(part, part): Regenerated(done[part], earlier[part], planned[part])
        for part in parts
    }


def as_markdown(counts: dict[str, Regenerated]) -> str:
    """The table, its last row the sum."""
    total = Regenerated(*(sum(each) for each in zip(*counts.values(), strict=True)))
    lines = [
        f"| {part} | {each.done} of {each.planned} | {each.earlier} |"
        for part, each in [*counts.items(), ("**all**", total)]
    ]
    head = [
        "| published runs | regenerated | by an earlier arithmetic only |",
        "| --- | --- | --- |",
    ]
    return "\n".join([*head, *lines, ""])


def renew_readme(path: Path, store: RecordStore) -> bool:
    """Write the table into a README between its two marks; return whether it changed.

    Raises:
        IpslibError: where the marks are missing.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise IpslibError(
            f"{path.name}: wanted a line {_BEGIN.strip()!r} and below it {_END.strip()!r}, where "
            "the table goes; put them back."
        )
    renewed = before + _BEGIN + as_markdown(regenerated(store)) + _END + after
    if renewed == text:
        return False
    write_atomically(path, renewed)
    return True


def renew_project_readme(root: Path) -> int:
    """The checkout's outputs/README.md, from its `paper` records; returns an exit status."""
    store = RecordStore(Layout.of("paper", root=root).records)
    changed = renew_readme(root / "outputs" / "README.md", store)
    print(f"outputs/README.md: {'renewed' if changed else 'up to date'}")
    return 0
