"""Figures of a study's arms: every arm beside the reference, and attention beside accuracy."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.arms import arm_table
from ipslib.study.figures import (
    DIAMOND,
    GREY,
    INK,
    OURS,
    chance_line,
    draw_means,
    level_colours,
    panel_grid,
    row_legend,
    task_panels,
    task_title,
)

_REFERENCE_LINE = {"color": "#9fc3d9", "linewidth": 1.4, "zorder": 1.5}
_LEGEND_WIDTH = 2.2  # inches
_LEGEND_LINE = 0.24  # inches a key
_SAME = 0.5  # points: levels nearer than this have one tick
_RED = 3  # in the colour-blind palette, too near to the colour of published numbers
_OWN_SCALE = "published, at its own scale"


def arm_dots(
    frame: pd.DataFrame,
    *,
    published: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    same_scale: bool = False,
) -> Figure:
    """Draw every arm's accuracy in one panel a task, the reference on top.

    Args:
        frame: of `run_arms`; dots are runs, marks the mean with its 95 % interval.
        published: of `published_beside`; open diamonds, their mean where there are several.
        tasks: all if None.
        same_scale: the published runs have our settings; the legend says so where not.
    """
    tasks = _known_tasks(frame, tasks)
    table = arm_table(frame, published=published)
    arms = list(table["arm"].unique())
    figure, panels = _panels_of_arms(tasks, arms, _chance(frame))
    for task, ax in panels.items():
        rows = table[table["task"] == task].set_index("arm").loc[arms]
        ax.axvline(100 * rows["mean"].iloc[0], **_REFERENCE_LINE)
        draw_means(ax, range(len(rows)), rows, sideways=True, color=OURS, elinewidth=1.6)
        runs = frame[frame["task"] == task]
        at = runs["arm"].map(arms.index) + 0.24
        ax.scatter(100 * runs["accuracy"], at, s=14, color=INK, alpha=0.75, linewidth=0, zorder=5)
        if published is not None:
            ax.plot(100 * rows["published"], range(len(arms)), zorder=4.5, **DIAMOND)
    keys = [
        Line2D([], [], marker="o", ms=6, color=OURS, label="mean with 95 % interval"),
        Line2D([], [], marker="o", ms=3.5, ls="", color=INK, label="one run"),
        Line2D([], [], label=f"mean of {arms[0]}", **_REFERENCE_LINE),
    ]
    if published is not None:
        keys.append(Line2D([], [], label="published" if same_scale else _OWN_SCALE, **DIAMOND))
    row_legend(figure, keys, n_columns=2 if len(tasks) == 1 else None)
    return figure


def attention_against_accuracy(
    frame: pd.DataFrame,
    *,
    tasks: Sequence[str] | None = ("majority",),
    objects: str = "digits",
) -> Figure:
    """Draw accuracy against the share of digits kept, a dot a run, coloured by arm.

    On the left, near the tick of random patches, runs failed to find; low on the right, they
    found and failed to read.

    Args:
        frame: of `run_arms`.
        tasks: all if None.
        objects: what is to be found.
    """
    tasks = _known_tasks(frame, tasks)
    frame = frame.dropna(subset=["roi_recall"])
    if frame.empty:
        raise IpslibError("no attention to draw: no record has measured what its patches touch.")
    arms = list(frame["arm"].unique())
    colours = dict(zip(arms, arm_colours(len(arms)), strict=True))
    random = 100 * frame.groupby("arm", sort=False)["roi_recall_random"].mean()
    if np.ptp(random) < _SAME:
        random = random.iloc[:1]
    label = f"{objects} touched by a kept patch (%)"
    names = {"x_label": label, "y_label": "test accuracy (%)"}
    figure, panels = task_panels(tasks, **names, chance=_chance(frame))
    for task, ax in panels.items():
        for arm, runs in frame[frame["task"] == task].groupby("arm", sort=False):
            dots = {"s": 42, "color": colours[arm], "edgecolor": "white", "linewidth": 0.6}
            ax.scatter(100 * runs["roi_recall"], 100 * runs["accuracy"], zorder=4, **dots)
        for arm, level in random.items():
            colour = colours[arm] if len(random) > 1 else GREY
            ax.plot([level, level], [0, 6], color=colour, linewidth=2.2, zorder=3)
        ax.set(xlim=(0, 102), xticks=range(0, 101, 20))
    keys = [_dot(colour, arm) for arm, colour in colours.items()]
    keys.append(
        Line2D([], [], ls="", marker="|", ms=9, mew=2.2, color=GREY, label="random patches")
    )
    figure.legend(handles=keys, loc="outside right upper", handletextpad=0.3)
    figure.set_figwidth(figure.get_figwidth() + _LEGEND_WIDTH)
    figure.set_figheight(max(figure.get_figheight(), _LEGEND_LINE * (len(keys) + 2)))
    return figure


def arm_colours(n: int) -> list:
    """n colours, the first dark for the reference; a light-to-dark scale where arms are many."""
    distinct = sns.color_palette("colorblind")
    del distinct[_RED]
    others = distinct[: n - 1] if n - 1 <= len(distinct) else level_colours(n - 1)
    return [INK, *others][:n]


def _panels_of_arms(
    tasks: Sequence[str], arms: Sequence[str], chance_of: Mapping[str, float]
) -> tuple[Figure, dict[str, Axes]]:
    """One panel a task, two a row: accuracy along x, arms down y, the chance line upright."""
    height = 0.75 + 0.33 * len(arms)
    figure, panels, n_columns = panel_grid(tasks, each=(4, height), around=(1.5, 0.9))
    for i, (task, ax) in enumerate(panels.items()):
        is_lowest = i + n_columns >= len(tasks)
        ax.set(xlim=(0, 102), xticks=range(0, 101, 20), ylim=(len(arms) - 0.4, -0.6))
        ax.set(yticks=range(len(arms)), yticklabels=arms)
        ax.set_title(task_title(task))
        ax.set_xlabel("test accuracy (%)" if is_lowest else "")
        ax.tick_params(labelbottom=is_lowest)
        ax.grid(axis="x")
        chance_line(ax, chance_of[task], upright=True)
    return figure, panels


def _chance(frame: pd.DataFrame) -> dict[str, float]:
    """Accuracy of the best constant answer, by task."""
    return frame.groupby("task", sort=False)["chance"].first().to_dict()


def _known_tasks(frame: pd.DataFrame, tasks: Sequence[str] | None) -> list[str]:
    known = list(frame["task"].unique())
    tasks = known if tasks is None else list(tasks)
    for task in tasks:
        if task not in known:
            raise IpslibError(f"the runs have no task {task!r}{did_you_mean(task, known)}.")
    return tasks


def _dot(colour, label: str) -> Line2D:
    return Line2D([], [], ls="", marker="o", ms=6.5, color=colour, mec="white", label=label)
