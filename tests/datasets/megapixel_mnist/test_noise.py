import hashlib
from itertools import pairwise
from math import comb

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from ipslib.datasets.megapixel_mnist.noise import (
    bezier_curve,
    draw_pixel_stroke,
    draw_stroke,
    line_pixels,
    line_stroke,
    noise_pool,
    random_control,
)
from ipslib.datasets.synthetic import stream


def straight(start: tuple[float, float], stop: tuple[float, float]) -> np.ndarray:
    return bezier_curve(np.array([start, stop]))


@pytest.mark.parametrize("n", [2, 4, 6, 8])
def test_the_curve_is_bernsteins_sum(n):
    control, t = stream(n).random_sample((n, 2)), np.linspace(0, 1, 100)
    basis = [comb(n - 1, i) * t**i * (1 - t) ** (n - 1 - i) for i in range(n)]
    assert np.allclose(bezier_curve(control), np.stack(basis, axis=1) @ control)


def test_shares_of_control_points():
    random = stream(0)
    drawn = [len(random_control(random)) for _ in range(900)]
    counts = [drawn.count(n) for n in (4, 6, 8)]
    assert sum(counts) == 900 and chisquare(counts, [300, 500, 100]).pvalue > 1e-3


@pytest.mark.parametrize("size", [28, 61, 112])
@pytest.mark.parametrize("width", [0.3, 0.8, 1.0, 1.4, 1.925, 2.0, 2.6, 5.0])
def test_ink_across_a_stroke_is_its_width(size, width):
    for offset in (0.5, 0.513):  # on and off the edge between pixels
        across = draw_stroke(straight((offset, 0), (offset, 1)), size=size, stroke_width=width)
        assert across.sum(axis=0) / 255 == pytest.approx(width, abs=(width + 2) * 0.5 / 255)
        turned = draw_stroke(straight((0, offset), (1, offset)), size=size, stroke_width=width)
        assert np.array_equal(turned, across.T)


@pytest.mark.parametrize("j", range(12))
def test_a_line_is_one_pixel_wide_from_the_corner_until_it_leaves(j):
    stroke = line_stroke(stream(j))
    slope = np.tan(stream(j).random_sample() * np.pi / 2.5)
    inked = stroke > 0
    assert inked[0, 0] and (stroke[inked] >= int(0.8 * 255)).all()
    along = inked.sum(axis=1 if slope > 1 else 0)
    assert (along == 1).all()
    rows, cols = np.nonzero(inked)
    assert max(rows.max(), cols.max()) == 27
    assert (np.abs(rows - slope * cols) <= max(1, slope)).all()


def test_the_second_line_is_mirrored_along_each_axis_at_one_in_three():
    flips = []
    for seed in range(400):
        (pattern,) = noise_pool("line", 1, size=28, stroke_width=1.0, key=(seed, 0, 0))
        stroke = line_stroke(stream(seed, 0, 0, 0))
        for axes in ((), (0,), (1,), (0, 1)):
            if np.array_equal(pattern, np.maximum(stroke, np.flip(stroke, axes))):
                flips.append(axes)
    assert len(flips) == 400
    for axis in (0, 1):
        assert binomtest(sum(axis in axes for axes in flips), 400, 0.33).pvalue > 1e-3
    assert binomtest(flips.count((0, 1)), 400, 0.33**2).pvalue > 1e-3  # independently


@pytest.mark.parametrize("kind", ["bezier", "bezier_pixel"])
def test_pools_are_nested_and_enlarged_as_digits_are(kind):
    small = noise_pool(kind, 4, size=28, stroke_width=1.925, key=(0, 0, 0))
    large = noise_pool(kind, 9, size=28, stroke_width=1.925, key=(0, 0, 0))
    assert np.array_equal(small, large[:4])
    assert len({pattern.tobytes() for pattern in large}) == 9
    enlarged = noise_pool(kind, 4, size=56, stroke_width=1.925, key=(0, 0, 0))
    assert np.array_equal(enlarged, np.kron(small, np.ones((1, 2, 2), np.uint8)))


@pytest.mark.parametrize(
    ("kind", "size", "sha256"),
    [
        ("bezier", 28, "6e29f498523d276e"),
        ("bezier", 40, "9a1e48db9d83e34e"),
        ("bezier_pixel", 28, "118e86c93e0a8254"),
        ("line", 28, "6e9993c0138ef689"),
    ],
)
def test_every_machine_draws_these_bytes(kind, size, sha256):
    pool = noise_pool(kind, 12, size=size, stroke_width=2.3, key=(7, 0, 0))
    assert hashlib.sha256(pool.tobytes()).hexdigest()[:16] == sha256


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 13])
class TestOpenCVTakesTheSamePixels:
    def test_for_any_line(self, width):
        random = np.random.RandomState(width)
        for start, stop in random.randint(0, 28, (300, 2, 2)).tolist():
            drawn, judge = np.zeros((2, 28, 28), np.uint8)
            drawn[line_pixels(tuple(start), tuple(stop), width)] = 255
            assert np.array_equal(drawn, cv2.line(judge, start, stop, 255, width))

    def test_for_a_stroke(self, width):
        random = np.random.RandomState(width)
        for _ in range(100):
            control = random_control(random)
            points = bezier_curve((control * 28).astype(int)).astype(int).tolist()
            judge = np.zeros((28, 28), np.uint8)
            for start, stop in pairwise(points):
                cv2.line(judge, start, stop, 255, width)
            assert np.array_equal(draw_pixel_stroke(control, width + 0.9), judge)
