"""Time and memory against image side, drawn from what `efficiency` measured."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from ipslib.study.efficiency import NOT_TRIED
from ipslib.study.efficiency_step import DONE, OUT_OF_TIME
from ipslib.study.efficiency_tables import WAY_NAMES
from ipslib.study.figures import GREY, INK

_STEP_TITLES = {"train": "Training step", "classify": "Classification"}
_STYLES = {
    way: {"color": colour, "marker": marker, "markersize": 5}
    for way, colour, marker in zip(WAY_NAMES, sns.color_palette("colorblind"), "os^", strict=False)
}
_FEW_TIMES = 300  # from the bottom to the top of an axis that has room for 1, 2 and 5
_CROSS = {"linestyle": "", "marker": "x", "markeredgewidth": 2.2}
_ROOFLINE = {"linestyle": (0, (5, 2)), "linewidth": 0.9}
_REACHING = {"linestyle": (0, (1, 1.5)), "linewidth": 1.2}


def side_curves(frame: pd.DataFrame, *, memory_limit_mb: int, seconds_limit: int) -> Figure:
    """Draw seconds and memory against image side: a row of panels a step, a line a way.

    A cross marks the side at which a way fails, at the limit that it ran into. How long a step
    that ran out of memory would have taken is not known: among the times its cross stands where
    growth in proportion to the area leads, on a dotted line.

    Args:
        frame: of `measure_sides`.
        memory_limit_mb, seconds_limit: the limits under which it was measured.
    """
    steps = [step for step in _STEP_TITLES if step in set(frame["step"])]
    ways = [way for way in WAY_NAMES if way in set(frame["way"])]
    size = (10.5, 0.8 + 3.5 * len(steps))
    figure, grid = plt.subplots(len(steps), 2, figsize=size, sharex=True, squeeze=False)
    batch_size = int(frame["batch_size"].iloc[0])
    for step, (times, memories) in zip(steps, grid, strict=True):
        for way in ways:
            rows = frame[(frame["way"] == way) & (frame["step"] == step)].sort_values("side")
            _draw_times(times, rows, seconds_limit / batch_size, _STYLES[way])
            _draw_memories(memories, rows, memory_limit_mb, _STYLES[way])
        memories.axhline(memory_limit_mb, color=GREY, linewidth=1)
        beside = {"xycoords": ("axes fraction", "data"), "va": "center", "color": GREY}
        memories.annotate(" limit", (1, memory_limit_mb), fontsize=9, **beside)
        for ax in (times, memories):
            _lay_out(ax, sorted(frame["side"].unique()))
        times.set(title=_STEP_TITLES[step], ylabel="seconds an image")
        memories.set(ylabel=f"step memory, batch of {batch_size} (MB)")
    for ax in grid[-1]:
        ax.set(xlabel="image side (px)")
    _add_legend(figure, ways, has_failed=frame["outcome"].ne(DONE).any())
    return figure


def _draw_times(ax: Axes, rows: pd.DataFrame, limit: float, style: dict) -> None:
    done, failed = _done_and_failed(rows)
    ax.plot(done["side"], done["seconds"], **style)
    ax.plot(done["side"], done["roofline_seconds"], color=style["color"], **_ROOFLINE)
    if failed is None:
        return
    if failed["outcome"] == OUT_OF_TIME:
        _draw_cross(ax, done, "seconds", failed["side"], limit, style)
    elif len(done):
        last = done.iloc[-1]
        led_to = last["seconds"] * (failed["side"] / last["side"]) ** 2
        _draw_cross(ax, done, "seconds", failed["side"], led_to, style)


def _draw_memories(ax: Axes, rows: pd.DataFrame, limit: float, style: dict) -> None:
    done, failed = _done_and_failed(rows)
    ax.plot(done["side"], done["step_mb"], **style)
    if failed is not None and failed["outcome"] != OUT_OF_TIME:
        _draw_cross(ax, done, "step_mb", failed["side"], limit, style)


def _done_and_failed(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    """The sides that a way did, and the first that it did not."""
    failed = rows[~rows["outcome"].isin([DONE, NOT_TRIED])]
    return rows[rows["outcome"] == DONE], None if failed.empty else failed.iloc[0]


def _draw_cross(
    ax: Axes, done: pd.DataFrame, measure: str, side: int, height: float, style: dict
) -> None:
    if len(done):
        last = done.iloc[-1]
        ends = [last["side"], side], [last[measure], height]
        ax.plot(*ends, color=style["color"], **_REACHING)
    # Two ways that fail alike stay visible: the first is drawn larger.
    size = 13 if style["marker"] == "s" else 8
    ax.plot([side], [height], color=style["color"], markersize=size, zorder=4, **_CROSS)


def _lay_out(ax: Axes, sides: Sequence[int]) -> None:
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(sides, [str(side) for side in sides])
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _FEW_TIMES * low else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _add_legend(figure: Figure, ways: Sequence[str], *, has_failed: bool) -> None:
    keys = [Line2D([], [], label=WAY_NAMES[way], **_STYLES[way]) for way in ways]
    keys.append(Line2D([], [], color=INK, label="roofline", **_ROOFLINE))
    if has_failed:
        keys.append(Line2D([], [], color=INK, markersize=8, label="fails", **_CROSS))
    figure.legend(handles=keys, loc="outside upper left", ncols=len(keys))
