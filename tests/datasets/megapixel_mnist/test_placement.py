import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ipslib.datasets.megapixel_mnist import placement
from ipslib.datasets.megapixel_mnist.placement import place_apart, place_freely
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError


def check_layout(corners: np.ndarray, size: int, canvas: tuple[int, int]) -> None:
    assert (corners >= 0).all() and (corners + size <= canvas).all()
    for i, (row, col) in enumerate(corners):
        for other_row, other_col in corners[:i]:
            assert abs(row - other_row) >= size or abs(col - other_col) >= size


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(0, 8), st.integers(1, 120), st.integers(1, 120), st.integers(0)
)
def test_boxes_lie_apart_and_inside_on_any_canvas_that_holds_them(size, n, height, width, key):
    assume((height // size) * (width // size) >= n)
    corners = place_apart(stream(key), n, size, (height, width))
    assert corners.shape == (n, 2) and corners.dtype == np.int64
    check_layout(corners, size, (height, width))


def test_stuck_layouts_start_over_in_time():
    start = time.perf_counter()
    for key in range(300):
        side = 84 + key % 37
        check_layout(place_apart(stream(key), 5, 28, (side, side)), 28, (side, side))
    assert time.perf_counter() - start < 10


def test_where_one_layout_exists_it_is_found():
    corners = place_apart(stream(0), 5, 28, (140, 28))
    assert sorted(corners[:, 0].tolist()) == [0, 28, 56, 84, 112]


def test_what_cannot_lie_apart_is_refused():
    with pytest.raises(IpslibError, match=r"5 boxes of 28 px .* 83 x 83 px .*\(room for 4\)"):
        place_apart(stream(0), 5, 28, (83, 83))


@pytest.mark.parametrize(("canvas", "axis"), [((2, 5), 1), ((5, 2), 0)])
@pytest.mark.parametrize("rounds", [0, 20])
def test_each_box_is_uniform_over_what_is_left(rounds, canvas, axis, monkeypatch):
    # Two boxes of 2 px in a line of 5: the law is known, by refusal and by free corners alike.
    monkeypatch.setattr(placement, "_ROUNDS", rounds)
    random, n = stream(1), 1600
    layouts = (place_apart(random, 2, 2, canvas) for _ in range(n))
    counts = Counter(tuple(layout[:, axis].tolist()) for layout in layouts)
    law = {(0, 2): 1, (0, 3): 1, (1, 3): 2, (2, 0): 2, (3, 0): 1, (3, 1): 1}
    assert set(counts) == set(law)
    assert chisquare([counts[k] for k in law], [n / 8 * w for w in law.values()]).pvalue > 1e-3


def test_free_corners_are_uniform_up_to_the_margin():
    corners = place_freely(stream(2), 4000, 4, (20, 14), margin=3)
    rows = np.bincount(corners[:, 0], minlength=20)
    cols = np.bincount(corners[:, 1], minlength=14)
    assert np.flatnonzero(rows).tolist() == list(range(3, 14))  # 3 + 11 corners + 4 + 3 = 20 + 1
    assert np.flatnonzero(cols).tolist() == list(range(3, 8))
    assert chisquare(rows[3:14]).pvalue > 1e-3 and chisquare(cols[3:8]).pvalue > 1e-3


def test_square_canvases_draw_what_any_canvas_would():
    random, n = stream(3), 50
    expected = random.randint(0, [17, 17], size=(n, 2))  # a bound for each axis
    assert np.array_equal(place_freely(stream(3), n, 4, (20, 20)), expected)
