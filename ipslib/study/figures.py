"""The study's plots: one question a figure, units on every axis, chance always drawn.

Our numbers are filled bars or solid lines with their interval and every single seed as a dot;
published numbers are open diamonds of a colour that nothing else has.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image

from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.study.tables import beside_published, chance_level, long_form, summarise

INK, GREY, OURS, PUBLISHED = "#222222", "#6b6b6b", "#2c6f9c", "#c8430a"
_LEVELS = "blend:#9ad5c2,#2c8fa6,#2a3f86"
DIAMOND = {"ls": "", "marker": "D", "ms": 6.5, "mfc": "none", "mec": PUBLISHED, "mew": 1.8} | {
    "path_effects": [withStroke(linewidth=3.4, foreground="white")]
}
_TRAINING = {"linewidth": 1.2, "linestyle": (0, (4, 2))}
_BAR_GROUP_WIDTH = 0.82  # of the distance from one group to the next
_AXIS_LABELS = {
    "digit_size": "digit size (px)",
    "o2i_ratio": "object-to-image ratio (%)",
    "n_train": "training images",
    "n_noise": "noise objects",
    "stroke_width": "noise stroke width (px at 28 px)",
    "patch_size": "patch size (px)",
    "diversity_weight": "weight of the diversity loss",
    "mask_k": "best patches that may be masked, K",
    "mask_p": "masking probability p",
    "memory_size": "kept patches, M",
}
_TICKS = {"color": GREY, "labelcolor": INK, "major.width": 0.8, "major.size": 4}
CHANCE_LINE = {"color": GREY, "linestyle": (0, (1, 1.5)), "linewidth": 1.1, "zorder": 2.5}
_PNG_COLOURS = 256
_SAME, _NEARLY_ALL = 12, 99.9  # of 255 levels; % of the pixels
_TASK_TITLES = {"multi": "multi (exact match)"}


def use_style() -> None:
    """Set the house style for every figure made from here on, and twice the pixels in notebooks."""
    import seaborn as sns  # the study's; maps of own images do without

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


def axis_label(name: str) -> str:
    """What a column is, with its unit."""
    return _AXIS_LABELS.get(name, name.replace("_", " "))


def task_title(task: str) -> str:
    """What a panel of one task is called."""
    return _TASK_TITLES.get(task, task)


def grouped_bars(
    frame: pd.DataFrame,
    *,
    x: str = "digit_size",
    bars: str | None = "n_train",
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw last-epoch test accuracy in one panel a task: groups of bars along x.

    Args:
        frame: a long form of runs; bars show the mean over seeds with its 95 % interval, dots
            the single runs.
        x: column along the axis. Beside digit sizes their object-to-image ratio is written
            where a size has one ratio only.
        bars: column told apart by colour within a group, or None.
        published: of `published_accuracy`; shown where it has the same x and bars.
    """
    by = [x] if bars is None else [x, bars]
    summary = summarise(frame, by=by)
    if published is not None:
        summary = beside_published(summary, published, on=by)
    places, levels = sorted(frame[x].unique()), sorted(frame[bars].unique()) if bars else [None]
    colours = level_colours(len(levels))
    width = _BAR_GROUP_WIDTH / len(levels)
    label, ticks = _names_along(frame, x, places)
    tasks = list(frame["task"].unique())
    figure, panels = task_panels(tasks, x_label=label, y_label="test accuracy (%)")
    for task, ax in panels.items():
        for i, level in enumerate(levels):
            rows, runs = (
                table[(table["task"] == task) & (bars is None or table[bars] == level)]
                for table in (summary, frame)
            )
            shift = (i - (len(levels) - 1) / 2) * width
            _draw_bars(ax, rows, rows[x].map(places.index) + shift, width, colours[i])
            at = runs[x].map(places.index) + shift + _fan_out(runs[x], width)
            dots = {"color": INK, "edgecolor": "white", "linewidth": 0.5, "zorder": 5}
            ax.scatter(at, 100 * runs["accuracy"], s=13, **dots)
        ax.set_xticks(range(len(places)), ticks)
    _bar_legend(figure, bars, dict(zip(levels, colours, strict=True)), published is not None)
    return figure


def learning_curves(records: Iterable[Mapping], *, by: str = "n_train") -> Figure:
    """Draw accuracy against epoch in one panel a task: test solid, training dashed.

    Thick lines are means over seeds, thin ones single runs; `by` is the configuration's field
    that colours tell apart. Epochs without an evaluation are joined over.
    """
    records = list(records)
    frame = long_form(records)
    summarise(frame, by=[by])  # refuses runs that differ in more than `by` and the seed
    levels = sorted(frame[by].unique())
    colours = dict(zip(levels, level_colours(len(levels)), strict=True))
    curves = curve_table(records, dict(zip(frame["id"], frame[by], strict=True)))
    chance = frame.groupby("task", sort=False)["chance"].first()
    figure, panels = task_panels(
        list(chance.index), x_label="epoch", y_label="accuracy (%)", chance=chance
    )
    for (task, level), group in curves.groupby(["task", "level"]):
        ax, colour = panels[task], colours[level]
        for _, run in group.dropna(subset="test").groupby("id"):
            ax.plot(run["epoch"], 100 * run["test"], color=colour, alpha=0.4, linewidth=0.6)
        mean = 100 * group.groupby("epoch")[["train", "test"]].mean()
        train, test = mean["train"].dropna(), mean["test"].dropna()
        ax.plot(train.index, train, color=colour, **_TRAINING)
        ax.plot(test.index, test, color=colour)
        ax.set_xlim(1, max(2, curves["epoch"].max()))
    keys = [Line2D([], [], color=c, label=_level_text(v)) for v, c in colours.items()]
    keys.append(Line2D([], [], color=INK, label="test"))
    keys.append(Line2D([], [], color=INK, label="training", **_TRAINING))
    row_legend(figure, keys, axis_label(by))
    return figure


def task_panels(
    tasks: Sequence[str],
    *,
    x_label: str,
    y_label: str,
    chance: Mapping[str, float] | None = None,
) -> tuple[Figure, dict[str, Axes]]:
    """Make one panel a task, two a row, on common axes from 0 to 100 %, with its chance line:
    that of Megapixel MNIST's tasks unless given."""
    if not tasks:
        raise IpslibError("no task to draw: the table is empty.")
    figure, panels, n_columns = panel_grid(tasks, each=(5, 2.9), around=(0, 0.7))
    for i, (task, ax) in enumerate(panels.items()):
        is_lowest = i + n_columns >= len(tasks)
        ax.set(ylabel="" if i % n_columns else y_label, xlabel=x_label if is_lowest else "")
        ax.tick_params(labelbottom=is_lowest)
        ax.set(title=task_title(task), ylim=(0, 102), yticks=range(0, 101, 20))
        chance_line(ax, chance[task] if chance is not None else chance_level(task))
    return figure, panels


def panel_grid(
    tasks: Sequence[str], *, each: tuple[float, float], around: tuple[float, float]
) -> tuple[Figure, dict[str, Axes], int]:
    """Lay out one panel a task, two a row, on common axes.

    Args:
        tasks: at least one.
        each: width and height of a panel in inches.
        around: what comes to all panels' width and height.

    Returns:
        The figure, the panels by task, and how many stand in a row.
    """
    n_columns = min(2, len(tasks))
    n_rows = -(-len(tasks) // n_columns)
    size = (each[0] * n_columns + around[0], each[1] * n_rows + around[1])
    common = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, **common)
    for spare in grid.flat[len(tasks) :]:
        spare.remove()
    return figure, dict(zip(tasks, grid.flat, strict=False)), n_columns


def chance_line(ax: Axes, chance: float, *, upright: bool = False) -> None:
    """Draw the accuracy of the best constant answer, a share, and write it beside the axes."""
    level = 100 * chance
    if upright:
        ax.axvline(level, **CHANCE_LINE)
        chance_title(ax, chance)
        return
    ax.axhline(level, **CHANCE_LINE)
    beside = {"xycoords": ("axes fraction", "data"), "va": "bottom" if level < 5 else "center"}
    ax.annotate(f"chance\n{level:.2g} %", (1.01, level), fontsize=9, color=GREY, **beside)


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


def _draw_bars(ax: Axes, rows: pd.DataFrame, at: list[float], width: float, colour) -> None:
    ax.bar(at, 100 * rows["mean"], 0.9 * width, color=colour)
    _, caps, stems = draw_means(ax, at, rows, fmt="none", ecolor=INK, elinewidth=1)
    for part in (*caps, *stems):
        part.set(zorder=4, path_effects=[withStroke(linewidth=2, foreground="#ffffffb0")])
    if "published" in rows:
        ax.plot(at, 100 * rows["published"], zorder=4.5, **DIAMOND)


def _fan_out(places: pd.Series, width: float) -> np.ndarray:
    """Sideways shifts within a bar, so that runs of one setting do not hide each other."""
    group = places.groupby(places.to_numpy())
    nth, n = group.cumcount(), group.transform("size")
    return ((nth - (n - 1) / 2) / n * 0.6 * width).to_numpy()


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


def _names_along(frame: pd.DataFrame, x: str, places: list) -> tuple[str, list[str]]:
    """The label of the x axis and its ticks' names."""
    if x == "o2i_ratio":
        return axis_label(x), [f"{100 * place:.2g}" for place in places]
    if x == "digit_size" and (frame.groupby(x)["o2i_ratio"].nunique() == 1).all():
        ratio = frame.groupby(x)["o2i_ratio"].first()
        ticks = [f"{place:g} px\n{100 * ratio[place]:.2g} %" for place in places]
        return "digit size and object-to-image ratio", ticks
    return axis_label(x), [_level_text(place) for place in places]


def _level_text(level: object) -> str:
    return f"{level:g}" if isinstance(level, int | float | np.number) else str(level)


def _bar_legend(figure: Figure, bars: str | None, colours: dict, has_published: bool) -> None:
    keys = [Patch(color=c, label=_level_text(v)) for v, c in colours.items()] if bars else []
    dot = {"linestyle": "", "color": INK}
    keys.append(Line2D([], [], marker="o", markersize=4, label="one run", **dot))
    keys.append(Line2D([], [], marker="|", markersize=12, label="95 % interval", **dot))
    if has_published:
        keys.append(Line2D([], [], label="published", **DIAMOND))
    row_legend(figure, keys, axis_label(bars) if bars else "")


def row_legend(
    figure: Figure, keys: list, title: str = "", *, n_columns: int | None = None
) -> None:
    """Rows above the panels, one if `n_columns` is None, their title in front."""
    if title:
        keys = [Line2D([], [], linestyle="", label=f"{title}:"), *keys]
    spacing = {"columnspacing": 1.2, "handlelength": 1.4, "handletextpad": 0.5}
    figure.legend(handles=keys, loc="outside upper left", ncols=n_columns or len(keys), **spacing)
