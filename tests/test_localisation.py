from itertools import combinations
from math import log

import numpy as np
import pytest
import torch

from ipslib.localisation import Localisation, localise, mean_localisation, touches
from ipslib.patches import PatchGrid

GRID = PatchGrid((6, 6), 2, 2)  # 3 x 3 patches:  0 1 2 / 3 4 5 / 6 7 8
MEASURES = Localisation._fields


def boxes(*rows):
    """One image's boxes, (1, R, 4) of top, left, height, width."""
    return torch.tensor([rows])


def uniform(patches, n_heads=2, n_tokens=3):
    n_kept = patches.shape[1]
    return torch.full((len(patches), n_heads, n_tokens, n_kept), 1 / n_kept)


def touched_by(grid, box):
    every = torch.arange(grid.n_patches)[None]
    return touches(grid, every, boxes(box))[0, 0].nonzero().flatten().tolist()


class TestTouches:
    @pytest.mark.parametrize(
        ("box", "patches"),
        [
            ([0, 0, 2, 2], [0]),  # fills one patch
            ([1, 1, 2, 2], [0, 1, 3, 4]),  # over a corner of the grid
            ([2, 0, 2, 2], [3]),  # begins where patch 0 ends
            ([1, 4, 3, 1], [2, 5]),
            ([0, 0, 6, 6], list(range(9))),
            ([5, 5, 1, 1], [8]),  # one pixel
        ],
    )
    def test_plain_grid(self, box, patches):
        assert touched_by(GRID, box) == patches

    def test_overlapping_patches(self):
        grid = PatchGrid((4, 6), 4, 2)  # patches over columns 0-3 and 2-5
        assert grid.n_patches == 2
        assert touched_by(grid, [0, 0, 1, 2]) == [0]
        assert touched_by(grid, [0, 1, 1, 2]) == [0, 1]
        assert touched_by(grid, [3, 4, 1, 1]) == [1]

    def test_a_hanging_patch_is_touched_at_the_edge(self):
        grid = PatchGrid((5, 5), 2, 2)  # the last row and column hang over
        assert touched_by(grid, [4, 4, 1, 1]) == [8]

    def test_agrees_with_painted_pixels(self):
        random = np.random.default_rng(0)
        grid = PatchGrid((17, 23), 5, 3)
        for _ in range(50):
            height, width = random.integers(1, 7, 2)
            top, left = random.integers(0, 17 - height + 1), random.integers(0, 23 - width + 1)
            image = np.zeros((40, 40), bool)
            image[top : top + height, left : left + width] = True
            inked = [
                patch
                for patch, (row, col) in enumerate(grid.corners(np.arange(grid.n_patches)))
                if image[row : row + 5, col : col + 5].any()
            ]
            assert touched_by(grid, [int(v) for v in (top, left, height, width)]) == inked


class TestLocalise:
    def test_recall_counts_boxes_and_attention_counts_patches(self):
        kept = torch.tensor([[0, 4, 8, 2]])
        weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(1, 2, 3, 4)
        three = boxes([0, 0, 2, 2], [1, 1, 2, 2], [4, 0, 1, 1])  # on {0}, {0, 1, 3, 4}, {6}
        found = localise(GRID, kept, weights, three)
        assert found.roi_recall == pytest.approx(2 / 3)
        assert found.attention_on_digits == pytest.approx(0.1 + 0.2)
        assert found.attention_on_digits_random == pytest.approx(5 / 9)

    def test_attention_is_the_mean_over_heads_and_tokens(self):
        kept = torch.tensor([[0, 1]])
        weights = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]]])  # 2 heads, 1 token
        found = localise(GRID, kept, weights, boxes([0, 0, 2, 2]))
        assert found.attention_on_digits == pytest.approx(0.75)

    @pytest.mark.parametrize("n_kept", [1, 2, 4, 9])
    def test_random_values_are_the_mean_over_every_choice_of_patches(self, n_kept):
        two = boxes([0, 0, 2, 2], [1, 1, 2, 2])
        found = []
        for choice in combinations(range(9), n_kept):
            kept = torch.tensor([choice])
            found.append(localise(GRID, kept, uniform(kept), two))
        mean = mean_localisation(found, [1] * len(found))
        assert mean.roi_recall == pytest.approx(mean.roi_recall_random)
        assert mean.attention_on_digits == pytest.approx(mean.attention_on_digits_random)

    def test_random_values_of_overlapping_patches_are_those_of_a_simulation(self):
        grid = PatchGrid((60, 50), 12, 7)
        random = np.random.default_rng(1)
        objects = boxes([3, 4, 9, 9], [30, 20, 9, 9], [50, 40, 9, 9])
        draws = [random.permutation(grid.n_patches)[:8] for _ in range(3000)]
        kept = torch.from_numpy(np.stack(draws))
        found = localise(grid, kept, uniform(kept, 1, 1), objects.expand(3000, -1, -1))
        assert found.roi_recall == pytest.approx(found.roi_recall_random, abs=0.015)
        assert found.attention_on_digits == pytest.approx(
            found.attention_on_digits_random, abs=0.01
        )

    def test_keeping_all_finds_all(self):
        kept = torch.arange(9)[None]
        found = localise(GRID, kept, uniform(kept), boxes([5, 5, 1, 1], [1, 1, 2, 2]))
        assert found.roi_recall == found.roi_recall_random == 1
        assert found.attention_on_digits == pytest.approx(found.attention_on_digits_random)

    def test_entropy_is_1_for_uniform_and_0_for_one_patch(self):
        kept, box = torch.tensor([[0, 1, 2, 3]]), boxes([0, 0, 2, 2])
        assert localise(GRID, kept, uniform(kept), box).entropy == pytest.approx(1)
        one = torch.tensor([0.0, 1, 0, 0]).expand(1, 2, 3, 4)
        assert localise(GRID, kept, one, box).entropy == 0
        half = torch.tensor([0.5, 0.5, 0, 0]).expand(1, 2, 3, 4)
        assert localise(GRID, kept, half, box).entropy == pytest.approx(log(2) / log(4))

    def test_heads_that_each_look_at_one_patch_are_sure_though_they_differ(self):
        kept = torch.tensor([[0, 1]])
        apart = torch.eye(2)[None, :, None]  # (1, 2 heads, 1 token, 2)
        assert localise(GRID, kept, apart, boxes([0, 0, 2, 2])).entropy == 0

    def test_a_single_kept_patch_has_no_spread(self):
        kept = torch.tensor([[4]])
        assert localise(GRID, kept, uniform(kept), boxes([2, 2, 2, 2])).entropy == 0


@pytest.mark.parametrize("sharp", [0.1, 8.0])
def test_images_that_keep_unequal_numbers_measure_as_the_mean_of_each_alone(sharp):
    counts = [2, 7, 1]
    kept, weights = torch.full((3, 7), -1), torch.zeros(3, 2, 2, 7)
    objects = torch.tensor([[[0, 0, 2, 2], [4, 4, 1, 1]], [[0, 0, 3, 3], [0, 0, 0, 0]]])
    objects = objects[[0, 1, 0]]
    alone = []
    for i, n in enumerate(counts):
        kept[i, :n] = torch.randperm(9)[:n]
        weights[i, ..., :n] = (sharp * torch.randn(2, 2, n)).softmax(dim=-1)
        each = slice(i, i + 1)
        alone.append(localise(GRID, kept[each, :n], weights[each, ..., :n], objects[each]))
    found, mean = localise(GRID, kept, weights, objects), mean_localisation(alone, [1, 1, 1])
    for measure in ("attention_on_digits", "attention_on_digits_random", "entropy"):
        assert getattr(found, measure) == pytest.approx(getattr(mean, measure), abs=1e-6)
    boxes_of = [2, 1, 2]  # recall is over boxes
    by_box = mean_localisation(alone, boxes_of)
    assert found.roi_recall == pytest.approx(by_box.roi_recall)
    assert found.roi_recall_random == pytest.approx(by_box.roi_recall_random)


def test_no_patch_touches_nothing_where_patches_overlap():
    grid = PatchGrid((6, 6), 4, 1)  # a patch before the first row would reach into the canvas
    everywhere = boxes([0, 0, 6, 6])
    assert touches(grid, torch.tensor([[0, -1]]), everywhere).tolist() == [[[True, False]]]


def test_batches_count_by_their_size():
    parts = [Localisation(*[0.0] * 5), Localisation(*[1.0] * 5)]
    assert mean_localisation(parts, [3, 1])._asdict() == dict.fromkeys(MEASURES, 0.25)


def test_images_of_two_batches_measure_as_one():
    kept = torch.tensor([[0, 1], [4, 5], [8, 7]])
    weights = torch.rand(3, 2, 2, 2).softmax(dim=-1)
    three = torch.tensor([[[0, 0, 2, 2]], [[0, 0, 3, 3]], [[3, 3, 1, 1]]])
    whole = localise(GRID, kept, weights, three)
    parts = [localise(GRID, kept[s], weights[s], three[s]) for s in (slice(2), slice(2, 3))]
    assert mean_localisation(parts, [2, 1]) == pytest.approx(whole)
