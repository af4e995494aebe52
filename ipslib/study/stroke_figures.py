"""Accuracy against the width of noise strokes, with the digits' own width marked."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ipslib.study.figures import CHANCE_LINE, DIAMOND, GREY, INK, row_legend, task_panels
from ipslib.study.tables import chance_level, summarise

_SERIES = {
    "bezier": {"label": "true width", "color": "#2c6f9c", "marker": "o", "ls": "-"},
    "bezier_pixel": {"label": "whole pixels", "color": "#029e73", "marker": "s", "ls": "--"},
}
_PUBLISHED_RUN = {"label": "published run"} | DIAMOND
_BAND, _BAND_MIDDLE = "#f6ead0", "#c9a24b"
_MEASURED = "stroke width of the noise, measured (px at 28 px)"


def accuracy_by_stroke(
    frame: pd.DataFrame, digits: pd.Series, *, published: pd.DataFrame | None = None
) -> Figure:
    """Draw accuracy against the measured stroke width of the noise, in one panel a task.

    Args:
        frame: of `run_arms` with a column `stroke`; dots are runs, marks means with their 95 %
            interval, one line a kind of noise.
        digits: of `stroke_table`, the row of the digits: a line at their mean width and a band
            over the middle half of them.
        published: of `published_arms` with a column `stroke`, where they have our settings.
    """
    tasks = list(frame["task"].unique())
    figure, panels = task_panels(tasks, x_label=_MEASURED, y_label="test accuracy (%)")
    summary = summarise(frame, by=["arm", "noise", "stroke"])
    for task, ax in panels.items():
        _mark_digits(ax, digits)
        for noise, style in _SERIES.items():
            _draw_series(ax, *(_select(table, task, noise) for table in (summary, frame)), style)
        if published is not None:
            rows = published[published["task"] == task]
            ax.plot(rows["stroke"], 100 * rows["accuracy"], zorder=4.5, **_PUBLISHED_RUN)
    keys = [Line2D([], [], **_SERIES[noise]) for noise in _SERIES if noise in set(frame["noise"])]
    keys.append(Line2D([], [], marker="o", ms=3.5, ls="", color=INK, label="one run"))
    keys += _digit_keys()
    if published is not None:
        keys.append(Line2D([], [], **_PUBLISHED_RUN))
    row_legend(figure, keys)
    return figure


def published_by_width(
    published: pd.DataFrame,
    drawn: Mapping[float, float],
    digits: pd.Series,
    *,
    task: str = "majority",
) -> Figure:
    """Draw published accuracies twice: over the width asked for, and over that of what was drawn.

    Args:
        published: of `published_accuracy`.
        drawn: measured width of the strokes that each width asked for has drawn.
        digits: as in `accuracy_by_stroke`.
        task: whose accuracy.
    """
    rows = published[published["task"] == task]
    common = {"sharey": True, "figsize": (9.5, 3.6), "layout": "constrained"}
    figure, (asked, measured) = plt.subplots(1, 2, **common)
    _mark_digits(measured, digits)
    places = rows["stroke_width"], rows["stroke_width"].map(drawn)
    for ax, x, name in zip((asked, measured), places, ("asked for", "as drawn"), strict=True):
        ax.plot(x, 100 * rows["accuracy"], zorder=4, **_PUBLISHED_RUN)
        ax.axhline(100 * chance_level(task), **CHANCE_LINE)
        ax.set(title=f"stroke width {name}", ylim=(0, 102), yticks=range(0, 101, 20))
    asked.set(xlabel="stroke width asked for (px at 28 px)", ylabel=f"{task}, test accuracy (%)")
    measured.set(xlabel=_MEASURED)
    chance = Line2D([], [], label="chance", **CHANCE_LINE)
    row_legend(figure, [Line2D([], [], **_PUBLISHED_RUN), chance, *_digit_keys()])
    return figure


def _draw_series(ax: Axes, means: pd.DataFrame, runs: pd.DataFrame, style: dict) -> None:
    means = means.sort_values("stroke")
    mean, colour = 100 * means["mean"], style["color"]
    ends = np.array([mean - 100 * means["low"], 100 * means["high"] - mean]).clip(min=0)
    bars = {"fmt": "none", "ecolor": colour, "elinewidth": 1.2, "capsize": 2.5, "zorder": 3}
    ax.errorbar(means["stroke"], mean, ends, **bars)
    ax.plot(means["stroke"], mean, ms=6, mec="white", zorder=4, **style)
    ax.scatter(runs["stroke"], 100 * runs["accuracy"], s=12, color=INK, linewidth=0, zorder=5)


def _mark_digits(ax: Axes, digits: pd.Series) -> None:
    ax.axvspan(digits["stroke_low"], digits["stroke_high"], color=_BAND, zorder=0.5)
    ax.axvline(digits["stroke"], color=_BAND_MIDDLE, linewidth=1.2, zorder=0.6)


def _digit_keys() -> list:
    middle = Line2D([], [], color=_BAND_MIDDLE, linewidth=1.2, label="digits: mean")
    return [middle, Patch(color=_BAND, label="middle half of digits", ec=GREY, lw=0.3)]


def _select(table: pd.DataFrame, task: str, noise: str) -> pd.DataFrame:
    return table[(table["task"] == task) & (table["noise"] == noise)]
