from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ipslib.datasets.traffic_signs.annotations import Box
from ipslib.datasets.traffic_signs.batch import NO_BOX, SignBatch, boxes_on_canvas, padded, touched
from ipslib.datasets.traffic_signs.classes import Example
from ipslib.datasets.traffic_signs.image import SignImage
from ipslib.metrics import touches
from ipslib.model.imagenet import normalised
from ipslib.patches import PatchGrid

GRID = PatchGrid((60, 80), 20, 20)


def on_canvas(box: Box, *, stored=(48, 64), canvas=(60, 80), shift=(0, 0)) -> list[int]:
    return boxes_on_canvas(Example(Path("a"), 1, 1, (box,), stored), canvas, shift)[0].tolist()


def test_boxes_follow_the_resizing_and_the_shift():
    """The published scale of 1.25, from 960 x 1280 to 1200 x 1600."""
    assert on_canvas(Box(8, 16, 24, 40)) == [20, 10, 30, 20]
    assert on_canvas(Box(8, 16, 24, 40), shift=(-3, 7)) == [17, 17, 30, 20]
    assert on_canvas(Box(8, 16, 24, 40), canvas=(48, 128)) == [16, 16, 24, 32]


def test_boxes_are_rounded_outward():
    assert on_canvas(Box(1.2, 2.7, 3.1, 4.2), canvas=(48, 64)) == [2, 1, 3, 3]


def test_what_lies_outside_is_cut_off():
    assert on_canvas(Box(56, 40, 64, 48), shift=(5, 4)) == [55, 74, 5, 6]
    assert on_canvas(Box(0, 0, 8, 8), shift=(-4, -2)) == [0, 0, 6, 8]
    assert tuple(on_canvas(Box(0, 0, 8, 8), shift=(-20, 0))) == NO_BOX


def test_an_image_without_a_sign_has_no_boxes():
    boxes = boxes_on_canvas(Example(Path("a"), 1, 0, (), (48, 64)), (60, 80))
    assert boxes.shape == (0, 4)
    assert not touched(GRID, boxes).any()


def test_a_patch_is_of_interest_where_it_shares_a_pixel_with_a_box():
    rng = np.random.RandomState(0)
    for grid in (GRID, PatchGrid((60, 85), 20, 15)):
        corners = rng.randint(0, 40, (30, 2))
        boxes = np.concatenate([corners, rng.randint(1, 20, (30, 2))], axis=1)
        for some in (boxes[:1], boxes[:3], boxes):
            marked = np.zeros((200, 200), bool)
            for top, left, height, width in some:
                marked[top : top + height, left : left + width] = True
            expected = [
                marked[r : r + grid.patch_size, c : c + grid.patch_size].any()
                for r, c in grid.corners(np.arange(grid.n_patches))
            ]
            assert touched(grid, some).tolist() == expected


def test_padding_touches_no_patch():
    assert not touched(GRID, np.array([NO_BOX])).any()
    every = torch.arange(GRID.n_patches)[None]
    boxes = padded([np.array([[5, 5, 10, 10]]), np.zeros((0, 4), int)])
    assert boxes.shape == (2, 1, 4) and boxes.dtype == torch.int64
    hit = touches(GRID, every.expand(2, -1), boxes)
    assert hit[0].any() and not hit[1].any()
    assert padded([np.zeros((0, 4), int)]).tolist() == [[list(NO_BOX)]]


@pytest.fixture
def paths(tmp_path):
    rng = np.random.RandomState(1)
    for i in range(3):
        Image.fromarray(rng.randint(0, 256, (48, 64, 3)).astype(np.uint8)).save(
            tmp_path / f"{i}.jpg"
        )
    return sorted(tmp_path.glob("*.jpg"))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_reads_its_images_and_knows_their_signs(paths, threads):
    sources = [SignImage(path, canvas=(60, 80), patch_size=20) for path in paths]
    expected = [SignImage(path, canvas=(60, 80), patch_size=20) for path in paths]
    boxes = [np.array([[0, 0, 5, 5], [41, 61, 9, 9]]), np.zeros((0, 4), int), np.array([NO_BOX])]
    batch = SignBatch(sources, boxes, torch.tensor([2, 0, 3]), threads=threads)
    for path in paths:
        path.unlink()  # decoded already
    image, patch = torch.tensor([2, 0, 1, 0]), torch.tensor([5, 11, 0, 3])
    for got, i, p in zip(batch.read(image, patch), image, patch, strict=True):
        assert got.shape == (3, 20, 20)
        assert torch.equal(got, normalised(sources[i].read(p[None]))[0])
    assert (batch.batch_size, batch.n_patches, batch.blank) == (3, 12, None)
    assert len({source.pixels.tobytes() for source in sources}) == len(expected)
    assert batch.labels["sign"].tolist() == [2, 0, 3]
    assert batch.boxes.shape == (3, 2, 4)
    assert [each.nonzero()[:, 0].tolist() for each in batch.roi] == [[0, 11], [], []]
