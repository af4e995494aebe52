"""What lies where on the canvas: in layouts of our own, and in those of the published runs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

from ipslib.datasets.megapixel_mnist.config import N_CLASSES, N_DIGITS, MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.digits import DigitSet
from ipslib.datasets.megapixel_mnist.noise import as_pool, draw_pixel_stroke, random_control
from ipslib.errors import IpslibError

Canvas = Corner = tuple[int, int]  # height and width, row and column in pixels

_ROUNDS, _RESTARTS, _MOST_TRIES = 20, 100, 100_000
_PUBLISHED_SEEDS = {"train": 1, "test": 0}


class Placement(NamedTuple):
    """What lies where on an image, or, stacked, on several; corners are (row, column) in pixels."""

    digits: np.ndarray  # (5,) indices into the digit set
    digit_corners: np.ndarray  # (5, 2)
    patterns: np.ndarray  # (n_noise,) indices into the pool
    noise_corners: np.ndarray  # (n_noise, 2), in drawing order

    @classmethod
    def stacked(cls, placements: Sequence["Placement"]) -> "Placement":
        """Those of several images as one; of 32 bits, since a large canvas holds many objects."""
        return cls(*(np.stack(parts, dtype=np.int32) for parts in zip(*placements, strict=True)))


def place_apart(random: RandomState, n: int, size: int, canvas: Canvas) -> np.ndarray:
    """Place n square boxes of a size in pixels uniformly, one by one, so that no two overlap:
    corners (n, 2) int64. `MegapixelMNISTConfig` sees that there is room for them.

    Boxes overlap when both their axis distances are below the size. Boxes drawn one by one can
    leave no room for the rest on a small canvas: a stuck layout starts over, and where hardly
    any layout exists, cells of a grid at a random offset are taken.
    """
    for _ in range(_RESTARTS):
        corners = _one_by_one(random, n, size, canvas)
        if len(corners) == n:
            return np.array(corners, np.int64).reshape(n, 2)
    rows, cols = canvas[0] // size, canvas[1] // size
    cells = np.stack(np.divmod(random.permutation(rows * cols)[:n], cols), axis=1)
    offset = place_freely(random, 1, size * np.array([rows, cols]), canvas)
    return cells * size + offset


def _one_by_one(random: RandomState, n: int, size: int, canvas: Canvas) -> list[Corner]:
    """Up to n corners: fewer where the boxes placed leave no room for another."""
    corners: list[Corner] = []
    for _ in range(_ROUNDS):
        for row, col in place_freely(random, n - len(corners), size, canvas).tolist():
            if all(abs(row - r) >= size or abs(col - c) >= size for r, c in corners):
                corners.append((row, col))
        if len(corners) == n:
            return corners
    # Refused again and again: draw from the corners that are still free, which is the same law.
    while len(corners) < n:
        free = np.ones((canvas[0] - size + 1, canvas[1] - size + 1), bool)
        for row, col in corners:
            free[max(row - size + 1, 0) : row + size, max(col - size + 1, 0) : col + size] = False
        choices = np.flatnonzero(free)
        if not len(choices):
            break
        corners.append(divmod(int(choices[random.randint(len(choices))]), free.shape[1]))
    return corners


def place_freely(
    random: RandomState, n: int, size: int | np.ndarray, canvas: Canvas, *, margin: int = 0
) -> np.ndarray:
    """Corners (n, 2) of boxes uniform over the canvas less a margin in pixels; overlaps allowed."""
    room = np.array(canvas) - size - 2 * margin + 1
    # One bound for both axes draws the same numbers, faster.
    stop = int(room[0]) if room[0] == room[1] else room
    return margin + random.randint(0, stop, size=(n, 2), dtype=np.int64)


def published_start(
    config: MegapixelMNISTConfig, split: str, digits: DigitSet, *, n_images: int
) -> tuple[list[Placement], np.ndarray]:
    """The placements of a published split and its noise pool: every draw of theirs in its order.

    numpy's legacy generator draws a whole split at once: all digits, then all their corners, the
    noise pool, all noise corners, all patterns. So what lies on image i depends on how many images
    there are. IpslibError where digits drawn one by one leave no room for the rest.
    """
    random = RandomState(_PUBLISHED_SEEDS[split])
    size, n_noise = config.digit_size, config.n_noise
    room = np.array(config.canvas) - size
    drawn = [_draw_digits(random, digits) for _ in range(n_images)]
    corners = [_draw_apart(random, size, room) for _ in range(n_images)]
    controls = [random_control(random) for _ in range(n_noise)]
    noise_corners = (random.rand(n_images, n_noise, 2) * room).astype(np.int64)
    patterns = (random.rand(n_images, n_noise) * n_noise).astype(np.int64)
    placements = map(Placement, drawn, corners, patterns, noise_corners)
    strokes = [draw_pixel_stroke(control, config.stroke_width) for control in controls]
    return list(placements), as_pool(strokes, size)


def _draw_digits(random: RandomState, digits: DigitSet) -> np.ndarray:
    """Indices (5,) into the digit set: three of one class, then two of others."""
    same, other = digits.of_class(int(random.rand() * N_CLASSES))
    return np.concatenate([random.choice(same, 3), random.choice(other, N_DIGITS - 3)])


def _draw_apart(random: RandomState, size: int, room: np.ndarray) -> np.ndarray:
    """Corners (5, 2): each drawn again while it overlaps an earlier one."""
    corners: list[np.ndarray] = []
    for _ in range(_MOST_TRIES):
        corner = np.rint(random.rand(2) * room).astype(np.int64)
        if all((np.abs(corner - other) >= size).any() for other in corners):
            corners.append(corner)
        if len(corners) == N_DIGITS:
            return np.stack(corners)
    height, width = room + size
    raise IpslibError(
        f"canvas: wanted room for {N_DIGITS} digits of {size} px, drawn one by one, found none on "
        f"{height} x {width} px; enlarge canvas or use start own."
    )
