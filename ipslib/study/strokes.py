"""Strokes of the noise beside those of the digits: how wide, and how much ink."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import ndimage

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.noise import BOX, noise_pool
from ipslib.patches import SPLITS

_ENLARGEMENT = 4


def noise_patterns(data: MegapixelMNISTConfig, n: int) -> np.ndarray:
    """n noise patterns (n, 28, 28) uint8 of a configuration, before they are resized."""
    key = (data.data_seed, SPLITS["test"], 0)
    return noise_pool(data.noise, n, size=BOX, stroke_width=data.stroke_width, key=key)


def stroke_width(image: np.ndarray) -> float:
    """The mean width of an image's strokes, measured from its pixels alone: ink over length.

    Across a stroke of width w the distance to its edge runs evenly from 0 to w/2, so its mean over
    the whole shape is w/4 and the shape's area over that width is its length. The shape is what is
    brighter than half the image's maximum, enlarged first, as in Morpho-MNIST (Castro et al., arXiv
    1809.10780, which averages the distances along a skeleton instead: that needs thinning, and
    blots where strokes cross count more). The ink, a sum of brightness, is exact however the edge
    is drawn.

    Anti-aliased curves of 0.5 to 5 px in boxes of 28 px are told to within 0.1 px on average
    over many; a single image may be off by a tenth or more: straight strokes come out a little
    narrow, strokes that touch themselves wide.

    Args:
        image: (H, W) uint8, strokes of 255 on black; a dim stroke counts as a narrow one.

    Returns:
        The width in pixels of the image; nan where it has no ink.
    """
    if not image.any():
        return np.nan
    # Cubic: straight lines between pixels would cut the crest of a stroke of one pixel.
    large = ndimage.zoom(
        image.astype(np.float32), _ENLARGEMENT, order=3, mode="grid-constant", grid_mode=True
    )
    shape = np.pad(large >= image.max() / 2, 1)
    # The transform measures to the middle of the nearest dark pixel, half a pixel past the edge.
    to_edge = ndimage.distance_transform_edt(shape)[shape] - 0.5
    length = shape.sum() / (4 * to_edge.mean()) / _ENLARGEMENT
    return image.sum() / 255 / length


def stroke_table(strokes: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a kind of strokes, of which `strokes` has images (n, 28, 28) uint8: `arm` its name,
    `stroke` the mean width in px at 28 px, `stroke_low` and `stroke_high` its quartiles over the
    images, `ink_percent` of the box."""
    rows = []
    for label, images in strokes.items():
        widths = [stroke_width(image) for image in images]
        low, high = np.nanquantile(widths, [0.25, 0.75])
        row = {"arm": label, "stroke": np.nanmean(widths), "stroke_low": low, "stroke_high": high}
        rows.append(row | {"ink_percent": 100 * images.mean() / 255})
    return pd.DataFrame(rows)
