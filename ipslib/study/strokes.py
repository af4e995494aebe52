"""Strokes of the noise beside those of the digits: how wide, how much ink, and where accuracy
falls as they thicken."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.noise import BOX, noise_pool
from ipslib.datasets.megapixel_mnist.randomness import TEST
from ipslib.datasets.megapixel_mnist.stroke import stroke_widths
from ipslib.errors import IpslibError


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


def half_loss_width(
    widths: Sequence[float], accuracy: Sequence[float], *, chance: float
) -> float | None:
    """The width at which accuracy has lost half of what it has above chance at the thinnest.

    Args:
        widths: of strokes, in any unit and order.
        accuracy: at each of them, in 0..1.
        chance: in 0..1.

    Returns:
        Where a straight line between neighbouring widths first crosses that level, from thin to
        thick; None where it never does, or the thinnest is no better than chance.
    """
    if len(widths) != len(accuracy):
        raise IpslibError(f"wanted one accuracy a width, got {len(accuracy)} of {len(widths)}.")
    order = np.argsort(widths)
    x, y = np.asarray(widths, float)[order], np.asarray(accuracy, float)[order]
    level = (y[0] + chance) / 2
    below = np.flatnonzero(y < level)
    if y[0] <= chance or not len(below):
        return None
    after = below[0]
    share = (y[after - 1] - level) / (y[after - 1] - y[after])
    return float(x[after - 1] + share * (x[after] - x[after - 1]))
