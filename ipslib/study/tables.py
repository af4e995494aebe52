"""From run records to the study's tables: one row per run and task, means over seeds, and the
published numbers beside them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from ipslib.datasets.megapixel_mnist.config import chance_level
from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.statistics import over_seeds, t_interval, take_off_epoch

ATTENTION = (
    "roi_recall",
    "roi_recall_random",
    "attention_on_digits",
    "attention_on_digits_random",
    "entropy",
)
TAKE_OFF = ("took_off", "take_off_epoch")  # a share of runs, and the median of those that did
PUBLISHED_TAKE_OFF = tuple(f"published_{name}" for name in TAKE_OFF)
_MEASURES = ("accuracy", "train_accuracy", "best_accuracy")
_SHARES = (  # shown in percent
    *("accuracy", "train_accuracy", "best_accuracy", "balanced_accuracy", "chance"),
    *("mean", "sd", "low", "high", "published", "ceiling", *ATTENTION),
    *("took_off", "published_took_off"),
)
_SIGNED = ("difference", "effect", "effect_low", "effect_high", "published_effect")  # in points
_HEADINGS = {name: f"{name.replace('_', ' ')} (%)" for name in _SHARES}
_HEADINGS |= {name: f"{name.replace('_', ' ')} (points)" for name in _SIGNED}
_HEADINGS |= {
    "sd": "sd (points)",
    "roi_recall": "digits kept (%)",
    "roi_recall_random": "digits kept at random (%)",
    "attention_on_digits_random": "same at random (%)",
    "entropy": "entropy (% of uniform)",
    "o2i_ratio": "O2I (%)",
}
_TOOK_OFF = "took off (%), median epoch"
_PAIRS = {  # two columns that are shown as one, and what stands between them
    ("low", "high"): ("95 % interval (%)", " to "),
    ("effect_low", "effect_high"): ("its 95 % interval (points)", " to "),
    TAKE_OFF: (_TOOK_OFF, ", epoch "),
    PUBLISHED_TAKE_OFF: (f"published {_TOOK_OFF}", ", epoch "),
}
_BLANK = "–"
_SEEDS = ("seed", "data_seed")


def require_columns(table: pd.DataFrame, names: Iterable[str], whose: str) -> None:
    """Refuse a column that a table lacks; `whose` table it is, in words."""
    for name in names:
        if name not in table:
            raise IpslibError(f"no column {name!r} in the {whose}{did_you_mean(name, table)}.")


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
                | {"task": task, "accuracy": accuracy}
                | {name: result[name].get(task) for name in ("train_accuracy", "best_accuracy")}
                | {"chance": level, "n_test": result["n_test"]}
                | _take_off(record, task, level)
                | {name: by_task.get(task) for name, by_task in measures.items()}
                | {name: attention.get(name) for name in ATTENTION}
            )
    if not rows:
        raise IpslibError("no run records to make a table of; run the study first.")
    frame = pd.DataFrame(rows)
    measured = [name for name in (*_MEASURES, *TAKE_OFF, *ATTENTION) if name in frame]
    return frame.astype(dict.fromkeys(measured, float))


def summarise(frame: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """Mean accuracy, spread and 95 % interval over seeds; settings in the order of their coming.

    Args:
        frame: a long form, of own or of published runs.
        by: columns that make a setting; `task` is added where the frame has it.

    Returns:
        The columns of `by` and task, the number of runs `n`, their `mean` and `sd`, Student's t
        interval from `low` to `high`, cut to 0..1 and blank with fewer than three, and where the
        frame has them `chance`, `took_off` (the share of runs) and `take_off_epoch` (the median
        of those that did).

    Raises:
        IpslibError: an unknown column, or two runs of one seed in one setting.
    """
    require_columns(frame, (*by, "accuracy"), "table")
    keys = list(dict.fromkeys([*by, *(["task"] if "task" in frame else [])]))
    frame = frame.drop_duplicates([c for c in ("id", "log", *keys) if c in frame])
    rows = []
    for setting, group in frame.groupby(keys, sort=False, dropna=False):
        _refuse_mixed(group, keys)
        accuracy = group["accuracy"].dropna()
        low, high = np.clip(t_interval(accuracy), 0, 1)
        row = dict(zip(keys, setting, strict=True)) | {"n": len(accuracy)}
        row |= {"mean": accuracy.mean(), "sd": accuracy.std(), "low": low, "high": high}
        if "chance" in frame:
            row["chance"] = group["chance"].iloc[0]
        if TAKE_OFF[0] in frame:
            row["took_off"] = group["took_off"].mean()
            row["take_off_epoch"] = group["take_off_epoch"].median()
        rows.append(row)
    return pd.DataFrame(rows)


def change_along(frame: pd.DataFrame, x: str, *, by: Sequence[str]) -> pd.DataFrame:
    """What accuracy changes from the smallest to the largest `x`, by a straight line in doublings.

    The change of changes is an interaction: of what `change_along(frame, "n_train", by=["seed",
    "digit_size"])` gives, the change along `digit_size` by seed.

    Args:
        frame: one row per run, of one task; or an earlier answer.
        x: a column of positive numbers.
        by: columns that make a group; one that lacks a value of x is left out.

    Returns:
        The columns `by` and `accuracy`, the change, one row a group.
    """
    way = np.log(frame[x].astype(float))
    way = (way - way.min()) / np.ptp(way) if np.ptp(way) else way * 0
    rows = [
        (*group, np.polyfit(way[runs.index], runs["accuracy"], 1)[0])
        for group, runs in frame.groupby(list(by))
        if 1 < frame[x].nunique() == runs[x].nunique()
    ]
    return pd.DataFrame(rows, columns=[*by, "accuracy"])


def paired_differences(frame: pd.DataFrame, reference: str) -> pd.DataFrame:
    """What each run of an arm differs by from the reference's of the same seed: columns `arm`,
    `task`, `seed` and `accuracy`. A run that an arm shares with the reference has no difference.
    """
    runs = frame.drop_duplicates(["arm", "task", "id"])
    own, theirs = runs[runs["arm"] != reference], runs[runs["arm"] == reference]
    pairs = own.merge(theirs, on=["task", "seed"], suffixes=("", "_of_reference"))
    pairs = pairs[pairs["id"] != pairs["id_of_reference"]]
    difference = pairs["accuracy"] - pairs["accuracy_of_reference"]
    return pairs.assign(accuracy=difference)[["arm", "task", "seed", "accuracy"]]


def effects_over_seeds(changes: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """The columns of `over_seeds`, one row for each setting of `by`, of changes one a seed."""
    columns = [*by, *over_seeds([])]
    groups = changes.groupby(list(by), sort=False)
    rows = [dict(zip(by, of, strict=True)) | over_seeds(g["accuracy"]) for of, g in groups]
    return pd.DataFrame(rows, columns=columns)


def beside_published(
    table: pd.DataFrame, published: pd.DataFrame, *, on: Sequence[str]
) -> pd.DataFrame:
    """Add `published` (mean accuracy), `n_published`, the `difference` (ours - theirs), and where
    both have it the published runs' take-off, in columns that begin with `published_`.

    Args:
        table: of `summarise`.
        published: of `published_accuracy`.
        on: columns that tell which setting is which; `task` is added. A setting that was not
            published has blanks.
    """
    keys = list(dict.fromkeys([*on, "task"]))
    require_columns(table, keys, "summary")
    require_columns(published, keys, "published table")
    wanted = {"published": ("accuracy", "mean"), "n_published": ("accuracy", "size")}
    if TAKE_OFF[0] in published and TAKE_OFF[0] in table:
        of_take_off = (("took_off", "mean"), ("take_off_epoch", "median"))
        wanted |= zip(PUBLISHED_TAKE_OFF, of_take_off, strict=True)
    theirs = published.groupby(keys).agg(**wanted).reset_index()
    table = table.merge(theirs, on=keys, how="left").fillna({"n_published": 0})
    table["difference"] = table["mean"] - table["published"]
    return table.astype({"n_published": int})


def points(*shares: float) -> str:
    """Differences of shares as signed points: "−12 points" for −0.123, "−12 to +3 points"; a dash
    for what is blank."""
    if any(map(pd.isna, shares)):
        return _BLANK
    rounded = [round(100 * share) for share in shares]  # whole numbers have no "-0"
    return " to ".join(f"{n:+d}" if n else "0" for n in rounded).replace("-", "−") + " points"


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
    headings = dict(_HEADINGS)
    headings |= {name: _HEADINGS[name].replace("digits", objects) for name in ATTENTION}
    cells = {name: [_text(name, value) for value in table[name]] for name in table}
    for (first, last), (heading, between) in _PAIRS.items():
        if {first, last} <= cells.keys():
            pairs = zip(cells[first], cells.pop(last), strict=True)
            cells[first] = [a if b == _BLANK else a + between + b for a, b in pairs]
            headings[first] = heading
    shown = pd.DataFrame(cells, dtype=object)
    if "task" in shown:
        keys = shown.columns[: shown.columns.get_loc("task")]
        repeated = (shown[keys] == shown[keys].shift()).all(axis=1)
        shown.loc[repeated, keys] = ""
    shown = shown.rename(columns=lambda name: headings.get(name, str(name).replace("_", " ")))
    return ShownTable(shown, caption)


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
