import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.data.patches import PatchGrid, cut_image
from ipslib.data.scenes import Layer, Scene, SceneBatch, Sheet


@pytest.mark.parametrize(("size", "patch_size"), [(3, 5), (5, 3), (4, 4), (1, 2)])
def test_every_window_is_the_patch_that_one_object_leaves(size, patch_size):
    objects = np.random.RandomState(0).randint(1, 256, (3, size, size)).astype(np.uint8)
    sheet = Sheet(objects, patch_size)
    for k, each in enumerate(objects):
        for row in range(1 - size, patch_size):
            for col in range(1 - size, patch_size):
                around = np.zeros((3 * (size + patch_size),) * 2, np.uint8)
                top, left = size + patch_size - row, size + patch_size - col  # of the patch
                around[size + patch_size :, size + patch_size :][:size, :size] = each
                expected = around[top : top + patch_size, left : left + patch_size]
                window = sheet.first[k] - row * sheet.pitch - col
                assert np.array_equal(sheet.windows[window], expected)
    assert not sheet.windows[sheet.blank].any()


def test_a_sheet_of_no_objects_has_its_blank_window():
    sheet = Sheet(np.zeros((0, 4, 4), np.uint8), 3)
    assert sheet.windows[sheet.blank].tolist() == [[0, 0, 0]] * 3


def test_nothing_is_written_to_a_sheet():
    sheet = Sheet(np.zeros((2, 4, 4), np.uint8), 3)
    with pytest.raises(ValueError, match="read-only"):
        sheet.windows[0, 0, 0] = 1


@st.composite
def crowded(draw) -> tuple[PatchGrid, list[Layer], list[Scene]]:
    """Two images of up to three layers, most of whose patches meet several objects."""
    patch_size = draw(st.integers(2, 9))
    canvas = draw(st.tuples(st.integers(14, 30), st.integers(14, 30)))
    grid = PatchGrid(canvas, patch_size, draw(st.integers(1, patch_size)))
    random = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    layers, objects = [], ([], [])
    for _ in range(draw(st.integers(1, 3))):
        size, n_kinds, n = draw(st.tuples(st.integers(1, 14), st.integers(1, 4), st.integers(0, 7)))
        kinds = random.randint(0, 256, (n_kinds, size, size)).astype(np.uint8)
        corners = random.randint(0, np.array(canvas) - size + 1, (2, n, 2))
        layers.append(Layer(Sheet(kinds, patch_size), random.randint(0, n_kinds, (2, n)), corners))
        for image in range(2):
            objects[image].extend(kinds[layers[-1].objects[image]])
    boxes = np.concatenate([layer.boxes for layer in layers], axis=1)
    return grid, layers, [Scene(*scene) for scene in zip(boxes, objects, strict=True)]


@settings(max_examples=150, deadline=None)
@given(crowded())
def test_patches_read_in_any_order_are_the_cut_whole_image(drawn):
    grid, layers, scenes = drawn
    batch = SceneBatch(grid, layers, {})
    whole = torch.stack([cut_image(scene.draw(grid.canvas), grid) for scene in scenes])
    image, patch = torch.cartesian_prod(torch.arange(2), torch.arange(grid.n_patches)).T
    order = torch.randperm(len(image), generator=torch.Generator().manual_seed(0))
    read = batch.read(image[order], patch[order])
    assert torch.equal(read, whole[image, patch][order])
    assert not whole[batch.blank].any()
    assert np.array_equal(batch.boxes.numpy(), layers[-1].boxes)


def test_blank_are_the_patches_that_no_box_meets():
    corners = np.array([[[0, 0], [4, 7]], [[9, 2], [9, 2]]])
    layer = Layer(Sheet(np.zeros((1, 2, 2), np.uint8), 5), np.zeros((2, 2), np.int64), corners)
    blank = SceneBatch(PatchGrid((12, 10), 5, 5), [layer], {}).blank
    assert (~blank).nonzero().tolist() == [[0, 0], [0, 1], [0, 3], [1, 2], [1, 4]]
