import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.scenes import DrawnScenes, Layer, Scene, SceneBatch, Sheet
from ipslib.patches import PatchGrid, cut_image
from tests.datasets.megapixel_mnist.test_dataset import VARIANTS
from tests.waits import Waits

CPU = torch.device("cpu")


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
                assert np.array_equal(sheet.windows[sheet.window(k, row, col)], expected)
    assert not sheet.windows[sheet.blank].any()


@pytest.mark.parametrize(("limit", "n_kinds"), [(0, 0), (48, 0), (49, 1), (10**6, 5)])
def test_a_sheet_holds_what_its_limit_allows(limit, n_kinds):
    sheet = Sheet(np.full((5, 4, 4), 9, np.uint8), 3, limit=limit)
    assert sheet.n_kinds == n_kinds
    assert all(sheet.windows[sheet.window(k, 0, 0)].all() for k in range(n_kinds))
    assert not sheet.windows[sheet.blank].any()
    with pytest.raises(ValueError, match="read-only"):
        sheet.windows[0, 0, 0] = 1


@st.composite
def crowded(draw) -> tuple[SceneBatch, list[Layer], list[Scene]]:
    """Two images of up to three layers, most of whose patches meet several objects."""
    patch_size = draw(st.integers(2, 9))
    canvas = draw(st.tuples(st.integers(14, 30), st.integers(14, 30)))
    grid = PatchGrid(canvas, patch_size, draw(st.integers(1, patch_size)))
    random = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    layers, pasted = [], ([], [])
    for _ in range(draw(st.integers(1, 3))):
        size, n_kinds, n = draw(st.tuples(st.integers(1, 14), st.integers(1, 4), st.integers(0, 7)))
        kinds = random.randint(0, 256, (n_kinds, size, size)).astype(np.uint8)
        objects = random.randint(0, n_kinds, (2, n))
        layers.append(
            Layer(kinds, objects, random.randint(0, np.array(canvas) - size + 1, (2, n, 2)))
        )
        for image in range(2):
            pasted[image].extend(kinds[objects[image]])
    boxes = np.concatenate([layer.boxes for layer in layers], axis=1)
    sheet = Sheet(layers[0].kinds, patch_size, limit=draw(st.sampled_from([0, 500, 10**6])))
    batch = SceneBatch(grid, layers, sheet=sheet, labels={})
    return batch, layers, [Scene(*scene) for scene in zip(boxes, pasted, strict=True)]


@settings(max_examples=150, deadline=None)
@given(crowded())
def test_patches_read_in_any_order_are_the_cut_whole_image(drawn):
    batch, layers, scenes = drawn
    grid = batch.grid
    whole = torch.stack([cut_image(scene.draw(grid.canvas), grid) for scene in scenes])
    image, patch = torch.cartesian_prod(torch.arange(2), torch.arange(grid.n_patches)).T
    order = torch.randperm(len(image), generator=torch.Generator().manual_seed(0))
    read = batch.read(image[order], patch[order])
    assert torch.equal(read, whole[image, patch][order])
    assert not whole[batch.blank].any()
    assert np.array_equal(batch.boxes.numpy(), layers[-1].boxes)


def test_blank_are_the_patches_that_no_box_meets():
    corners = np.array([[[0, 0], [4, 7]], [[9, 2], [9, 2]]])
    kinds = np.zeros((1, 2, 2), np.uint8)
    layer = Layer(kinds, np.zeros((2, 2), np.int64), corners)
    batch = SceneBatch(PatchGrid((12, 10), 5, 5), [layer], sheet=Sheet(kinds, 5), labels={})
    assert (~batch.blank).nonzero().tolist() == [[0, 0], [0, 1], [0, 3], [1, 2], [1, 4]]


def every_patch(batch) -> tuple[torch.Tensor, torch.Tensor]:
    number = torch.randperm(batch.batch_size * batch.n_patches)
    return number // batch.n_patches, number % batch.n_patches


def assert_the_same_bytes(batch, drawn: DrawnScenes) -> None:
    image, patch = every_patch(batch)
    expected = batch.read(image, patch)
    assert torch.equal(drawn.read(image, patch).cpu(), expected)
    assert batch.on("cpu") is batch
    known = drawn.blank[image, patch]
    assert not expected[known].any()
    assert (drawn.blank | ~batch.blank).all()  # whatever boxes tell, ink tells too


@settings(max_examples=150, deadline=None)
@given(crowded())
def test_patches_are_drawn_as_on_the_host(case):
    batch, _, _ = case
    assert_the_same_bytes(batch, batch.drawn_on(CPU))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_megapixel_mnist_is_drawn_as_on_the_host(small_data, variant):
    batch = MegapixelMNIST(small_data(**variant), "train").batch([4, 1, 4])
    drawn = batch.drawn_on(CPU)
    assert_the_same_bytes(batch, drawn)
    assert drawn.labels is batch.labels and drawn.boxes is batch.boxes


def test_pasting_in_small_parts_draws_the_same(small_data, monkeypatch):
    batch = MegapixelMNIST(small_data(n_noise=60), "train").batch([0, 1])
    monkeypatch.setattr("ipslib.datasets.megapixel_mnist.scenes._PASTED_VALUES", 2 * 28 * 28)
    assert_the_same_bytes(batch, batch.drawn_on(CPU))


def test_patches_that_only_meet_the_margin_of_a_box_are_known_to_be_blank(small_data):
    batch = MegapixelMNIST(small_data(), "train").batch(range(8))
    assert batch.drawn_on(CPU).blank.sum() > batch.blank.sum()


def test_reading_asks_the_device_nothing(small_data):
    drawn = MegapixelMNIST(small_data(n_noise=60), "train").batch([0, 1]).drawn_on(CPU)
    image, patch = every_patch(drawn)
    with Waits() as waits:
        drawn.read(image, patch)
        assert waits.seen == []
        drawn.read(image, patch).any().item()  # and the watch sees what it is there for
    assert waits.seen == ["_local_scalar_dense"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_cuda_device_draws_the_same_bytes(small_data, variant):
    batch = MegapixelMNIST(small_data(**variant), "train").batch([4, 1, 4])
    drawn = batch.on("cuda")
    assert isinstance(drawn, DrawnScenes) and drawn.device.type == "cuda"
    assert_the_same_bytes(batch, drawn)
