"""Where objects lie on the canvas."""

from typing import NamedTuple

import numpy as np

from ipslib.errors import IpslibError

_ROUNDS, _RESTARTS = 20, 100


class Placement(NamedTuple):
    """What lies where on an image, or, stacked, on several; corners are (row, column) in pixels."""

    digits: np.ndarray  # (5,) indices into the digit set
    digit_corners: np.ndarray  # (5, 2)
    patterns: np.ndarray  # (n_noise,) indices into the pool
    noise_corners: np.ndarray  # (n_noise, 2), in drawing order


def most_apart(size: int, canvas: tuple[int, int]) -> int:
    """How many boxes of one size fit: no arrangement holds more than the plain grid does."""
    return (canvas[0] // size) * (canvas[1] // size)


def place_apart(
    random: np.random.RandomState, n: int, size: int, canvas: tuple[int, int]
) -> np.ndarray:
    """Place n square boxes uniformly, one by one, so that no two overlap.

    Boxes overlap when both their axis distances are below the size. Boxes drawn one by one can
    leave no room for the rest on a small canvas: a stuck layout starts over, and where hardly
    any layout exists, cells of a grid at a random offset are taken.

    Args:
        random: stream of the layout.
        n: number of boxes.
        size: side of a box in pixels.
        canvas: height H and width W in pixels.

    Returns:
        (n, 2) int64, row and column of the top-left corners.

    Raises:
        IpslibError: where n boxes cannot lie apart.
    """
    n_fit = most_apart(size, canvas)
    if n > n_fit:
        raise IpslibError(
            f"{n} boxes of {size} px cannot lie on a canvas of {canvas[0]} x {canvas[1]} px "
            f"without overlap (room for {n_fit}); enlarge the canvas or reduce the boxes."
        )
    for _ in range(_RESTARTS):
        corners = _one_by_one(random, n, size, canvas)
        if len(corners) == n:
            return np.array(corners, np.int64).reshape(n, 2)
    rows, cols = canvas[0] // size, canvas[1] // size
    cells = np.stack(np.divmod(random.permutation(rows * cols)[:n], cols), axis=1)
    offset = place_freely(random, 1, size * np.array([rows, cols]), canvas)
    return cells * size + offset


def _one_by_one(
    random: np.random.RandomState, n: int, size: int, canvas: tuple[int, int]
) -> list[tuple[int, int]]:
    """Up to n corners: fewer where the boxes placed leave no room for another."""
    corners: list[tuple[int, int]] = []
    for _ in range(_ROUNDS):
        for row, col in place_freely(random, n - len(corners), size, canvas).tolist():
            if all(abs(row - r) >= size or abs(col - c) >= size for r, c in corners):
                corners.append((row, col))
        if len(corners) == n:
            return corners
    # Refused again and again: draw from the corners that are still free, which is the same law.
    free = np.ones((canvas[0] - size + 1, canvas[1] - size + 1), bool)
    for row, col in corners:
        _cross_out(free, row, col, size)
    while len(corners) < n and free.any():
        choices = np.flatnonzero(free)
        row, col = divmod(int(choices[random.randint(len(choices))]), free.shape[1])
        corners.append((row, col))
        _cross_out(free, row, col, size)
    return corners


def _cross_out(free: np.ndarray, row: int, col: int, size: int) -> None:
    free[max(row - size + 1, 0) : row + size, max(col - size + 1, 0) : col + size] = False


def place_freely(
    random: np.random.RandomState,
    n: int,
    size: int | np.ndarray,
    canvas: tuple[int, int],
    *,
    margin: int = 0,
) -> np.ndarray:
    """Corners (n, 2) of boxes uniform over the canvas less a margin in pixels; overlaps allowed."""
    room = np.array(canvas) - size - 2 * margin + 1
    # One bound for both axes draws the same numbers, faster.
    stop = int(room[0]) if room[0] == room[1] else room
    return margin + random.randint(0, stop, size=(n, 2), dtype=np.int64)
