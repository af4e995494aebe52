"""The published runs' own data: every draw of theirs in their order.

numpy's legacy generator draws a whole split at once: all digits, then all their corners, the
noise pool, all noise corners, all patterns. Unlike a set of our own, image i therefore depends on
how many images there are.
"""

from functools import cached_property

import numpy as np

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.digits import DigitSet
from ipslib.datasets.megapixel_mnist.noise import draw_pixel_stroke, random_control
from ipslib.datasets.megapixel_mnist.placement import Placement
from ipslib.datasets.megapixel_mnist.resize import resize_area
from ipslib.errors import IpslibError

_SEEDS = {"train": 1, "test": 0}
_N_DIGITS, _N_CLASSES, _N_SAME = 5, 10, 3
_MOST_TRIES = 100_000


class PublishedStart:
    """What lies where on the images of one split, and its noise pool.

    Args:
        config: a MegapixelMNISTConfig with `start` published.
        split: `train` or `test`.
        digits: that the split draws from.
        n_images: of the split.

    Raises:
        IpslibError: where digits drawn one by one leave no room for the rest.
    """

    def __init__(
        self, config: MegapixelMNISTConfig, split: str, digits: DigitSet, *, n_images: int
    ):
        random = np.random.RandomState(_SEEDS[split])
        size, n_noise = config.digit_size, config.n_noise
        room = np.array(config.canvas) - size
        self._digits = [_draw_digits(random, digits) for _ in range(n_images)]
        self._digit_corners = [_draw_apart(random, size, room) for _ in range(n_images)]
        controls = [random_control(random) for _ in range(n_noise)]
        self._strokes = [draw_pixel_stroke(each, config.stroke_width) for each in controls]
        self._noise_corners = (random.rand(n_images, n_noise, 2) * room).astype(np.int64)
        self._patterns = (random.rand(n_images, n_noise) * n_noise).astype(np.int64)
        self._size = size

    def placement(self, index: int) -> Placement:
        """Of image `index`."""
        return Placement(
            self._digits[index],
            self._digit_corners[index],
            self._patterns[index],
            self._noise_corners[index],
        )

    @cached_property
    def noise_pool(self) -> np.ndarray:
        """(n_noise, size, size) uint8."""
        empty = np.zeros((0, self._size, self._size), np.uint8)
        return resize_area(np.stack(self._strokes), self._size) if self._strokes else empty


def _draw_digits(random: np.random.RandomState, digits: DigitSet) -> np.ndarray:
    """Indices (5,) into the digit set: three of one class, then two of others."""
    same, other = digits.of_class(int(random.rand() * _N_CLASSES))
    n_other = _N_DIGITS - _N_SAME
    return np.concatenate([random.choice(same, _N_SAME), random.choice(other, n_other)])


def _draw_apart(random: np.random.RandomState, size: int, room: np.ndarray) -> np.ndarray:
    """Corners (5, 2): each drawn again while it overlaps an earlier one."""
    corners: list[np.ndarray] = []
    for _ in range(_MOST_TRIES):
        corner = np.rint(random.rand(2) * room).astype(np.int64)
        if all((np.abs(corner - other) >= size).any() for other in corners):
            corners.append(corner)
        if len(corners) == _N_DIGITS:
            return np.stack(corners)
    height, width = room + size
    raise IpslibError(
        f"canvas: digits of {size} px drawn one by one found no room for {_N_DIGITS} on "
        f"{height} x {width} px; start published wants a larger canvas (or use start own)."
    )
