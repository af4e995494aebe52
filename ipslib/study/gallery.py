"""Rows of images with the boxes of what matters in them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.traffic_signs.dataset import TrafficSigns
from ipslib.metrics import has_object
from ipslib.model.ips import IPSNet
from ipslib.study.figures import bare
from ipslib.study.maps import (
    BOX_COLOUR,
    LARGEST_SIDE,
    ROW_WIDTH,
    AttentionMap,
    thicken_strokes,
)
from ipslib.training import attend

_DISPLAY_PIXELS = 500


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
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    side = min(ROW_WIDTH / columns, LARGEST_SIDE)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    size = (side * columns, (side * tallest + 0.3) * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    boxes = boxes or [None] * len(images)
    for ax in grid.flat[len(images) :]:
        ax.set_axis_off()
    for ax, image, title, outlines in zip(grid.flat, images, titles, boxes, strict=False):
        _draw_image(ax, image, [] if outlines is None else outlines)
        ax.set_title(title)
    return figure


def example_row(data_sets: Sequence[MegapixelMNIST], titles: Sequence[str], index: int) -> Figure:
    """Image `index` of each data set, its digits outlined."""
    images = [each.canvas(index) for each in data_sets]
    boxes = [each.batch([index]).boxes[0].numpy() for each in data_sets]
    return image_row(images, titles, boxes=boxes)


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


def _draw_image(ax: Axes, image: np.ndarray, boxes: Sequence[np.ndarray]) -> None:
    height, width = image.shape[:2]
    shown = thicken_strokes(image, -(-max(height, width) // _DISPLAY_PIXELS))
    ax.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    for top, left, box_height, box_width in boxes:
        outline = Rectangle((left, top), box_width, box_height, fill=False, ec=BOX_COLOUR, lw=1.2)
        ax.add_patch(outline)
    bare(ax)
