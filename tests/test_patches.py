import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.errors import IpslibError
from ipslib.metrics import touches
from ipslib.patches import PatchGrid, cut_image

GRIDS = [
    PatchGrid((60, 60), 20, 20),
    PatchGrid((60, 90), 20, 10),  # overlap
    PatchGrid((61, 75), 20, 15),  # overlap and overhang
    PatchGrid((20, 55), 20, 20),  # one row, overhang
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_pixel_lies_in_a_patch_and_no_patch_outside(grid):
    covered = np.zeros(grid.canvas, int)
    corners = grid.corners(np.arange(grid.n_patches))
    for row, col in corners:
        assert row < grid.canvas[0] and col < grid.canvas[1]
        covered[row : row + grid.patch_size, col : col + grid.patch_size] += 1
    assert covered.min() >= 1
    assert corners.tolist() == sorted(corners.tolist())  # row-major


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_cut_patches_are_the_image_at_their_corners(grid):
    image = np.random.RandomState(0).randint(1, 256, (2, *grid.canvas)).astype(np.uint8)
    padded = np.zeros((2, 200, 200), np.uint8)
    padded[:, : grid.canvas[0], : grid.canvas[1]] = image
    size, patches = grid.patch_size, cut_image(image, grid)
    assert torch.equal(cut_image(image[0], grid), patches[:, :1])
    for patch, (row, col) in zip(patches, grid.corners(np.arange(grid.n_patches)), strict=True):
        assert np.array_equal(patch, padded[:, row : row + size, col : col + size])


def touching(grid: PatchGrid, boxes: np.ndarray) -> list[tuple[int, int]]:
    """By counting shared pixels, patch by patch."""
    pairs = []
    for patch, (row, col) in enumerate(grid.corners(np.arange(grid.n_patches)).tolist()):
        rows, cols = range(row, row + grid.patch_size), range(col, col + grid.patch_size)
        for box, (top, left, height, width) in enumerate(boxes.tolist()):
            in_rows = set(rows) & set(range(top, top + height))
            in_cols = set(cols) & set(range(left, left + width))
            if in_rows and in_cols:
                pairs.append((patch, box))
    return pairs


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_touches_is_what_shared_pixels_say(data):
    size = data.draw(st.integers(3, 12))
    stride = data.draw(st.integers(1, size))
    canvas = data.draw(st.tuples(st.integers(size, 40), st.integers(size, 40)))
    grid = PatchGrid(canvas, size, stride)
    sides = [st.integers(1, 15)] * 2
    box = st.tuples(st.integers(0, canvas[0] - 2), st.integers(0, canvas[1] - 2), *sides)
    boxes = np.array(data.draw(st.lists(box, max_size=4)), np.int64).reshape(-1, 4)
    pairs = np.transpose(touching(grid, boxes) or np.zeros((0, 2)))
    assert np.array_equal(grid.incidence(boxes), pairs)
    every = torch.arange(grid.n_patches)[None]
    met = touches(grid, every, torch.from_numpy(boxes)[None])[0]  # (boxes, patches)
    assert np.array_equal(met.T.nonzero().T, pairs)


@pytest.mark.parametrize("shape", [(20, 31), (31, 20), (3, 20, 20)])
def test_an_image_is_as_large_as_its_grid_says(shape):
    grid = PatchGrid((20, 30), 10, 10)
    with pytest.raises(IpslibError, match="20 x 30"):
        cut_image(np.zeros(shape, np.uint8), grid)
