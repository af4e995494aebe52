"""Figures of runs: bars and learning curves of a grid of settings; of arms every one beside the
reference, and attention beside accuracy."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.arms import arm_table
from ipslib.study.figures import (
    CHANCE_LINE,
    DIAMOND,
    GREY,
    INK,
    OURS,
    arm_colours,
    chance_title,
    draw_means,
    level_colours,
    panel_grid,
    row_legend,
    task_panels,
)
from ipslib.study.tables import beside_published, long_form, summarise

_AXIS_LABELS = {
    "digit_size": "digit size (px)",
    "n_train": "training images",
    "n_noise": "noise objects",
    "patch_size": "patch size (px)",
    "diversity_weight": "weight of the diversity loss",
    "mask_k": "best patches that may be masked, K",
    "mask_p": "masking probability p",
}
_TRAINING = {"linewidth": 1.2, "linestyle": (0, (4, 2))}
_BAR_GROUP_WIDTH = 0.82  # of the distance from one group to the next
_REFERENCE_LINE = {"color": "#9fc3d9", "linewidth": 1.4, "zorder": 1.5}
_LEGEND_WIDTH, _LEGEND_LINE = 2.2, 0.24  # inches: of all keys, and down for each
_SAME = 0.5  # points: levels nearer than this have one tick


def grouped_bars(
    frame: pd.DataFrame,
    *,
    x: str = "digit_size",
    bars: str | None = "n_train",
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw last-epoch test accuracy in one panel a task: groups of bars along x.

    Args:
        frame: a long form; bars are means over seeds with their 95 % interval, where there are
            seeds enough, dots single runs.
        x: column of numbers. Beside a digit size that has one object-to-image ratio only that is
            written too.
        bars: column of numbers told apart by colour within a group, or None.
        published: of `published_accuracy`; shown where it has the same x and bars.
    """
    by = [x] if bars is None else [x, bars]
    summary = summarise(frame, by=by)
    if published is not None:
        summary = beside_published(summary, published, on=by)
    places, levels = sorted(frame[x].unique()), sorted(frame[bars].unique()) if bars else [None]
    colours = dict(zip(levels, level_colours(len(levels)), strict=True))
    width = _BAR_GROUP_WIDTH / len(levels)
    label, ticks = _names_along(frame, x, places)
    tasks = list(frame["task"].unique())
    figure, panels = task_panels(tasks, x_label=label, y_label="test accuracy (%)")
    for task, ax in panels.items():
        for i, (level, colour) in enumerate(colours.items()):
            rows, runs = (
                table[(table["task"] == task) & (bars is None or table[bars] == level)]
                for table in (summary, frame)
            )
            shift = (i - (len(levels) - 1) / 2) * width
            at = rows[x].map(places.index) + shift
            ax.bar(at, 100 * rows["mean"], 0.9 * width, color=colour)
            _, caps, stems = draw_means(ax, at, rows, fmt="none", ecolor=INK, elinewidth=1)
            for part in (*caps, *stems):
                part.set(zorder=4, path_effects=[withStroke(linewidth=2, foreground="#ffffffb0")])
            if published is not None:
                ax.plot(at, 100 * rows["published"], zorder=4.5, **DIAMOND)
            at = runs[x].map(places.index) + shift + _fan_out(runs[x], width)
            dots = {"color": INK, "edgecolor": "white", "linewidth": 0.5, "zorder": 5}
            ax.scatter(at, 100 * runs["accuracy"], s=13, **dots)
        ax.set_xticks(range(len(places)), ticks)
    keys = [Patch(color=c, label=f"{v:g}") for v, c in colours.items()] if bars else []
    dot = {"linestyle": "", "color": INK}
    keys.append(Line2D([], [], marker="o", markersize=4, label="one run", **dot))
    if summary["low"].notna().any():
        keys.append(Line2D([], [], marker="|", markersize=12, label="95 % interval", **dot))
    if published is not None:
        keys.append(Line2D([], [], label="published", **DIAMOND))
    row_legend(figure, keys, _axis_label(bars) if bars else "")
    return figure


def learning_curves(records: Iterable[Mapping], *, by: str = "n_train") -> Figure:
    """Draw accuracy against epoch in one panel a task: test solid, training dashed; thick lines
    are means over seeds, thin ones single runs. Colours tell a field of the configuration, `by`,
    apart. Epochs without an evaluation are joined over."""
    records = list(records)
    frame = long_form(records)
    summarise(frame, by=[by])  # refuses runs that differ in more than `by` and the seed
    levels = sorted(frame[by].unique())
    colours = dict(zip(levels, level_colours(len(levels)), strict=True))
    curves = curve_table(records, dict(zip(frame["id"], frame[by], strict=True)))
    chance = frame.groupby("task", sort=False)["chance"].first()
    labels = {"x_label": "epoch", "y_label": "accuracy (%)"}
    figure, panels = task_panels(list(chance.index), chance=chance, **labels)
    for (task, level), group in curves.groupby(["task", "level"]):
        ax, colour = panels[task], colours[level]
        for _, run in group.dropna(subset="test").groupby("id"):
            ax.plot(run["epoch"], 100 * run["test"], color=colour, alpha=0.4, linewidth=0.6)
        mean = 100 * group.groupby("epoch")[["train", "test"]].mean()
        for split, style in {"train": _TRAINING, "test": {}}.items():
            ax.plot(mean[split].dropna(), color=colour, **style)
        ax.set_xlim(1, max(2, curves["epoch"].max()))
    keys = [Line2D([], [], color=c, label=f"{v:g}") for v, c in colours.items()]
    keys.append(Line2D([], [], color=INK, label="test"))
    keys.append(Line2D([], [], color=INK, label="training", **_TRAINING))
    row_legend(figure, keys, _axis_label(by))
    return figure


def curve_table(records: list[Mapping], levels: Mapping[str, object]) -> pd.DataFrame:
    """One row per run, epoch and task, with `train` and `test` accuracy, blank where there was no
    evaluation, and in `level` what `levels` has of the run's id."""
    rows = []
    for record in records:
        for entry in record["history"]:
            epoch = {"id": record["id"], "level": levels[record["id"]], "epoch": entry["epoch"]}
            test = (entry["test"] or {}).get("accuracy", {})
            for task, train in entry["train"]["accuracy"].items():
                rows.append(epoch | {"task": task, "train": train, "test": test.get(task, np.nan)})
    if not rows:
        raise IpslibError("no learning curve to draw: the records' histories are empty.")
    return pd.DataFrame(rows)


def arm_dots(
    frame: pd.DataFrame,
    *,
    published: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    same_scale: bool = False,
) -> Figure:
    """Draw every arm's accuracy in one panel a task (all if None), the reference on top.

    Args:
        frame: of `run_arms`; dots are runs, marks the mean with its 95 % interval.
        published: of `published_beside`; open diamonds, their mean where there are several.
        same_scale: the published runs have our settings; the legend says so where not.
    """
    chance = _chance_of(frame, tasks)
    table = arm_table(frame, published=published)
    arms = list(table["arm"].unique())
    size = {"each": (4, 0.75 + 0.33 * len(arms)), "around": (1.5, 0.9)}
    figure, panels = panel_grid(list(chance), x_label="test accuracy (%)", **size)
    for task, ax in panels.items():
        rows = table[table["task"] == task].set_index("arm").loc[arms]
        ax.axvline(100 * rows["mean"].iloc[0], **_REFERENCE_LINE)
        ax.axvline(100 * chance[task], **CHANCE_LINE)
        chance_title(ax, chance[task])
        draw_means(ax, range(len(rows)), rows, sideways=True, color=OURS, elinewidth=1.6)
        runs = frame[frame["task"] == task]
        at = runs["arm"].map(arms.index) + 0.24
        ax.scatter(100 * runs["accuracy"], at, s=14, color=INK, alpha=0.75, linewidth=0, zorder=5)
        if published is not None:
            ax.plot(100 * rows["published"], range(len(arms)), zorder=4.5, **DIAMOND)
        ax.set(xlim=(0, 102), xticks=range(0, 101, 20), ylim=(len(arms) - 0.4, -0.6))
        ax.set(yticks=range(len(arms)), yticklabels=arms)
        ax.grid(axis="x")
    mean = "mean with 95 % interval" if table["low"].notna().any() else "mean"
    keys = [
        Line2D([], [], marker="o", ms=6, color=OURS, label=mean),
        Line2D([], [], marker="o", ms=3.5, ls="", color=INK, label="one run"),
        Line2D([], [], label=f"mean of {arms[0]}", **_REFERENCE_LINE),
    ]
    if published is not None:
        scale = "" if same_scale else ", at its own scale"
        keys.append(Line2D([], [], label=f"published{scale}", **DIAMOND))
    row_legend(figure, keys, n_columns=2 if len(chance) == 1 else None)
    return figure


def attention_against_accuracy(
    frame: pd.DataFrame,
    *,
    tasks: Sequence[str] | None = ("majority",),
    objects: str = "digits",
) -> Figure:
    """Draw accuracy against the share of digits kept, or of other `objects`, a dot a run of
    `run_arms`, coloured by arm, in one panel a task (all if None).

    On the left, near the tick of random patches, runs failed to find; low on the right, they
    found and failed to read.
    """
    chance = _chance_of(frame, tasks)
    frame = frame.dropna(subset=["roi_recall"])
    if frame.empty:
        raise IpslibError("no attention to draw: no record has measured what its patches touch.")
    arms = list(frame["arm"].unique())
    colours = dict(zip(arms, arm_colours(len(arms)), strict=True))
    random = 100 * frame.groupby("arm", sort=False)["roi_recall_random"].mean()
    ticks = dict(zip(random, colours.values(), strict=True))
    if np.ptp(random) < _SAME:
        ticks = {random.iloc[0]: GREY}
    labels = {"x_label": f"{objects} touched by a kept patch (%)", "y_label": "test accuracy (%)"}
    figure, panels = task_panels(list(chance), chance=chance, **labels)
    for task, ax in panels.items():
        for arm, runs in frame[frame["task"] == task].groupby("arm", sort=False):
            dots = {"s": 42, "color": colours[arm], "edgecolor": "white", "linewidth": 0.6}
            ax.scatter(100 * runs["roi_recall"], 100 * runs["accuracy"], zorder=4, **dots)
        for level, colour in ticks.items():
            ax.plot([level, level], [0, 6], color=colour, linewidth=2.2, zorder=3)
        ax.set(xlim=(0, 102), xticks=range(0, 101, 20))
    dot, tick = {"ls": "", "marker": "o", "ms": 6.5}, {"ls": "", "marker": "|", "ms": 9, "mew": 2.2}
    keys = [Line2D([], [], color=c, mec="white", label=arm, **dot) for arm, c in colours.items()]
    keys.append(Line2D([], [], color=GREY, label="random patches", **tick))
    figure.legend(handles=keys, loc="outside right upper", handletextpad=0.3)
    figure.set_figwidth(figure.get_figwidth() + _LEGEND_WIDTH)
    figure.set_figheight(max(figure.get_figheight(), _LEGEND_LINE * (len(keys) + 2)))
    return figure


def _chance_of(frame: pd.DataFrame, tasks: Sequence[str] | None) -> dict[str, float]:
    """The tasks to be drawn, all if None, each with the accuracy of the best constant answer."""
    chance = frame.groupby("task", sort=False)["chance"].first().to_dict()
    for task in tasks or ():
        if task not in chance:
            raise IpslibError(f"the runs have no task {task!r}{did_you_mean(task, chance)}.")
    return chance if tasks is None else {task: chance[task] for task in tasks}


def _fan_out(places: pd.Series, width: float) -> np.ndarray:
    """Sideways shifts within a bar, so that runs of one setting do not hide each other."""
    group = places.groupby(places.to_numpy())
    nth, n = group.cumcount(), group.transform("size")
    return ((nth - (n - 1) / 2) / n * 0.6 * width).to_numpy()


def _names_along(frame: pd.DataFrame, x: str, places: list) -> tuple[str, list[str]]:
    """The label of the x axis and its ticks' names."""
    if x == "digit_size" and (frame.groupby(x)["o2i_ratio"].nunique() == 1).all():
        ratio = frame.groupby(x)["o2i_ratio"].first()
        ticks = [f"{place:g} px\n{100 * ratio[place]:.2g} %" for place in places]
        return "digit size and object-to-image ratio", ticks
    return _axis_label(x), [f"{place:g}" for place in places]


def _axis_label(name: str) -> str:
    return _AXIS_LABELS.get(name, name.replace("_", " "))
