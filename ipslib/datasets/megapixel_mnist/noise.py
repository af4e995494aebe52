"""Noise objects: Bezier strokes of true or whole-pixel width, and the original line strokes.

Everything is drawn on a box of 28 px, the size of an MNIST digit, and enlarged as digits are, so
that texture does not tell noise from digits. Only additions, products, quotients and square
roots are used, which every machine rounds alike: a key gives the same bytes everywhere.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import comb, sqrt

import numpy as np

from ipslib.datasets.megapixel_mnist.digits import BOX, resize_area
from ipslib.datasets.synthetic import stream

Point = tuple[int, int]  # x and y, in pixels or in units of 1 / _ONE of one

_ONE = 1 << 16
_CONTROL_POINTS, _CONTROL_SHARES = np.array([4, 6, 8]), np.array([3, 5, 1]) / 9
_CURVE_POINTS = 100


def random_control(random: np.random.RandomState) -> np.ndarray:
    """4, 6 or 8 control points (shares 3/9, 5/9, 1/9), uniform in the unit box: (n, 2)."""
    n_control = random.choice(_CONTROL_POINTS, p=_CONTROL_SHARES)
    return random.random_sample((n_control, 2))


def bezier_curve(control: np.ndarray) -> np.ndarray:
    """Points (100, 2) of the Bezier curve of n control points (n, 2), by Bernstein's sum, term by
    term, at parameter values evenly spaced over 0..1."""
    weights = _bernstein_weights(len(control))
    return sum(weight[:, None] * point for weight, point in zip(weights, control, strict=True))


@lru_cache
def _bernstein_weights(n: int) -> np.ndarray:
    """Of n control points, (n, 100). Whole-pixel strokes cut points that may be whole already, so
    the last bit counts: powers are rounded once, as a good library's are."""
    t = np.linspace(0, 1, _CURVE_POINTS)
    return np.stack([comb(n - 1, i) * _power(1 - t, n - 1 - i) * _power(t, i) for i in range(n)])


def _power(values: np.ndarray, exponent: int) -> np.ndarray:
    return np.array([float(Fraction(value) ** exponent) for value in values.tolist()])


def draw_stroke(curve: np.ndarray, *, size: int, stroke_width: float) -> np.ndarray:
    """Draw a polyline (n, 2) of rows and columns in units of the box, 0..1, with a true,
    anti-aliased width in pixels: (size, size) uint8.

    A pixel at distance d from the line is covered by the overlap of the stroke
    [-w/2, w/2] with the pixel's own extent [d - 1/2, d + 1/2]; for every w, ink across a
    straight stroke adds up to w (along the axes; between them on average over positions).
    """
    points = curve * size
    step0, step1 = np.diff(points, axis=0).T  # (segments,)
    centres = np.arange(size)[:, None] + 0.5
    ahead0 = (centres - points[:-1, 0])[:, None]  # (rows, 1, segments)
    ahead1 = (centres - points[:-1, 1])[None]  # (1, columns, segments)
    length2 = np.maximum(step0 * step0 + step1 * step1, 1e-12)
    t = np.clip((ahead0 * step0 + ahead1 * step1) / length2, 0, 1)
    d0, d1 = ahead0 - t * step0, ahead1 - t * step1
    distance = np.sqrt((d0 * d0 + d1 * d1).min(axis=-1))  # (rows, columns)
    cover = np.clip(stroke_width / 2 + 0.5 - distance, 0, min(stroke_width, 1))
    return (cover * 255 + 0.5).astype(np.uint8)


def draw_pixel_stroke(control: np.ndarray, stroke_width: float) -> np.ndarray:
    """Draw a Bezier curve as published, (28, 28) uint8: control points (n, 2) of column and row in
    units of the box, points of the curve and width in pixels are each cut to whole pixels; no
    anti-aliasing (1.4 to 1.925 all draw 1 px, 2.0 to 2.8 draw 2 px)."""
    points = bezier_curve((control * BOX).astype(np.int64)).astype(np.int64)
    canvas = np.zeros((BOX, BOX), np.uint8)
    for start, stop in pairwise(map(tuple, points.tolist())):
        canvas[line_pixels(start, stop, max(1, int(stroke_width)))] = 255
    return canvas


def line_stroke(random: np.random.RandomState) -> np.ndarray:
    """The original noise's stroke: from the box's corner at slope tan(u pi / 2.5), 1 px wide,
    intensities uniform in 0.8..1, until it leaves the box."""
    slope = _tangent(random.random_sample() * np.pi / 2.5)
    rows = (np.arange(BOX) * slope).astype(np.int64)
    cols = np.arange(BOX)[rows < BOX]
    stroke = np.zeros((BOX, BOX), np.uint8)
    # A slope above 1 skips rows from one column to the next: fill down to where the next begins.
    for col, row in zip(cols, rows[rows < BOX], strict=True):
        stop = max(row + 1, int((col + 1) * slope))
        span = stroke[row:stop, col]
        span[:] = 255 * (0.8 + 0.2 * random.random_sample(len(span)))
    return stroke


def _tangent(angle: float) -> float:
    """tan by a series at 1/64 of the angle, then doubling: libraries round theirs differently."""
    x = angle / 64
    x2 = x * x
    tangent = x * (1 + x2 * (1 / 3 + x2 * (2 / 15 + x2 * 17 / 315)))
    for _ in range(6):
        tangent = 2 * tangent / (1 - tangent * tangent)
    return tangent


@lru_cache(maxsize=8)
def noise_pool(
    kind: str, n: int, *, size: int = BOX, stroke_width: float, key: tuple[int, ...]
) -> np.ndarray:
    """n patterns (n, size, size) uint8, read-only, of a random stream's key: `bezier` strokes of
    true width, `bezier_pixel` of whole-pixel width as published, both in pixels at 28 px, or `line`
    strokes of 1 px. Pattern j is the same whatever the pool's size, but for lines."""
    if kind == "line":
        return as_pool(_line_pool(n, key), size)
    controls = [random_control(stream(*key, j)) for j in range(n)]
    if kind == "bezier_pixel":
        return as_pool([draw_pixel_stroke(each, stroke_width) for each in controls], size)
    width = {"size": BOX, "stroke_width": stroke_width}
    return as_pool([draw_stroke(bezier_curve(each), **width) for each in controls], size)


def as_pool(strokes: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Strokes in boxes of 28 px, enlarged as digits are: (n, size, size), read-only."""
    patterns = resize_area(np.array(strokes, np.uint8).reshape(-1, BOX, BOX), size)
    patterns.setflags(write=False)
    return patterns


def _line_pool(n: int, key: tuple[int, ...]) -> list[np.ndarray]:
    """Each stroke overlaid with another of the pool, mirrored along either axis at 1 in 3."""
    strokes = [line_stroke(stream(*key, j)) for j in range(n)]
    pool = []
    for j, stroke in enumerate(strokes):
        random = stream(*key, j, 1)
        other = strokes[random.randint(n)]
        for axis in (0, 1):
            if random.random_sample() < 0.33:
                other = np.flip(other, axis)
        pool.append(np.maximum(stroke, other))
    return pool


@lru_cache(maxsize=20_000)  # strokes are made of few kinds of short lines
def line_pixels(start: Point, stop: Point, width: int) -> tuple[np.ndarray, ...]:
    """Rows and columns, (n,) each, of a line's pixels in the box: those that OpenCV's `line` takes
    (8-connected), since the published strokes are its lines.

    A wide line (OpenCV draws 3 px as 4, 5 as 6 and so on) is a disc at either end and a rectangle
    between them, whose sides are stepped along and whose rows are filled. OpenCV counts there in
    1/65536 px and cuts sides off at the canvas's edges: both decide about single pixels.
    """
    if width == 1:
        return _thin(start, stop)
    canvas = np.zeros((BOX, BOX), bool)
    radius = (width + 1) // 2
    rows, cols = np.ogrid[:BOX, :BOX]
    for x, y in (start, stop):
        canvas |= (rows - y) ** 2 + (cols - x) ** 2 <= radius**2
    if start != stop:
        corners = _rectangle(start, stop, radius)
        for side in zip(corners, corners[1:] + corners[:1], strict=True):
            ends = _clipped(side)
            if ends:
                _mark_side(canvas, ends)
        _fill_rows(canvas, corners)
    return canvas.nonzero()


def _thin(start: Point, stop: Point) -> tuple[np.ndarray, np.ndarray]:
    """Bresenham's line from its left end; half a pixel is rounded towards that end."""
    (x, y), (x_stop, y_stop) = sorted((start, stop), key=lambda point: point[0])
    dx, dy = x_stop - x, y_stop - y
    n = max(dx, abs(dy))
    step = np.arange(n + 1)
    across, down = (np.sign(d) * ((2 * abs(d) * step + n - 1) // max(2 * n, 1)) for d in (dx, dy))
    return y + down, x + across


def _rectangle(start: Point, stop: Point, radius: int) -> list[Point]:
    """Corners of what lies within the radius of a line, in units of 1 / _ONE pixel."""
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    scale = radius * _ONE / sqrt(dx * dx + dy * dy)
    aside = round(dy * scale), round(-dx * scale)
    return [
        (x * _ONE + sign * aside[0], y * _ONE + sign * aside[1])
        for (x, y), sign in ((start, 1), (start, -1), (stop, -1), (stop, 1))
    ]


def _clipped(side: tuple[Point, Point]) -> list[list[int]]:
    """The part of a side inside the box, cut in y first; empty where there is none."""
    ends, far = [list(point) for point in side], BOX * _ONE - 1
    for axis in (1, 0):
        if all(end[axis] < 0 for end in ends) or all(end[axis] > far for end in ends):
            return []
        for end in ends:
            excess = min(max(end[axis], 0), far) - end[axis]
            if excess:
                rise, length = (ends[1][i] - ends[0][i] for i in (1 - axis, axis))
                end[1 - axis] += int(excess * rise / length)  # towards zero, here and below
                end[axis] += excess
    return ends


def _mark_side(canvas: np.ndarray, ends: list[list[int]]) -> None:
    """Mark what is stepped on along the longer axis from the lower end, and the upper end."""
    along = int(abs(ends[1][0] - ends[0][0]) <= abs(ends[1][1] - ends[0][1]))
    start, stop = sorted(ends, key=lambda end: end[along])
    length, rise = stop[along] - start[along], stop[1 - along] - start[1 - along]
    step = np.arange((length >> 16) + 1)
    points = np.empty((len(step) + 1, 2), int)
    points[:-1, along] = _pixel(start[along]) + step
    points[:-1, 1 - along] = _pixel(start[1 - along] + step * int(rise * _ONE / (length | 1)))
    points[-1] = [_pixel(value) for value in stop]
    x, y = points[(points < BOX).all(axis=1)].T
    canvas[y, x] = True


def _fill_rows(canvas: np.ndarray, corners: list[Point]) -> None:
    """Fill each row between the two chains of sides that lead down from the topmost corner."""
    top = min(range(4), key=lambda i: corners[i][1])
    last_row = max(_pixel(y) for _, y in corners)
    chains = [[corners[(top + turn * i) % 4] for i in range(5)] for turn in (1, -1)]
    ends = zip(*(_crossings(chain, last_row) for chain in chains), strict=True)
    for row, (x, other) in enumerate(ends, _pixel(corners[top][1])):
        if 0 <= row < BOX:
            left, right = sorted((_pixel(x), _pixel(other)))
            canvas[row, max(left, 0) : max(right + 1, 0)] = True


def _crossings(chain: list[Point], last_row: int) -> list[int]:
    """Where a chain crosses each row from its first corner's to the last one."""
    crossings: list[int] = []
    row = _pixel(chain[0][1])
    for (x, _), (x_next, y_next) in pairwise(chain):
        n_rows = _pixel(y_next) - row
        if n_rows > 0 and row < last_row:
            slope = int((2 * (x_next - x) + n_rows) / (2 * n_rows))
            del crossings[-1:]
            crossings += [x + slope * k for k in range(n_rows + 1)]
            row += n_rows
    return crossings


def _pixel(position: int) -> int:
    return (position + _ONE // 2) >> 16
