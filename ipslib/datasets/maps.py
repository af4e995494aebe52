"""Images with what matters in them: rows of images with outlined boxes, and attention maps, which
show the patches that a model kept and how much it attends to each.

A map is an image, the corners of the kept patches and their weights; `map_of` makes one of what
`ipslib.attention_of` found, `map_of_image` of an image of a data set.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from scipy.ndimage import maximum_filter

from ipslib.datasets.images.attention import COLOURS, Attention, attention_of, ranks
from ipslib.datasets.images.attention_page import open_picture
from ipslib.datasets.images.sources import PatchSource
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.traffic_signs.dataset import TrafficSigns
from ipslib.errors import IpslibError, did_you_mean
from ipslib.metrics import has_object
from ipslib.model.ips import IPSNet

SCALES = {
    "rank": "attention, rank",
    "linear": "attention, × uniform",
    "log": "attention, × uniform, log",
}
ATTENTION_COLOURS = LinearSegmentedColormap.from_list("attention", np.divide(COLOURS, 255))
BOX_COLOUR = "#4df3ff"
ROW_WIDTH, LARGEST_SIDE = 10.5, 4.2  # inches
_HALO = [withStroke(linewidth=2, foreground="#00000070")]  # sets lines off from a photograph
_DISPLAY_PIXELS = 600  # about as many a side as will be seen
_LARGEST_IMAGE = 1500  # px of a map's longer side
_N_PICTURES = 6  # of the best patches, below a map


class AttentionMap(NamedTuple):
    """One image and what was kept of it."""

    image: np.ndarray  # (H, W) or (H, W, 3) uint8
    corners: np.ndarray  # (M, 2) row and column in pixels of the kept patches
    patch_size: int  # pixels
    weights: np.ndarray  # (M,) attention, adding up to 1
    boxes: np.ndarray | None = None  # (n, 4) top, left, height, width in pixels
    title: str = ""
    pictures: Sequence[np.ndarray] = ()  # of the first patches; cut out of the image if empty


def map_of(
    image: str | Path | np.ndarray | PatchSource | Slide,
    attention: Attention,
    *,
    boxes: np.ndarray | None = None,
    title: str = "",
    task: str | None = None,
    head: int | None = None,
) -> AttentionMap:
    """What `ipslib.attention_of` found, on its image of any size.

    Args:
        image: a file or an array, its source, or a `Slide`.
        attention: by `task` and `head`, the mean over all of them if None.
        boxes: (n, 4) top, left, height, width in pixels of level 0.
        title: above the map.
    """
    picture, weights = open_picture(image), attention.mean(task, head)
    share = min(1.0, _LARGEST_IMAGE / max(picture.width, picture.height))
    pixels = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    shown = picture.read((0, 0, picture.width, picture.height), pixels)
    order = np.argsort(-weights, kind="stable")
    corners, size = attention.corners[order], attention.patch_size
    return AttentionMap(
        image=np.asarray(shown),
        corners=corners * share,
        patch_size=size * share,
        weights=weights[order],
        boxes=None if boxes is None else boxes * share,
        title=title,
        pictures=[np.asarray(picture.patch(each, size)) for each in corners[:_N_PICTURES]],
    )


def map_of_image(
    network: IPSNet,
    data_set: MegapixelMNIST | TrafficSigns,
    index: int,
    *,
    title: str = "",
    task: str | None = None,
    head: int | None = None,
) -> AttentionMap:
    """The patches that a network keeps of one image, with their attention and the boxes of what is
    to be found in it; arguments as of `map_of`."""
    batch = data_set.batch([index])
    seen, boxes = attention_of(network, batch), batch.boxes[0]
    return AttentionMap(
        image=data_set.canvas(index),
        corners=seen.corners,
        patch_size=seen.patch_size,
        weights=seen.mean(task, head),
        boxes=boxes[has_object(boxes)].numpy(),
        title=title,
    )


def attention_values(weights: np.ndarray, scale: str = "rank") -> np.ndarray:
    """Attention (M,) over the kept patches as a map colours it.

    By `rank` it goes evenly from 0 (least) to 1 (most), equal weights alike; `linear` and `log`
    are the weight in units of 1/M, that is of uniform attention.
    """
    if scale not in SCALES:
        raise IpslibError(f"scale: no attention scale {scale!r}{did_you_mean(scale, SCALES)}.")
    weights = np.asarray(weights, float)
    return ranks(weights) if scale == "rank" else weights * len(weights) / weights.sum()


def attention_figure(
    maps: Sequence[AttentionMap], *, scale: str = "rank", box_name: str = "digit"
) -> Figure:
    """Draw a row of maps with one colour bar for all: the kept patches and the boxes outlined, the
    name of the boxes in the legend, and below each map its best patches as pictures with their
    share of the attention. `scale` is `rank`, `linear` or `log`."""
    if not maps:
        raise IpslibError("no attention map to draw.")
    values = [attention_values(each.weights, scale) for each in maps]
    norm = _common_norm(np.concatenate(values), scale)
    side = min(ROW_WIDTH / len(maps), LARGEST_SIDE)
    tallest = max(each.image.shape[0] / each.image.shape[1] for each in maps)
    heights = [side * tallest + 0.3, side / _N_PICTURES + 0.25]
    figure, (row, below) = plt.subplots(
        2, len(maps), figsize=(side * len(maps) + 0.9, sum(heights) + 0.45),
        height_ratios=heights, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, pictures, each, of_map in zip(row, below, maps, values, strict=True):
        colours = ATTENTION_COLOURS(norm(of_map))
        _draw_map(ax, each, colours)
        _draw_pictures(pictures, each, colours)
    colour_bar(figure, ScalarMappable(norm, ATTENTION_COLOURS), row.tolist(), scale)
    if any(each.boxes is not None for each in maps):
        outline = Rectangle((0, 0), 1, 1, fc="#333333", ec=BOX_COLOUR, lw=1.2, label=box_name)
        figure.legend(handles=[outline], loc="outside lower left", handlelength=1.0)
    return figure


def colour_bar(figure: Figure, colours: ScalarMappable, axes: list[Axes], scale: str) -> None:
    """Say beside some axes what the colours of a scale mean."""
    bar = figure.colorbar(colours, ax=axes, shrink=0.9, pad=0.015, aspect=28)
    bar.set_label(SCALES.get(scale, scale))
    bar.outline.set_visible(False)
    if scale == "rank":
        bar.set_ticks([0, 1], labels=["least", "most"])
    elif scale == "log":
        bar.ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        bar.ax.yaxis.set_major_formatter("{x:g}")


def image_row(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    boxes: Sequence[np.ndarray | None] | None = None,
    columns: int | None = None,
) -> Figure:
    """Images (H, W) or (H, W, 3) uint8 side by side, with outlined boxes (n, 4) of top, left,
    height, width. Strokes of large canvases are thickened: they survive the reduction to the page.
    """
    figure, grid = _image_axes(images, columns=columns)
    boxes = boxes or [None] * len(images)
    for ax, image, title, outlines in zip(grid, images, titles, boxes, strict=True):
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


def _image_axes(
    images: Sequence[np.ndarray], *, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    side = min(ROW_WIDTH / columns, LARGEST_SIDE)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    size = (side * columns, (side * tallest + 0.3) * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for spare in grid.flat[len(images) :]:
        spare.set_axis_off()
    return figure, list(grid.flat[: len(images)])


def _draw_map(ax: Axes, shown: AttentionMap, colours: np.ndarray) -> None:
    corners, size = np.asarray(shown.corners), shown.patch_size
    if corners.shape != (len(shown.weights), 2) or not len(corners):
        raise IpslibError(
            "wanted one (row, column) corner and one weight a kept patch, "
            f"got corners of {corners.shape} and weights of {np.shape(shown.weights)}."
        )
    order = np.argsort(shown.weights, kind="stable")  # most attention last, that is on top
    squares = [Rectangle((col, row), size, size) for row, col in corners[order]]
    edges = {"facecolor": "none", "edgecolor": colours[order], "linewidth": 1.1, "zorder": 2}
    if shown.image.ndim == 3:
        edges["path_effects"] = _HALO  # on a canvas it would cut the strokes
    ax.add_collection(PatchCollection(squares, **edges))
    _draw_image(ax, _for_display(shown.image), shown.boxes, shown.title)


def _draw_pictures(ax: Axes, shown: AttentionMap, colours: np.ndarray) -> None:
    """The best patches, framed in their colours."""
    for place, patch in enumerate(np.argsort(-shown.weights, kind="stable")[:_N_PICTURES]):
        if len(shown.pictures):
            picture = shown.pictures[patch]
        else:
            top, left = np.maximum(np.rint(shown.corners[patch]).astype(int), 0)
            picture = shown.image[top : top + shown.patch_size, left : left + shown.patch_size]
        height, width = np.divide(picture.shape[:2], max(picture.shape[:2]))
        extent = (place, place + 0.9 * width, 0.9 * height, 0)
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent)
        frame = Rectangle((place, 0), 0.9, 0.9, fill=False, ec=colours[patch], lw=2)
        ax.add_patch(frame)
        share = f"{100 * shown.weights[patch]:.2g} %"
        ax.text(place + 0.45, 1.0, share, ha="center", va="top", fontsize="small")
    ax.set(xlim=(-0.05, _N_PICTURES), ylim=(1.25, -0.05))
    bare(ax)


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
    """Replace each pixel of a canvas (H, W) by the maximum about it, so that a stroke of one pixel
    survives its reduction to the page. Photographs (H, W, 3) are left as they are."""
    factor = -(-max(image.shape[:2]) // _DISPLAY_PIXELS)
    return maximum_filter(image, size=factor) if image.ndim == 2 and factor > 1 else image


def _common_norm(values: np.ndarray, scale: str) -> Normalize:
    if scale == "rank":
        return Normalize(0, 1)
    if scale == "linear":
        return Normalize(0, values.max())
    return LogNorm(values[values > 0].min(), values.max(), clip=True)
