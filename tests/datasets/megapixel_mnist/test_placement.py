from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ipslib.datasets.megapixel_mnist import placement
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
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


def test_where_one_layout_exists_it_is_found():
    corners = place_apart(stream(0), 5, 28, (140, 28))
    assert sorted(corners[:, 0].tolist()) == [0, 28, 56, 84, 112]


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


REFERENCE = MegapixelMNISTConfig(start="published", canvas=1500, n_noise=50)


@pytest.fixture(scope="class")
def splits() -> dict[str, MegapixelMNIST]:
    return {name: MegapixelMNIST(REFERENCE, name) for name in ("train", "test")}


@pytest.mark.usefixtures("mnist_root")
class TestPublishedStart:
    """The values are those that the published code draws (numpy's legacy generator, OpenCV's
    lines)."""

    @pytest.mark.parametrize(
        ("split", "index", "digits", "labels"),
        [
            ("train", 0, [40721, 53519, 9071, 48424, 8674], [4, 9, 4]),
            ("train", 999, [43996, 5162, 43842, 50040, 55672], [2, 8, 2]),
            ("test", 0, [6965, 2103, 9338, 5342, 8669], [5, 8, 0]),
        ],
    )
    def test_digits_and_labels(self, splits, split, index, digits, labels):
        placed = splits[split].placement(index)
        assert placed.digits.tolist() == digits
        found = splits[split].labels(placed)
        assert [found[task].item() for task in ("majority", "max", "top")] == labels

    def test_places_and_patterns(self, splits):
        first, last = (splits["train"].placement(i) for i in (0, 999))
        assert first.digit_corners.tolist() == [
            [881, 1134], [1071, 383], [420, 377], [1136, 734], [730, 120]
        ]  # fmt: skip
        assert first.noise_corners[:3].tolist() == [[1209, 38], [1414, 1010], [231, 1033]]
        assert first.patterns[:5].tolist() == [9, 16, 40, 16, 15]
        assert last.noise_corners[0].tolist() == [843, 353]
        assert last.patterns[:5].tolist() == [22, 44, 35, 33, 41]
        assert splits["test"].placement(0).digit_corners.tolist() == [
            [1240, 884], [940, 406], [1457, 433], [526, 568], [1398, 899]
        ]  # fmt: skip

    def test_other_sizes_than_the_published_ones(self):
        config = MegapixelMNISTConfig(
            start="published", canvas=(300, 200), digit_size=35, n_noise=7, stroke_width=2.5,
            n_train=9,
        )  # fmt: skip
        dataset = MegapixelMNIST(config, "train")
        for placed in map(dataset.placement, range(9)):
            check_layout(placed.digit_corners, 35, config.canvas)
            labels = dataset.digits.labels[placed.digits]
            assert (labels[:3] == labels[0]).all() and (labels[3:] != labels[0]).all()
            assert placed.patterns.max() < 7
        assert dataset.batch([0, 3]).n_patches == config.grid.n_patches

    def test_a_canvas_on_which_digits_find_no_room_is_refused(self):
        config = MegapixelMNISTConfig(
            start="published", canvas=84, patch_size=28, n_noise=0, n_train=200
        )
        with pytest.raises(IpslibError, match="canvas"):
            MegapixelMNIST(config, "train").placement(0)

    def test_the_original_codes_own_images_are_drawn_pixel_for_pixel(self, shared, monkeypatch):
        """Those that its checkpoint was asked about: 3 of 48, of its seed 7."""
        answers = np.load(shared / "checkpoints" / "expected_84px_400noise_1500.npz")
        monkeypatch.setitem(placement._PUBLISHED_SEEDS, "test", 7)
        config = MegapixelMNISTConfig(
            start="published", canvas=1500, digit_size=84, n_noise=400, n_test=48
        )
        drawn = MegapixelMNIST(config, "test")
        for j in range(3):
            canvas = np.zeros(1500 * 1500, np.uint8)
            canvas[answers[f"index_{j}"]] = answers[f"value_{j}"]
            assert np.array_equal(drawn.canvas(j).ravel(), canvas)
