"""From run records to the study's tables: one row per run and task, means over seeds, and the
published numbers beside them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from ipslib.datasets.megapixel_mnist.config import chance_level
from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import write_atomically
from ipslib.study.statistics import (
    SEEDS_WITH_OWN_SPREAD,
    pooled_intervals,
    spread_over_seeds,
    take_off_epoch,
)

ATTENTION = (
    "roi_recall",
    "roi_recall_random",
    "attention_on_digits",
    "attention_on_digits_random",
    "entropy",
)
TAKE_OFF = ("took_off", "take_off_epoch")  # a share of runs, and the median of those that did
_MEASURES = ("accuracy", "train_accuracy", "best_accuracy")
_SHARES = {
    "accuracy": "accuracy (%)",
    "train_accuracy": "train accuracy (%)",
    "best_accuracy": "best accuracy (%)",
    "balanced_accuracy": "balanced accuracy (%)",
    "chance": "chance (%)",
    "mean": "mean (%)",
    "sd": "sd (points)",
    "low": "low (%)",
    "high": "high (%)",
    "published": "published (%)",
    "ceiling": "ceiling (%)",
    "roi_recall": "digits kept (%)",
    "roi_recall_random": "digits kept at random (%)",
    "attention_on_digits": "attention on digits (%)",
    "attention_on_digits_random": "same at random (%)",
    "entropy": "entropy (% of uniform)",
    "took_off": "took off (%)",
    "published_took_off": "published took off (%)",
}
_SIGNED = {
    "difference": "difference (points)",
    "effect": "effect (points)",
    "effect_low": "effect's low (points)",
    "effect_high": "effect's high (points)",
    "published_effect": "published effect (points)",
    "per_doubling": "gained per doubling (points)",
    "lost_per_doubling": "lost per doubling (points)",
    "lost_low": "lost's low (points)",
    "lost_high": "lost's high (points)",
}
_HEADINGS = _SHARES | _SIGNED
_HEADINGS |= {"o2i_ratio": "O2I (%)", "effect_interval": "effect's interval"}
_HEADINGS |= {"n_found": "runs that found"}
_PAIRS = {  # two columns that are shown as one, and what stands between them
    ("low", "high"): ("95 % interval (%)", " to "),
    ("effect_low", "effect_high"): ("its 95 % interval (points)", " to "),
    ("lost_low", "lost_high"): ("its 95 % interval (points)", " to "),
    TAKE_OFF: ("took off (%), median epoch", ", epoch "),
    ("published_took_off", "published_take_off_epoch"): (
        "published took off (%), median epoch",
        ", epoch ",
    ),
}
_BLANK = "–"
_SEEDS = ("seed", "data_seed")


def long_form(records: Iterable[Mapping]) -> pd.DataFrame:
    """One row per run and task.

    Columns: id, name, every field of the configuration (`canvas` as one number where square,
    else as `HxW`; other lists joined by spaces), `o2i_ratio`, task, accuracy, train_accuracy,
    best_accuracy, chance, `took_off` (1 or 0), `take_off_epoch` (blank where it never did), n_test,
    further measures and those of attention where the record has them. Only Megapixel MNIST has an
    `o2i_ratio`, and take-off: other records do not say how many images trained.
    """
    rows = []
    for record in records:
        result, config = record["result"], record["config"]
        run = {"id": record["id"], "name": record["name"]}
        run |= {name: _cell(name, value) for name, value in config.items()}
        run["digit_source"] = record["provenance"].get("digit_source")
        if "digit_size" in config:
            run["o2i_ratio"] = config["digit_size"] ** 2 / math.prod(config["canvas"])
        attention, measures = result.get("attention") or {}, result.get("measures") or {}
        chance = result.get("chance") or {}
        for task, accuracy in result["accuracy"].items():
            level = chance[task] if chance else chance_level(task)
            rows.append(
                run
                | {
                    "task": task,
                    "accuracy": accuracy,
                    "train_accuracy": result["train_accuracy"].get(task),
                    "best_accuracy": result["best_accuracy"].get(task),
                    "chance": level,
                    "n_test": result["n_test"],
                }
                | _take_off(record, task, level)
                | {name: by_task.get(task) for name, by_task in measures.items()}
                | {name: attention.get(name) for name in ATTENTION}
            )
    if not rows:
        raise IpslibError("no run records to make a table of; run the study first.")
    frame = pd.DataFrame(rows)
    measured = [name for name in (*_MEASURES, *TAKE_OFF, *ATTENTION) if name in frame]
    return frame.astype(dict.fromkeys(measured, float))


def summarise(frame: pd.DataFrame, *, by: Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """Mean, spread and 95 % interval over seeds, in the order in which settings first appear.

    Args:
        frame: a long form, of own or of published runs.
        by: columns that make a setting; `task` is added where the frame has it.
        value: the column summarised, a share in 0..1.

    Returns:
        The columns of `by` and task, `n` runs, `mean`, `sd`, `low`, `high`, `interval`, and where
        the frame has them `chance`, `took_off` (the share of runs) and `take_off_epoch` (the
        median of those that did). The interval is `t` over seeds; where every setting has
        fewer than five, `pooled t`: two seeds tell no spread of their own, so the spread within
        settings is taken together, a task at a time. Of a single run it is `Wilson` on the test
        images. Intervals are cut to 0..1.

    Raises:
        IpslibError: an unknown column, or two runs of one seed in one setting.
    """
    for name in (*by, value):
        if name not in frame:
            raise IpslibError(f"no column {name!r} in the table{did_you_mean(name, frame)}.")
    keys = list(dict.fromkeys([*by, *(["task"] if "task" in frame else [])]))
    frame = frame.drop_duplicates([c for c in ("id", "log", *keys) if c in frame])
    rows = []
    for setting, group in frame.groupby(keys, sort=False, dropna=False):
        _refuse_mixed(group, keys)
        n_test = int(group["n_test"].iloc[0]) if value == "accuracy" else None
        spread = spread_over_seeds(group[value], n_test=n_test)
        row = dict(zip(keys, setting, strict=True)) | spread._asdict()
        if "chance" in frame:
            row["chance"] = group["chance"].iloc[0]
        if TAKE_OFF[0] in frame:
            row["took_off"] = group["took_off"].mean()
            row["take_off_epoch"] = group["take_off_epoch"].median()
        rows.append(row)
    table = pd.DataFrame(rows)
    if 2 <= table["n"].max() < SEEDS_WITH_OWN_SPREAD:
        per_task = table.groupby("task") if "task" in table else [("", table)]
        for _, rows_of_task in per_task:
            _pool_spread(table, rows_of_task)
    return table


def beside_published(
    summary: pd.DataFrame, published: pd.DataFrame, *, on: Sequence[str]
) -> pd.DataFrame:
    """Add the columns of `with_published_means` and `difference` (ours - theirs).

    Args:
        summary: of `summarise`.
        published: of `published_accuracy`.
        on: columns that tell which setting is which; `task` is added. A setting that was not
            published has blanks.
    """
    keys = list(dict.fromkeys([*on, "task"]))
    for name in keys:
        for table, whose in ((summary, "summary"), (published, "published table")):
            if name not in table:
                raise IpslibError(f"no column {name!r} in the {whose}{did_you_mean(name, table)}.")
    table = with_published_means(summary, published, keys)
    table["difference"] = table["mean"] - table["published"]
    return table


def points(*shares: float) -> str:
    """Differences of shares as signed points: "−12 points" for −0.123, "−12 to +3 points"; a dash
    for what is blank."""
    if any(map(pd.isna, shares)):
        return _BLANK
    rounded = [round(100 * share) for share in shares]  # whole numbers have no "-0"
    return " to ".join(f"{n:+d}" if n else "0" for n in rounded).replace("-", "−") + " points"


def with_published_means(
    table: pd.DataFrame, published: pd.DataFrame, keys: Sequence[str]
) -> pd.DataFrame:
    """Add of the published runs with the same `keys`: `published` (mean accuracy), `n_published`,
    and where both have it their take-off in `published_took_off` and `published_take_off_epoch`.
    """
    wanted = {"published": ("accuracy", "mean"), "n_published": ("accuracy", "size")}
    if TAKE_OFF[0] in published and TAKE_OFF[0] in table:
        wanted["published_took_off"] = ("took_off", "mean")
        wanted["published_take_off_epoch"] = ("take_off_epoch", "median")
    theirs = published.groupby(list(keys)).agg(**wanted)
    table = table.merge(theirs.reset_index(), on=list(keys), how="left")
    table["n_published"] = table["n_published"].fillna(0).astype(int)
    return table


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV, whole or not at all."""
    return write_atomically(path, table.to_csv(index=False))


class ShownTable:
    """A table as a notebook shows it (HTML) and as a terminal prints it (text)."""

    def __init__(self, cells: pd.DataFrame, caption: str):
        self.cells, self.caption = cells, caption

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.caption, self.cells.to_string(index=False)]))

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            html = self.cells.to_html(index=False, border=0, justify="right")
        return f"<p><strong>{escape(self.caption)}</strong></p>{html}" if self.caption else html


def show(table: pd.DataFrame, *, caption: str = "", objects: str = "digits") -> ShownTable:
    """Show a table: shares as percent with one decimal, bounds as one interval, blanks as a dash.

    Left of a column `task`, a setting is printed once and holds until the next one. `objects` is
    what headings call the things that attention is to find.
    """
    cells = _printed(table)
    named = {_HEADINGS[name]: _HEADINGS[name].replace("digits", objects) for name in ATTENTION}
    return ShownTable(cells.rename(columns=named), caption)


def _printed(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as text under headings with units."""
    cells = {_heading(name): [_text(name, value) for value in table[name]] for name in table}
    printed = pd.DataFrame(cells, dtype=object)
    for pair, (heading, between) in _PAIRS.items():
        if set(pair) <= set(table):
            first, last = (_heading(name) for name in pair)
            both = printed[first] + between + printed.pop(last).where(lambda each: each != _BLANK)
            printed[first] = both.fillna(printed[first])
            printed = printed.rename(columns={first: heading})
    if "task" in table:
        keys = list(printed.columns[: list(table).index("task")])
        repeated = (printed[keys] == printed[keys].shift()).all(axis=1)
        printed.loc[repeated, keys] = ""
    return printed


def _heading(name: str) -> str:
    return _HEADINGS.get(name, name.replace("_", " "))


def _text(name: str, value: object) -> str:
    if pd.isna(value):
        return _BLANK
    if name in _SIGNED:
        return f"{round(100 * value, 1) + 0:+.1f}".replace("-", "−")  # no "-0.0"
    if name == "o2i_ratio":
        return f"{100 * value:.2g}"
    if name in _SHARES:
        return f"{100 * value:.1f}"
    if name == "times_random":
        return f"{value:.1f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _take_off(record: Mapping, task: str, share: float) -> dict[str, object]:
    """Nothing where the record does not tell; `share` is that of the most frequent answer."""
    n_train, history = record["config"].get("n_train"), record["history"]
    if n_train is None or not history:
        return {}
    epochs = [row["epoch"] for row in history]
    accuracy = [row["train"]["accuracy"][task] for row in history]
    epoch = take_off_epoch(epochs, accuracy, n_train=n_train, share=share)
    return dict(zip(TAKE_OFF, (not math.isnan(epoch), epoch), strict=True))


def _cell(name: str, value: object) -> object:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_cell(key, inner)}" for key, inner in value.items())
    if not isinstance(value, list | tuple):
        return value
    if name == "canvas":
        return value[0] if value[0] == value[1] else "x".join(map(str, value))
    return " ".join(map(str, value))


def _pool_spread(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Replace the t intervals of settings with few seeds by those of their common spread."""
    rows = rows[rows["n"] > 1]
    if len(rows) < 2:
        return
    bounds = pooled_intervals(rows["n"], rows["mean"], rows["sd"]).clip(0, 1)
    table.loc[rows.index, ["low", "high"]] = bounds
    table.loc[rows.index, "interval"] = [f"pooled t, {n} seeds" for n in rows["n"]]


def _refuse_mixed(group: pd.DataFrame, keys: Sequence[str]) -> None:
    """A mean over seeds must not hide that something else varied too."""
    seeds = [name for name in _SEEDS if name in group]
    if "id" not in group or not group.duplicated(seeds).any():
        return
    told = {"id", "name", "chance", *keys, *seeds, *_MEASURES, *TAKE_OFF, *ATTENTION}
    varied = [c for c in group if c not in told and group[c].nunique(dropna=False) > 1]
    setting = ", ".join(f"{key} = {group[key].iloc[0]}" for key in keys)
    raise IpslibError(
        f"two runs of one seed where {setting}; they differ in {', '.join(varied) or 'nothing'}: "
        "add that to `by`, or select."
    )
