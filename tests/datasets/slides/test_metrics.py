import numpy as np
import pytest
from scipy.stats import norm

from ipslib.datasets.slides.metrics import (
    Detections,
    auc_interval,
    detect,
    find_metastases,
    froc,
    patch_auc,
    slide_auc,
)
from ipslib.errors import IpslibError
from ipslib.study.statistics import wilson_interval

MPP, SCALE = 0.25, 32  # 8 µm a pixel of the mask


def mask_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((200, 200), bool)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


LARGE, OTHER, SMALL = (10, 10, 40, 40), (100, 100, 40, 40), (160, 20, 6, 6)  # 320 µm, 48 µm
METASTASES = find_metastases(mask_of(LARGE, OTHER, SMALL), SCALE, MPP)


def detections(*found: tuple[int, int, float], metastases=METASTASES) -> Detections:
    """Of (row, column) in pixels of the mask, and score."""
    points = np.array([(col * SCALE, row * SCALE) for row, col, _ in found]).reshape(-1, 2)
    return Detections(points, np.array([score for *_, score in found]), metastases)


def test_slide_auc_is_the_share_of_pairs_in_order():
    assert slide_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert slide_auc([0, 1], [0.5, 0.5]) == 0.5
    with pytest.raises(IpslibError, match="slides: wanted both.*got 0 tumour of 2"):
        slide_auc([0, 0], [0.1, 0.2])
    with pytest.raises(IpslibError, match="slides: wanted one score a label, got 3 for 2"):
        slide_auc([0, 1], [0.1, 0.2, 0.3])


def test_patch_auc_is_over_all_patches_together():
    labels = [np.array([0, 1], bool), np.array([0, 0, 1], bool)]
    assert patch_auc(labels, [np.array([0.1, 0.9]), np.array([0.2, 0.3, 0.4])]) == 1.0
    assert patch_auc(labels, [np.array([0.1, 0.9]), np.array([0.5, 0.3, 0.4])]) == pytest.approx(
        5 / 6
    )
    with pytest.raises(IpslibError, match="wanted one score a label on every slide"):
        patch_auc(labels, [np.zeros(3), np.zeros(2)])


def test_metastases_are_numbered_and_isolated_cells_told_apart():
    assert METASTASES.regions.max() == 3
    assert METASTASES.isolated == {METASTASES.regions[162, 22]}
    grown = METASTASES.regions[30] == METASTASES.regions[30, 30]
    assert np.flatnonzero(grown)[[0, -1]].tolist() == [6, 53]  # 37.5 µm are 4.7 pixels


def test_outlines_less_than_75_microns_apart_are_one_and_holes_are_filled():
    near, far = (
        mask_of((10, 10, 40, 40), (10, 58, 40, 40)),
        mask_of((10, 10, 40, 40), (10, 61, 40, 40)),
    )
    assert [find_metastases(mask, SCALE, MPP).regions.max() for mask in (near, far)] == [1, 2]
    ring = mask_of(LARGE)
    ring[25:35, 25:35] = False
    ring[20:45, 20:45] = False
    assert find_metastases(ring, SCALE, MPP).regions[32, 32] == 1
    assert find_metastases(np.zeros((9, 9), bool), SCALE, MPP).regions.max() == 0


def test_the_curve_by_hand():
    """Two metastases over two slides: found at 0.9 and 0.5, false ones at 0.7, 0.6 and 0.4."""
    tumour = detections(
        (20, 20, 0.9), (21, 40, 0.8), (120, 120, 0.5), (80, 20, 0.7), (190, 190, 0.4)
    )
    normal = detections((5, 5, 0.6), metastases=None)
    curve = froc([tumour, normal])
    assert curve.false_positives.tolist() == [0, 0, 0.5, 1.0, 1.0, 1.5]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 1.0, 1.0]
    assert curve.at_rates == {0.25: 0.5, 0.5: 0.5, 1.0: 1.0, 2.0: 1.0, 4.0: 1.0, 8.0: 1.0}
    assert curve.score == pytest.approx(5 / 6)


def test_perfect_and_empty_detections_are_the_two_ends():
    assert froc([detections((20, 20, 0.9), (120, 120, 0.9))]).score == 1.0
    assert froc([detections(), detections(metastases=None)]).score == 0.0


def test_isolated_cells_neither_help_nor_hurt():
    found = ((20, 20, 0.9), (60, 60, 0.3))
    one, other = froc([detections(*found)]), froc([detections(*found, (162, 22, 0.95))])
    assert one.at_rates == other.at_rates and one.score < 1
    only = find_metastases(mask_of(SMALL), SCALE, MPP)
    with pytest.raises(IpslibError, match="wanted a metastasis larger than isolated tumour cells"):
        froc([detections((162, 22, 0.9), metastases=only)])


def test_what_lies_outside_the_slide_is_a_false_positive():
    outside = froc([detections((20, 20, 0.5), (300, 20, 0.9), (-9, 20, 0.8))])
    assert outside.false_positives[-1] == 2


def test_sensitivity_between_two_rates_is_linear():
    """One of two found with no false positive, both with one a slide: 3/4 at half of one."""
    curve = froc([detections((20, 20, 0.9), (80, 20, 0.5), (120, 120, 0.5))])
    assert curve.at_rates[0.5] == pytest.approx(0.75)


def test_detections_are_the_best_of_their_neighbourhood():
    coords = np.array([(0, 0), (10, 0), (20, 0), (100, 0), (110, 0)])
    points, scores = detect(np.array([0.2, 0.9, 0.8, 0.1, 0.3]), coords, 10, radius=15)
    assert points.tolist() == [[15, 5], [115, 5]] and scores.tolist() == [0.9, 0.3]
    points, scores = detect(np.array([0.2, 0.9, 0.8, 0.1, 0.3]), coords, 10, radius=5)
    assert scores.tolist() == [0.9, 0.8, 0.3, 0.2, 0.1]


def test_the_interval_of_an_auc_holds_it_and_narrows_with_more_slides():
    for auc in (0.3, 0.9):
        (low, high), (nearer, farther) = auc_interval(auc, 6, 6), auc_interval(auc, 49, 80)
        assert 0 < low < nearer < auc < farther < high < 1
    assert auc_interval(1, 6, 6)[0] < auc_interval(1, 49, 80)[0] < 1 == auc_interval(1, 6, 6)[1]
    low, high = auc_interval(0.3, 6, 9)
    assert auc_interval(0.7, 9, 6) == pytest.approx((1 - high, 1 - low))


def test_the_interval_of_one_pair_is_wilsons_of_one_trial():
    """Of one slide of each kind the area is right or wrong, a share of one."""
    assert auc_interval(1.0, 1, 1) == pytest.approx(wilson_interval(1.0, 1))


def test_the_interval_covers_the_true_area():
    random, true = np.random.default_rng(0), norm.cdf(1.2 / np.sqrt(2))
    held = 0
    for _ in range(400):
        scores = np.r_[random.normal(1.2, 1, 12), random.normal(0, 1, 15)]
        low, high = auc_interval(slide_auc([1] * 12 + [0] * 15, scores), 12, 15)
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.99
