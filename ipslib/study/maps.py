"""Attention maps: which patches a model kept, how much it attends to each, and where it should.

Nothing here knows a model: a map is an image, the corners of the kept patches and their weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from scipy.ndimage import maximum_filter

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.figures import bare

SCALES = {
    "rank": "attention, rank",
    "linear": "attention, × uniform",
    "log": "attention, × uniform, log",
}
# The darkest fifth of plasma is lost on a black canvas.
ATTENTION_COLOURS = ListedColormap(plt.get_cmap("plasma")(np.linspace(0.2, 1, 256)), "attention")
BOX_COLOUR = "#4df3ff"
_HALO = [withStroke(linewidth=2, foreground="#00000070")]  # sets lines off from a photograph
_STROKE_KEEPS = 0.8  # share of the tint that a white pixel is spared
ROW_WIDTH, LARGEST_SIDE = 10.5, 4.2  # inches


class AttentionMap(NamedTuple):
    """One image and what was kept of it."""

    image: np.ndarray  # (H, W) or (H, W, 3) uint8
    corners: np.ndarray  # (M, 2) row and column in pixels of the kept patches
    patch_size: int  # pixels
    weights: np.ndarray  # (M,) attention, adding up to 1
    boxes: np.ndarray | None = None  # (n, 4) top, left, height, width in pixels
    title: str = ""


def attention_values(weights: np.ndarray, scale: str = "rank") -> np.ndarray:
    """Attention as a map colours it.

    Args:
        weights: (M,) attention over the kept patches.
        scale: `rank`, evenly from 0 (least) to 1 (most), equal weights alike; `linear` or `log`,
            the weight in units of 1/M, that is of uniform attention.

    Returns:
        (M,) values.
    """
    if scale not in SCALES:
        raise IpslibError(f"scale: no attention scale {scale!r}{did_you_mean(scale, SCALES)}.")
    weights = np.asarray(weights, float)
    if scale == "rank":
        below = (weights[:, None] > weights).sum(axis=1)
        above = (weights[:, None] < weights).sum(axis=1)
        return 0.5 + 0.5 * (below - above) / max(len(weights) - 1, 1)
    return weights * len(weights) / weights.sum()


def draw_attention_map(
    ax: Axes,
    image: np.ndarray,
    corners: np.ndarray,
    patch_size: int,
    weights: np.ndarray,
    boxes: np.ndarray | None = None,
    *,
    scale: str = "rank",
    norm: Normalize | None = None,
    alpha: float = 0.6,
    display_pixels: int = 750,
) -> ScalarMappable:
    """Draw the kept patches as translucent squares over the image, digit boxes as outlines.

    Where patches overlap the one with most attention shows. Axes are in pixels of the image.

    Args:
        ax: axes to draw in.
        image, corners, patch_size, weights, boxes: as in `AttentionMap`.
        scale: `rank`, `linear` or `log`.
        norm: colour limits, where several maps share them; the map's own extremes if None.
        alpha: opacity of the squares.
        display_pixels: about as many pixels a side as will be seen; strokes of a larger canvas
            are thickened to last.

    Returns:
        What a colour bar needs.
    """
    corners, weights = np.asarray(corners), np.asarray(weights, float)
    if corners.shape != (len(weights), 2) or not len(weights):
        raise IpslibError(
            "wanted one (row, column) corner and one weight a kept patch, "
            f"got corners of {corners.shape} and weights of {weights.shape}."
        )
    values = attention_values(weights, scale)
    norm = norm or _common_norm([values], scale)
    order = np.argsort(values, kind="stable")  # most attention last, that is on top
    corners, colours = corners[order], ATTENTION_COLOURS(norm(values[order]))
    height, width = image.shape[:2]
    base = thicken_strokes(image, -(-max(height, width) // display_pixels))
    tinted = tint_patches(base, corners, patch_size, colours, alpha=alpha)
    ax.imshow(tinted, extent=(0, width, height, 0), zorder=1)
    squares = [Rectangle((col, row), patch_size, patch_size) for row, col in corners]
    edges = {"facecolor": "none", "edgecolor": colours, "linewidth": 0.7, "zorder": 2}
    if image.ndim == 3:
        edges["path_effects"] = _HALO  # on a canvas it would cut the strokes
    ax.add_collection(PatchCollection(squares, **edges))
    for top, left, box_height, box_width in [] if boxes is None else np.asarray(boxes):
        outline = Rectangle((left, top), box_width, box_height, fill=False, zorder=3)
        outline.set(edgecolor=BOX_COLOUR, linewidth=1, path_effects=_HALO)
        ax.add_patch(outline)
    ax.set(xlim=(0, width), ylim=(height, 0))
    bare(ax)
    return ScalarMappable(norm, ATTENTION_COLOURS)


def attention_figure(
    maps: Sequence[AttentionMap], *, scale: str = "rank", box_name: str = "digit"
) -> Figure:
    """Draw a row of maps with one colour bar for all.

    Args:
        maps: what to draw, from left to right.
        scale: `rank`, `linear` or `log`; colour limits are common to the row.
        box_name: what the outlines are, for the legend.
    """
    if not maps:
        raise IpslibError("no attention map to draw.")
    norm = _common_norm([attention_values(each.weights, scale) for each in maps], scale)
    side = min(ROW_WIDTH / len(maps), LARGEST_SIDE)
    tallest = max(each.image.shape[0] / each.image.shape[1] for each in maps)
    size = (side * len(maps) + 0.9, side * tallest + 0.75)
    figure, row = plt.subplots(1, len(maps), figsize=size, squeeze=False, layout="constrained")
    for ax, (*what, title) in zip(row[0], maps, strict=True):
        colours = draw_attention_map(ax, *what, scale=scale, norm=norm)
        ax.set_title(title)
    bar = figure.colorbar(colours, ax=row[0].tolist(), shrink=0.9, pad=0.015, aspect=28)
    bar.set_label(SCALES[scale])
    bar.outline.set_visible(False)
    if scale == "rank":
        bar.set_ticks([0, 1], labels=["least", "most"])
    elif scale == "log":
        bar.ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        bar.ax.yaxis.set_major_formatter("{x:g}")
    if any(each.boxes is not None for each in maps):
        outline = Rectangle((0, 0), 1, 1, fc="#333333", ec=BOX_COLOUR, lw=1.2, label=box_name)
        figure.legend(handles=[outline], loc="outside lower left", handlelength=1.0)
    return figure


def thicken_strokes(image: np.ndarray, factor: int) -> np.ndarray:
    """Replace each pixel of a canvas (H, W) by the maximum of the factor x factor pixels about
    it, so that a stroke of one pixel survives a display that many times smaller. Photographs
    (H, W, 3) are left as they are."""
    return maximum_filter(image, size=factor) if image.ndim == 2 and factor > 1 else image


def tint_patches(
    image: np.ndarray, corners: np.ndarray, patch_size: int, colours: np.ndarray, *, alpha: float
) -> np.ndarray:
    """Blend a colour into each square; where squares overlap the last one replaces the others.

    On a canvas (H, W) the tint fades with brightness, so that white strokes stay legible.

    Returns:
        (H, W, 3) uint8.
    """
    strength = np.full(image.shape[:2], alpha, np.float32)
    if image.ndim == 2:
        strength *= 1 - _STROKE_KEEPS * image / np.float32(255)
        image = np.repeat(image[..., None], 3, axis=2)
    tinted = image.copy()
    for (row, col), colour in zip(corners, colours, strict=True):
        square = np.s_[max(row, 0) : row + patch_size, max(col, 0) : col + patch_size]
        share = strength[square][..., None]
        tinted[square] = np.round((1 - share) * image[square] + share * 255 * colour[:3])
    return tinted


def _common_norm(values: Sequence[np.ndarray], scale: str) -> Normalize:
    everything = np.concatenate(values)
    if scale == "rank":
        return Normalize(0, 1)
    if scale == "linear":
        return Normalize(0, everything.max())
    return LogNorm(everything[everything > 0].min(), everything.max(), clip=True)
