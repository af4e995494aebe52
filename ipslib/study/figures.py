"""What the study's figures share: style, panels, marks, legends, and how they are saved.

Units stand on every axis, and chance is always drawn. Our numbers are filled bars or solid lines
with their interval and every single seed as a dot; published numbers are open diamonds of a colour
that nothing else has.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image

from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.study.tables import chance_level

INK, GREY, OURS, PUBLISHED = "#222222", "#6b6b6b", "#2c6f9c", "#c8430a"
DIAMOND = {"ls": "", "marker": "D", "ms": 6.5, "mfc": "none", "mec": PUBLISHED, "mew": 1.8} | {
    "path_effects": [withStroke(linewidth=3.4, foreground="white")]
}
CHANCE_LINE = {"color": GREY, "linestyle": (0, (1, 1.5)), "linewidth": 1.1, "zorder": 2.5}
_LEVELS = "blend:#9ad5c2,#2c8fa6,#2a3f86"
_RED = 3  # in the colour-blind palette, too near to the colour of published numbers
_TICKS = {"color": GREY, "labelcolor": INK, "major.width": 0.8, "major.size": 4}
_PNG_COLOURS = 256
_SAME, _NEARLY_ALL = 12, 99.9  # of 255 levels; % of the pixels
_TASK_TITLES = {"multi": "multi (exact match)"}


def use_style() -> None:
    """Set the house style for every figure made from here on, and twice the pixels in notebooks."""
    import seaborn as sns  # late: a module that saves figures does without

    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.92)
    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "grid.color": "#e3e3e3",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
        | {f"{axis}tick.{part}": value for axis in "xy" for part, value in _TICKS.items()}
    )
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def panel_grid(
    tasks: Sequence[str],
    *,
    each: tuple[float, float],
    around: tuple[float, float],
    x_label: str,
    y_label: str = "",
) -> tuple[Figure, dict[str, Axes]]:
    """Lay out one titled panel a task, two a row, on common axes that are labelled at the margin.

    `each` is width and height of a panel in inches, `around` what comes to those of all panels.
    """
    if not tasks:
        raise IpslibError("no task to draw: the table is empty.")
    n_columns = min(2, len(tasks))
    n_rows = -(-len(tasks) // n_columns)
    size = (each[0] * n_columns + around[0], each[1] * n_rows + around[1])
    common = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, **common)
    for spare in grid.flat[len(tasks) :]:
        spare.remove()
    panels = dict(zip(tasks, grid.flat, strict=False))
    for i, (task, ax) in enumerate(panels.items()):
        is_lowest = i + n_columns >= len(tasks)
        ax.set(ylabel="" if i % n_columns else y_label, xlabel=x_label if is_lowest else "")
        ax.set_title(_TASK_TITLES.get(task, task))
        ax.tick_params(labelbottom=is_lowest)
    return figure, panels


def task_panels(
    tasks: Sequence[str],
    *,
    x_label: str,
    y_label: str,
    chance: Mapping[str, float] | None = None,
) -> tuple[Figure, dict[str, Axes]]:
    """Make one panel a task with accuracy from 0 to 100 % upwards and the task's chance line: that
    of Megapixel MNIST's tasks unless given."""
    labels = {"x_label": x_label, "y_label": y_label}
    figure, panels = panel_grid(tasks, each=(5, 2.9), around=(0, 0.7), **labels)
    for task, ax in panels.items():
        level = 100 * (chance_level(task) if chance is None else chance[task])
        ax.set(ylim=(0, 102), yticks=range(0, 101, 20))
        ax.axhline(level, **CHANCE_LINE)
        beside = {"xycoords": ("axes fraction", "data"), "va": "bottom" if level < 5 else "center"}
        ax.annotate(f"chance\n{level:.2g} %", (1.01, level), fontsize=9, color=GREY, **beside)
    return figure, panels


def chance_title(ax: Axes, chance: float) -> None:
    """Write the accuracy of the best constant answer, a share, above the axes on the right."""
    ax.set_title(f"chance {100 * chance:.2g} %", loc="right", size=9, weight="normal", color=GREY)


def draw_means(
    ax: Axes, at: Sequence[float], rows: pd.DataFrame, *, sideways: bool = False, **style: object
) -> ErrorbarContainer:
    """Draw means in percent with their 95 % interval.

    Args:
        ax: whose axis of accuracy is y, or x if `sideways`.
        at: places along the other axis, one a row.
        rows: of `summarise` or `arm_table`, with mean, low and high as shares.
        **style: of `Axes.errorbar`.
    """
    mean = 100 * rows["mean"]
    ends = np.array([mean - 100 * rows["low"], 100 * rows["high"] - mean]).clip(min=0)
    style = {"fmt": "o", "ms": 6, "elinewidth": 1.2, "capsize": 2.5, "zorder": 4} | style
    if sideways:
        return ax.errorbar(mean, at, xerr=ends, **style)
    return ax.errorbar(at, mean, yerr=ends, **style)


def level_colours(n: int) -> list:
    """n colours that go from light to dark, for things that have an order."""
    import seaborn as sns

    return sns.color_palette(_LEVELS, n) if n > 1 else sns.color_palette(_LEVELS, 3)[1:2]


def arm_colours(n: int) -> list:
    """n colours, the first dark for the reference; a light-to-dark scale where arms are many."""
    import seaborn as sns

    distinct = sns.color_palette("colorblind")
    del distinct[_RED]
    others = distinct[: n - 1] if n - 1 <= len(distinct) else level_colours(n - 1)
    return [INK, *others][:n]


def row_legend(
    figure: Figure, keys: list, title: str = "", *, n_columns: int | None = None
) -> None:
    """Rows above the panels, one if `n_columns` is None, their title in front."""
    if title:
        keys = [Line2D([], [], linestyle="", label=f"{title}:"), *keys]
    spacing = {"columnspacing": 1.2, "handlelength": 1.4, "handletextpad": 0.5}
    figure.legend(handles=keys, loc="outside upper left", ncols=n_columns or len(keys), **spacing)


def log_ticks(axis: Axis) -> None:
    """Labels such as 20, 50, 100 on a logarithmic axis whose limits stand; of many decades only the
    powers of ten, since the others would run into each other."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return write_atomically(path, smaller_png(buffer.getvalue()))


def smaller_png(png: bytes) -> bytes:
    """A PNG of 256 colours of its own; the picture itself where that would show, as in
    photographs and colour bars, or be no smaller. Width and height stay.
    """
    with Image.open(io.BytesIO(png)) as image:
        if image.mode == "P":
            return png
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
    drawn = on_white.convert("RGB")
    few = drawn.quantize(_PNG_COLOURS)
    apart = np.abs(np.asarray(drawn, np.int16) - np.asarray(few.convert("RGB"), np.int16))
    if np.percentile(apart.max(axis=2), _NEARLY_ALL) > _SAME:
        return png
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)
