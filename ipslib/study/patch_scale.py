"""Patch size measured against the digit: what it means, how it looks, and what comes of it."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.study.arm_figures import arm_colours
from ipslib.study.comparisons import comparison_tables
from ipslib.study.figures import CHANCE_LINE, GREY, INK, PUBLISHED
from ipslib.study.maps import BOX_COLOUR
from ipslib.study.statistics import rising_trend
from ipslib.study.tables import chance_level, points

_TOUCHING = "#f0b429"
_TASK = "majority"
_PUBLISHED_MARKERS = "Ds^v"


def patch_table(arms: Mapping[str, RunConfig]) -> pd.DataFrame:
    """What a patch size means, a row an arm.

    Returns:
        `arm`, `patch_size` P in px, `patch_per_digit` (side over side), `n_patches` N,
        `memory_size` M, `iter_size` I, `kept_area` M P^2 in px, `kept_share` of the canvas in
        percent, `training_pixels` that one training step encodes with gradient, in thousands.
    """
    rows = []
    for arm, config in arms.items():
        data, n_patches = config.data, config.data.grid.n_patches
        area = min(config.model.memory_size, n_patches) * data.patch_size**2
        rows.append(
            {
                "arm": arm,
                "patch_size": data.patch_size,
                "patch_per_digit": data.patch_size / data.digit_size,
                "n_patches": n_patches,
                "memory_size": config.model.memory_size,
                "iter_size": config.model.iter_size,
                "kept_area": area,
                "kept_share": 100 * area / np.prod(data.canvas),
                "training_pixels": round(config.training.batch_size * area / 1000),
            }
        )
    return pd.DataFrame(rows)


def trends_with_smaller_patches(frame: pd.DataFrame) -> pd.DataFrame:
    """Test in each comparison whether accuracy (majority) rises as patches shrink.

    Args:
        frame: long form of runs with a column `comparison`; what has fewer than four runs, or
            one ratio of patch to digit only, is left out.

    Returns:
        `comparison`, `runs`, and of `rising_trend` over digit side / patch side: `effect`, the
        accuracy gained per halving of the patch, with its 95 % interval, `rho`, `p`, `smallest_p`.
    """
    rows = []
    for title, runs in frame[frame["task"] == _TASK].groupby("comparison", sort=False):
        ratio = _ratio(runs)
        if len(runs) > 3 and ratio.nunique() > 1:
            trend = rising_trend(1 / ratio, runs["accuracy"])
            effect = (trend.per_doubling, trend.low, trend.high)
            rows.append((title, len(runs), *effect, trend.rho, trend.p, trend.smallest_p))
    columns = ("comparison", "runs", "effect", "effect_low", "effect_high")
    return pd.DataFrame(rows, columns=[*columns, "rho", "p", "smallest_p"])


def trends_in_words(trends: pd.DataFrame) -> str:
    """The rows of `trends_with_smaller_patches`, and what each says of the claim."""
    texts = []
    for _, trend in trends.iterrows():
        low, high = trend["effect_low"], trend["effect_high"]
        verdict = "cannot be told from none"
        if low > 0:
            verdict = "speaks for the claim"
        elif high < 0:
            verdict = "speaks against the claim"
        texts.append(
            f"*{trend['comparison']}*: {points(trend['effect'])} (95 % interval "
            f"{points(low).removesuffix(' points')} to {points(high)}, {trend['runs']} runs), "
            f"which {verdict}"
        )
    return "; ".join(texts) or "there are too few runs for a trend"


def patches_over_digit(data_sets: Sequence[MegapixelMNIST], index: int) -> Figure:
    """Draw the surroundings of one digit under the grid of each data set's patches; the patches
    that touch the digit are coloured.

    Args:
        data_sets: that differ in the patch size only.
        index: of the image; its digit nearest to the middle is shown.
    """
    canvas = np.array(data_sets[0].config.canvas)
    boxes = data_sets[0].batch([index]).boxes[0].numpy()
    box = boxes[np.hypot(*(boxes[:, :2] + boxes[:, 2:] / 2 - canvas / 2).T).argmin()]
    side = 2.5 * max(each.config.patch_size for each in data_sets)
    size = (3.2 * len(data_sets), 3.75)
    figure, row = plt.subplots(1, len(data_sets), figsize=size, squeeze=False, layout="constrained")
    centre = np.clip(box[:2] + box[2:] / 2, side / 2, canvas - side / 2)
    for ax, data_set in zip(row.flat, data_sets, strict=True):
        grid, image = data_set.grid, data_set.canvas(index)
        ax.imshow(image, cmap="gray", extent=(0, image.shape[1], image.shape[0], 0))
        corners = grid.corners(np.arange(grid.n_patches))
        for top, left in corners[np.abs(corners - centre).max(axis=1) < side]:
            _outline(ax, top, left, grid.patch_size, edgecolor="#8c8c8c", linewidth=0.6)
        touching, _ = grid.incidence(box[None])
        for top, left in grid.corners(touching):
            colour = {"edgecolor": _TOUCHING, "facecolor": f"{_TOUCHING}38", "linewidth": 1.4}
            _outline(ax, top, left, grid.patch_size, **colour)
        _outline(ax, *box[:2], box[2], edgecolor=BOX_COLOUR, linewidth=1.6)
        ax.set_xlim(centre[1] - side / 2, centre[1] + side / 2)
        ax.set_ylim(centre[0] + side / 2, centre[0] - side / 2)
        ax.set(xticks=[], yticks=[])
        ratio = grid.patch_size / box[2]
        ax.set_title(f"{grid.patch_size} px, {ratio:.2g} of a digit")
        ax.set_xlabel(f"{len(touching)} patches touch the digit")
        ax.grid(visible=False)
    return figure


def _outline(ax: Axes, top: float, left: float, side: float, **style) -> None:
    ax.add_patch(Rectangle((left, top), side, side, **{"facecolor": "none"} | style))


def against_patch_ratio(frame: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Draw accuracy (majority) and digits kept against the patch's side over the digit's, and
    beside them the published runs at their own scale.

    Args:
        frame: of `run_comparisons`: a line a comparison, means with 95 % interval, dots are runs.
        published: of `published_accuracy`; a point a run, their noise counts told apart.
    """
    size = {"figsize": (11.5, 4.4), "sharey": True, "layout": "constrained"}
    figure, row = plt.subplots(1, 3, **size)
    accuracy, kept, theirs = row
    titles = list(frame["comparison"].unique())
    colours = dict(zip(titles, arm_colours(len(titles) + 1)[1:], strict=True))
    frame = frame[frame["task"] == _TASK].assign(ratio=_ratio)
    table = comparison_tables(frame)
    table["ratio"] = table["arm"].map(frame.groupby("arm")["ratio"].first())
    for i, (title, colour) in enumerate(colours.items()):
        beside = 1 + 0.025 * (i - (len(titles) - 1) / 2)  # lines that share a point stay apart
        means = table[table["comparison"] == title].sort_values("ratio")
        runs = frame[frame["comparison"] == title].sort_values("ratio")
        _line_of_means(accuracy, means, beside, colour)
        dots = {"color": colour, "s": 15, "edgecolor": "white", "linewidth": 0.4, "zorder": 5}
        accuracy.scatter(runs["ratio"] * beside, 100 * runs["accuracy"], **dots)
        kept.scatter(runs["ratio"] * beside, 100 * runs["roi_recall"], **dots)
        found = runs.groupby("ratio")[["roi_recall", "roi_recall_random"]].mean() * 100
        kept.plot(found.index * beside, found["roi_recall"], color=colour)
        kept.plot(found.index * beside, found["roi_recall_random"], color=colour, ls=":", lw=1.3)
    keys = [Line2D([], [], color=colour, label=title) for title, colour in colours.items()]
    keys.append(Line2D([], [], color=GREY, ls=":", lw=1.3, label="digits kept by random patches"))
    keys += _published_points(theirs, published[published["task"] == _TASK].assign(ratio=_ratio))
    _name_axes(row, frame, published)
    figure.legend(handles=keys, loc="outside upper left", ncols=3)
    return figure


def _ratio(runs: pd.DataFrame) -> pd.Series:
    return runs["patch_size"] / runs["digit_size"]


def _line_of_means(ax: Axes, means: pd.DataFrame, beside: float, colour) -> None:
    mean = 100 * means["mean"]
    ends = np.array([mean - 100 * means["low"], 100 * means["high"] - mean]).clip(min=0)
    style = {"fmt": "o-", "ms": 5, "elinewidth": 1.1, "capsize": 2.5, "zorder": 4}
    ax.errorbar(means["ratio"] * beside, mean, ends, color=colour, **style)


def _published_points(ax: Axes, runs: pd.DataFrame) -> list[Line2D]:
    """Draw the published runs; return what a legend needs."""
    counts, keys = sorted(runs["n_noise"].unique(), reverse=True), []
    for n_noise, marker in zip(counts, _PUBLISHED_MARKERS, strict=False):
        points = runs[runs["n_noise"] == n_noise]
        style = {"ls": "", "marker": marker, "mfc": "none", "mec": PUBLISHED, "mew": 1.6, "ms": 6.5}
        ax.plot(points["ratio"], 100 * points["accuracy"], **style)
        keys.append(Line2D([], [], label=f"published, {n_noise:g} noise objects", **style))
    return keys


def _name_axes(row: Iterable[Axes], frame: pd.DataFrame, published: pd.DataFrame) -> None:
    accuracy, kept, theirs = row
    for ax, runs in ((accuracy, frame), (kept, frame), (theirs, published)):
        sizes = runs.assign(ratio=_ratio).groupby("ratio")["patch_size"].first()
        ax.set_xscale("log", base=2)
        ax.xaxis.set(major_locator=FixedLocator(sizes.index), minor_locator=NullLocator())
        ax.set_xticks(sizes.index, [f"{ratio:.2g}\n{size:g} px" for ratio, size in sizes.items()])
        ax.set_xlabel("patch side / digit side")
        ax.margins(x=0.12)
    for ax in (accuracy, theirs):
        ax.axhline(100 * chance_level(_TASK), **CHANCE_LINE)
    beside = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9, "color": GREY}
    theirs.annotate("chance", (1.01, 100 * chance_level(_TASK)), **beside)
    accuracy.set(ylim=(0, 102), ylabel="test accuracy (%)", title="majority")
    kept.set(title="digits touched by a kept patch", ylabel="digits kept (%)")
    canvas = published["canvas"].iloc[0]
    theirs.set_title(f"majority, published ({canvas:g} px)", color=INK)
