"""Strokes of the noise beside those of the digits: how wide, and how much ink."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.noise import BOX, noise_pool
from ipslib.datasets.megapixel_mnist.randomness import TEST
from ipslib.datasets.megapixel_mnist.stroke import stroke_widths


def noise_patterns(data: MegapixelMNISTConfig, n: int) -> np.ndarray:
    """n noise patterns (n, 28, 28) uint8 of a configuration, before they are resized."""
    return noise_pool(
        data.noise, n, size=BOX, stroke_width=data.stroke_width, key=(data.data_seed, TEST, 0)
    )


def stroke_table(strokes: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Measure kinds of strokes.

    Args:
        strokes: `{label: images (n, 28, 28) uint8}`.

    Returns:
        One row a label: `arm` the label, `stroke` the mean width in px at 28 px, `stroke_low` and
        `stroke_high` its quartiles over the images, `ink_percent` of the box.
    """
    rows = []
    for label, images in strokes.items():
        widths = stroke_widths(images)
        low, high = np.nanquantile(widths, [0.25, 0.75])
        row = {"arm": label, "stroke": np.nanmean(widths), "stroke_low": low, "stroke_high": high}
        rows.append(row | {"ink_percent": 100 * images.mean() / 255})
    return pd.DataFrame(rows)
