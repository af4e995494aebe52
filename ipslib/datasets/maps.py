"""Images with what matters in them: rows of images with outlined boxes, and attention maps, which
show the patches that a model kept and how much it attends to each.

Nothing here but `map_of_image` knows a model: a map is an image, the corners of the kept patches
and their weights.
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
from scipy.stats import rankdata

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.traffic_signs.dataset import TrafficSigns
from ipslib.errors import IpslibError, did_you_mean
from ipslib.metrics import has_object
from ipslib.model.ips import IPSNet
from ipslib.training import attend

SCALES = {
    "rank": "attention, rank",
    "linear": "attention, × uniform",
    "log": "attention, × uniform, log",
}
# The darkest fifth of plasma is lost on a black canvas.
ATTENTION_COLOURS = ListedColormap(plt.get_cmap("plasma")(np.linspace(0.2, 1, 256)), "attention")
BOX_COLOUR = "#4df3ff"
ROW_WIDTH, LARGEST_SIDE = 10.5, 4.2  # inches
_HALO = [withStroke(linewidth=2, foreground="#00000070")]  # sets lines off from a photograph
_STROKE_KEEPS = 0.8  # share of the tint that a white pixel is spared
_DISPLAY_PIXELS = 600  # about as many a side as will be seen


class AttentionMap(NamedTuple):
    """One image and what was kept of it."""

    image: np.ndarray  # (H, W) or (H, W, 3) uint8
    corners: np.ndarray  # (M, 2) row and column in pixels of the kept patches
    patch_size: int  # pixels
    weights: np.ndarray  # (M,) attention, adding up to 1
    boxes: np.ndarray | None = None  # (n, 4) top, left, height, width in pixels
    title: str = ""


def map_of_image(
    network: IPSNet, data_set: MegapixelMNIST | TrafficSigns, index: int, *, title: str = ""
) -> AttentionMap:
    """The patches that a network keeps of one image, with their attention (mean over heads and
    tasks) and the boxes of what is to be found in it."""
    batch = data_set.batch([index])
    kept, weights = attend(network, batch)
    boxes = batch.boxes[0]
    return AttentionMap(
        image=data_set.canvas(index),
        corners=data_set.grid.corners(kept[0].numpy()),
        patch_size=data_set.grid.patch_size,
        weights=weights[0].mean(dim=(0, 1)).numpy(),
        boxes=boxes[has_object(boxes)].numpy(),
        title=title,
    )


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
    weights, n = np.asarray(weights, float), len(weights)
    if scale == "rank":
        return 0.5 + (rankdata(weights) - (n + 1) / 2) / max(n - 1, 1)
    return weights * n / weights.sum()


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
    figure, row = _image_axes([each.image for each in maps], around=(0.9, 0.45))
    for ax, each in zip(row, maps, strict=True):
        draw_attention_map(ax, each, scale=scale, norm=norm)
    colours = ScalarMappable(norm, ATTENTION_COLOURS)
    bar = figure.colorbar(colours, ax=row, shrink=0.9, pad=0.015, aspect=28)
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


def draw_attention_map(
    ax: Axes,
    shown: AttentionMap,
    *,
    scale: str = "rank",
    norm: Normalize | None = None,
    alpha: float = 0.6,
) -> None:
    """Draw the kept patches as translucent squares over the image, boxes as outlines.

    Where patches overlap the one with most attention shows. Axes are in pixels of the image.

    Args:
        ax: axes to draw in.
        shown: the map.
        scale: `rank`, `linear` or `log`.
        norm: colour limits, where several maps share them; the map's own extremes if None.
        alpha: opacity of the squares.
    """
    image, corners, size = shown.image, np.asarray(shown.corners), shown.patch_size
    if corners.shape != (len(shown.weights), 2) or not len(corners):
        raise IpslibError(
            "wanted one (row, column) corner and one weight a kept patch, "
            f"got corners of {corners.shape} and weights of {np.shape(shown.weights)}."
        )
    values = attention_values(shown.weights, scale)
    norm = norm or _common_norm([values], scale)
    order = np.argsort(values, kind="stable")  # most attention last, that is on top
    corners, colours = corners[order], ATTENTION_COLOURS(norm(values[order]))
    tinted = tint_patches(_for_display(image), corners, size, colours, alpha=alpha)
    squares = [Rectangle((col, row), size, size) for row, col in corners]
    edges = {"facecolor": "none", "edgecolor": colours, "linewidth": 0.7, "zorder": 2}
    if image.ndim == 3:
        edges["path_effects"] = _HALO  # on a canvas it would cut the strokes
    ax.add_collection(PatchCollection(squares, **edges))
    _draw_image(ax, tinted, shown.boxes, shown.title)


def image_row(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    boxes: Sequence[np.ndarray | None] | None = None,
    columns: int | None = None,
) -> Figure:
    """Images (H, W) or (H, W, 3) uint8 side by side, with outlined boxes (n, 4) of top, left,
    height, width.

    Strokes of large canvases are thickened so that they survive the reduction to the page.
    """
    figure, grid = _image_axes(images, columns=columns)
    for ax, image, title, outlines in zip(
        grid, images, titles, boxes or [None] * len(images), strict=True
    ):
        _draw_image(ax, _for_display(image), outlines, title)
    return figure


def example_row(data_sets: Sequence[MegapixelMNIST], titles: Sequence[str], index: int) -> Figure:
    """Image `index` of each data set, its digits outlined."""
    images = [each.canvas(index) for each in data_sets]
    boxes = [each.batch([index]).boxes[0].numpy() for each in data_sets]
    return image_row(images, titles, boxes=boxes)


def bare(ax: Axes) -> None:
    """Take away what an image needs none of: ticks, grid and frame."""
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


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


def _image_axes(
    images: Sequence[np.ndarray], *, columns: int | None = None, around: tuple = (0, 0)
) -> tuple[Figure, list[Axes]]:
    """Axes for some images, and inches for what stands around them."""
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    side = min(ROW_WIDTH / columns, LARGEST_SIDE)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    size = (side * columns + around[0], (side * tallest + 0.3) * rows + around[1])
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for spare in grid.flat[len(images) :]:
        spare.set_axis_off()
    return figure, list(grid.flat[: len(images)])


def _draw_image(ax: Axes, image: np.ndarray, boxes: np.ndarray | None, title: str) -> None:
    height, width = image.shape[:2]
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), zorder=1)
    for top, left, box_height, box_width in () if boxes is None else np.asarray(boxes):
        outline = Rectangle((left, top), box_width, box_height, fill=False, ec=BOX_COLOUR, lw=1.2)
        outline.set(path_effects=_HALO, zorder=3)
        ax.add_patch(outline)
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_title(title)
    bare(ax)


def _for_display(image: np.ndarray) -> np.ndarray:
    return thicken_strokes(image, -(-max(image.shape[:2]) // _DISPLAY_PIXELS))


def _common_norm(values: Sequence[np.ndarray], scale: str) -> Normalize:
    everything = np.concatenate(values)
    if scale == "rank":
        return Normalize(0, 1)
    if scale == "linear":
        return Normalize(0, everything.max())
    return LogNorm(everything[everything > 0].min(), everything.max(), clip=True)
