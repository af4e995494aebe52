"""Figures of accuracy against training-set size: the fitted threshold, and the map over O2I."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, NullLocator

from ipslib.errors import IpslibError
from ipslib.study.figures import DIAMOND, GREY, INK, PUBLISHED, row_legend, task_panels, task_title
from ipslib.study.tables import chance_level
from ipslib.study.thresholds import ThresholdFit

_OURS = "#2c6f9c"
_TICKS_APART = 1 / 9  # of the axis
_MAP = "blend:#f1f6f4,#9ad5c2,#2c8fa6,#2a3f86"


def threshold_curves(
    frame: pd.DataFrame,
    fits: Mapping[str, ThresholdFit],
    *,
    published: pd.DataFrame | None = None,
    published_fits: Mapping[str, ThresholdFit] | None = None,
    same_scale: bool = False,
) -> Figure:
    """Draw accuracy against training images in one panel a task: runs, fit, band, threshold.

    Args:
        frame: a long form; `fits`: of `fit_thresholds` of it.
        published, published_fits: the same of published runs.
        same_scale: the published runs have our settings; the legend says so where not.
    """
    label = "training images (log scale)"
    figure, panels = task_panels(list(fits), x_label=label, y_label="test accuracy (%)")
    theirs = published_fits or {}
    for task, ax in panels.items():
        if task in theirs:
            _draw_fit(ax, theirs[task], PUBLISHED)
            rows = published[published["task"] == task]
            ax.plot(rows["n_train"], 100 * rows["accuracy"], zorder=4, **DIAMOND)
        _draw_fit(ax, fits[task], _OURS)
        rows = frame[frame["task"] == task]
        dots = {"edgecolor": "white", "linewidth": 0.5, "zorder": 5}
        ax.scatter(rows["n_train"], 100 * rows["accuracy"], s=24, color=INK, **dots)
    sizes = set(frame["n_train"]) | (set() if published is None else set(published["n_train"]))
    _log_axis(ax, sorted(sizes))
    whose = "published" if same_scale else "published, at its own scale"
    row_legend(figure, _curve_keys(whose if theirs else None))
    return figure


def size_map(frame: pd.DataFrame) -> Figure:
    """Draw mean accuracy (%) as colour, training images by object-to-image ratio, a panel a task.

    Args:
        frame: a long form, of own or of published runs.
    """
    tasks = list(frame["task"].unique())
    if not tasks:
        raise IpslibError("no task to draw: the table is empty.")
    n_columns = min(2, len(tasks))
    n_rows = -(-len(tasks) // n_columns)
    n_ratios = frame["o2i_ratio"].nunique()
    size = (4.6 * n_columns + 0.8, n_rows * (1.1 + 0.5 * n_ratios))
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for spare in grid.flat[len(tasks) :]:
        spare.remove()
    colours = sns.color_palette(_MAP, as_cmap=True)
    style = {"cmap": colours, "vmin": 0, "vmax": 100, "annot": True, "fmt": ".0f", "cbar": False}
    for i, (task, ax) in enumerate(zip(tasks, grid.flat, strict=False)):
        cells = _cells(frame[frame["task"] == task])
        sns.heatmap(cells, ax=ax, linewidths=1.5, linecolor="white", **style)
        ax.set_title(task_title(task))
        chance = f"chance {100 * chance_level(task):.2g} %"
        ax.set_title(chance, loc="right", size=9, weight="normal", color=GREY)
        is_lowest = i + n_columns >= len(tasks)
        ax.set(xlabel="training images" if is_lowest else "")
        ax.set(ylabel="" if i % n_columns else "digit size and O2I")
        ax.tick_params(length=0, labelbottom=is_lowest, labelleft=not i % n_columns, rotation=0)
    bar = figure.colorbar(ax.collections[0], ax=grid, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label("mean test accuracy (%)")
    bar.outline.set_visible(False)
    return figure


def _cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy in percent, large objects on top, training sets growing to the right."""
    cells = rows.pivot_table(index="o2i_ratio", columns="n_train", values="accuracy") * 100
    size = rows.groupby("o2i_ratio")["digit_size"].agg(lambda s: "/".join(f"{v:g}" for v in set(s)))
    names = {ratio: f"{size[ratio]} px\n{100 * ratio:.2g} %" for ratio in cells.index}
    return cells.sort_index(ascending=False).rename(index=names)


def _draw_fit(ax: Axes, fit: ThresholdFit, colour: str) -> None:
    curve = fit.curve
    ax.plot(curve["n"], 100 * curve["accuracy"], color=colour, zorder=3)
    band = (100 * curve["low"], 100 * curve["high"])
    ax.fill_between(curve["n"], *band, color=colour, alpha=0.16, linewidth=0, zorder=1.5)
    if not fit.why:
        ax.axvline(fit.n_half, color=colour, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)


def _log_axis(ax: Axes, sizes: list[int]) -> None:
    """Ticks at sizes that were run, as many as have room."""
    ax.set_xscale("log")
    ax.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
    apart = (sizes[-1] / sizes[0]) ** _TICKS_APART
    shown = [sizes[0]]
    for size in sizes[1:]:
        if size >= apart * shown[-1]:
            shown.append(size)
    ax.set_xticks(shown, [f"{size:g}" for size in shown])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())


def _curve_keys(published: str | None) -> list:
    keys = [
        Line2D([], [], ls="", marker="o", ms=4.5, color=INK, label="one run"),
        Line2D([], [], color=_OURS, label="fit"),
        Patch(color=_OURS, alpha=0.2, label="95 % band"),
        Line2D([], [], color=_OURS, linewidth=1.2, linestyle=(0, (4, 2)), label="threshold"),
    ]
    if published:
        keys.append(Line2D([], [], label=published, **DIAMOND))
    return keys
