"""Lines of whole pixels: the very pixels that OpenCV's `line` takes (8-connected), since the
published strokes are its lines.

A wide line is a disc at either end and a rectangle between them, whose sides are stepped along and
whose rows are filled. OpenCV counts there in 1/65536 px and cuts sides off at the canvas's edges:
both decide about single pixels.
"""

from functools import lru_cache
from itertools import pairwise
from math import sqrt

import numpy as np

Point = tuple[int, int]  # x and y, in pixels or in units of 1 / _ONE of one

_ONE = 1 << 16


@lru_cache(maxsize=20_000)  # strokes are made of few kinds of short lines
def line_pixels(start: Point, stop: Point, width: int, *, size: int) -> tuple[np.ndarray, ...]:
    """Rows and columns, (n,) each, of a line's pixels on a square canvas.

    Args:
        start, stop: x and y of the line's ends, on the canvas.
        width: in pixels; OpenCV draws 3 as 4, 5 as 6 and so on.
        size: side of the canvas in pixels.
    """
    if width == 1:
        return _thin(start, stop)
    canvas = np.zeros((size, size), bool)
    radius = (width + 1) // 2
    rows, cols = np.ogrid[:size, :size]
    for x, y in (start, stop):
        canvas |= (rows - y) ** 2 + (cols - x) ** 2 <= radius**2
    if start != stop:
        _add_rectangle(canvas, start, stop, radius)
    return canvas.nonzero()


def _thin(start: Point, stop: Point) -> tuple[np.ndarray, np.ndarray]:
    """Bresenham's line from its left end; half a pixel is rounded towards that end."""
    (x, y), (x_stop, y_stop) = sorted((start, stop), key=lambda point: point[0])
    dx, dy = x_stop - x, y_stop - y
    n = max(dx, abs(dy))
    step = np.arange(n + 1)
    across, down = (np.sign(d) * ((2 * abs(d) * step + n - 1) // max(2 * n, 1)) for d in (dx, dy))
    return y + down, x + across


def _add_rectangle(canvas: np.ndarray, start: Point, stop: Point, radius: int) -> None:
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    scale = radius * _ONE / sqrt(dx * dx + dy * dy)
    aside = round(dy * scale), round(-dx * scale)
    corners = [
        (x * _ONE + sign * aside[0], y * _ONE + sign * aside[1])
        for (x, y), sign in ((start, 1), (start, -1), (stop, -1), (stop, 1))
    ]
    for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
        _add_side(canvas, corner, following)
    _fill_rows(canvas, corners)


def _add_side(canvas: np.ndarray, start: Point, stop: Point) -> None:
    size = len(canvas)
    clipped = _clipped(start, stop, size * _ONE - 1)
    if clipped is None:
        return
    start, stop = clipped
    along = 0 if abs(stop[0] - start[0]) > abs(stop[1] - start[1]) else 1
    start, stop = sorted((start, stop), key=lambda point: point[along])
    length, rise = stop[along] - start[along], stop[1 - along] - start[1 - along]
    slope = _quotient(rise * _ONE, length | 1)
    points = [(_pixel(stop[0]), _pixel(stop[1]))]
    for k in range((length >> 16) + 1):
        point = _pixel(start[along]) + k, _pixel(start[1 - along] + k * slope)
        points.append(point if along == 0 else point[::-1])
    for x, y in points:
        if x < size and y < size:
            canvas[y, x] = True


def _clipped(start: Point, stop: Point, far: int) -> tuple[Point, Point] | None:
    """The part of a line in 0..far, cut in y first; None where there is none."""
    ends = [list(start), list(stop)]
    for axis in (1, 0):
        if all(end[axis] < 0 for end in ends) or all(end[axis] > far for end in ends):
            return None
        for end in ends:
            excess = min(max(end[axis], 0), far) - end[axis]
            if excess:
                rise, length = (ends[1][i] - ends[0][i] for i in (1 - axis, axis))
                end[1 - axis] += _quotient(excess * rise, length)
                end[axis] += excess
    return tuple(ends[0]), tuple(ends[1])


def _fill_rows(canvas: np.ndarray, corners: list[Point]) -> None:
    """Fill each row between the two chains of sides that lead down from the topmost corner."""
    top = min(range(4), key=lambda i: corners[i][1])
    chains = []
    for turn in (1, -1):
        chain = [corners[(top + turn * i) % 4] for i in range(5)]
        chains.append(_crossings(chain, max(_pixel(y) for _, y in corners)))
    row = _pixel(corners[top][1])
    for y, ends in enumerate(zip(*chains, strict=True), row):
        if 0 <= y < len(canvas):
            left, right = _pixel(min(ends)), _pixel(max(ends))
            canvas[y, max(left, 0) : max(right + 1, 0)] = True


def _crossings(chain: list[Point], last_row: int) -> list[int]:
    """Where a chain crosses each row from its first corner's to the last one."""
    crossings: list[int] = []
    row = _pixel(chain[0][1])
    for (x, _), (x_next, y_next) in pairwise(chain):
        n_rows = _pixel(y_next) - row
        if n_rows > 0 and row < last_row:
            slope = _quotient(2 * (x_next - x) + n_rows, 2 * n_rows)
            del crossings[-1:]
            crossings += [x + slope * k for k in range(n_rows + 1)]
            row += n_rows
    return crossings


def _pixel(position: int) -> int:
    return (position + _ONE // 2) >> 16


def _quotient(number: int, by: int) -> int:
    """Rounded towards zero."""
    quotient = abs(number) // abs(by)
    return quotient if (number < 0) == (by < 0) else -quotient
