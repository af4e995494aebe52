import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.datasets.megapixel_mnist import scenes
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.scenes import DrawnScenes, Layer, SceneBatch, Sheet, draw_whole
from ipslib.patches import PatchGrid, cut_image
from tests.datasets.megapixel_mnist.test_dataset import VARIANTS
from tests.reference import all_known_blank
from tests.waits import Waits

CPU = torch.device("cpu")


@pytest.mark.parametrize(("limit", "n_kinds"), [(0, 0), (48, 0), (49, 1), (10**6, 5)])
def test_a_sheet_holds_what_its_limit_allows(limit, n_kinds):
    sheet = Sheet(np.full((5, 4, 4), 9, np.uint8), 3, limit=limit)
    assert sheet.n_kinds == n_kinds
    assert all(sheet.windows[sheet.window(k, 0, 0)].all() for k in range(n_kinds))
    assert not sheet.windows[sheet.blank].any()


def test_what_a_window_of_a_sheet_shows_is_told_by_its_number():
    size, patch_size = 4, 3
    sheet = Sheet(np.full((5, size, size), 9, np.uint8), patch_size)
    met = np.mgrid[:5, 1 - size : patch_size, 1 - size : patch_size].reshape(3, -1)
    assert np.array_equal(sheet.shown(sheet.window(*met)), met)


@st.composite
def crowded(draw) -> tuple[SceneBatch, list[Layer]]:
    """Two images of up to three layers, most of whose patches meet several objects."""
    patch_size = draw(st.integers(2, 9))
    canvas = draw(st.tuples(st.integers(14, 30), st.integers(14, 30)))
    grid = PatchGrid(canvas, patch_size, draw(st.integers(1, patch_size)))
    random, layers = np.random.RandomState(draw(st.integers(0, 2**32 - 1))), []
    for _ in range(draw(st.integers(1, 3))):
        size, n_kinds, n = draw(st.tuples(st.integers(1, 14), st.integers(1, 4), st.integers(0, 7)))
        kinds = random.randint(0, 256, (n_kinds, size, size)).astype(np.uint8)
        corners = random.randint(0, np.array(canvas) - size + 1, (2, n, 2))
        layers.append(Layer(kinds, random.randint(0, n_kinds, (2, n)), corners))
    sheet = Sheet(layers[0].kinds, patch_size, limit=draw(st.sampled_from([0, 500, 10**6])))
    with mock.patch.object(scenes, "_TOGETHER", draw(st.sampled_from([1, 2048]))):
        return SceneBatch(grid, layers, sheet=sheet, labels={}), layers


def every_patch(batch) -> tuple[torch.Tensor, torch.Tensor]:
    number = torch.randperm(batch.batch_size * batch.n_patches)
    return number // batch.n_patches, number % batch.n_patches


@settings(max_examples=100, deadline=None)
@given(crowded())
def test_patches_read_in_any_order_are_the_cut_whole_image(drawn):
    batch, layers = drawn
    images = [draw_whole(layers, batch.grid.canvas, i) for i in range(2)]
    whole = torch.stack([cut_image(image, batch.grid) for image in images])
    image, patch = every_patch(batch)
    assert torch.equal(batch.read(image, patch), whole[image, patch])
    assert not whole[all_known_blank(batch)].any()
    assert np.array_equal(batch.boxes.numpy(), layers[-1].boxes)
    assert_the_same_bytes(batch, DrawnScenes(batch, CPU))


def assert_the_same_bytes(batch: SceneBatch, drawn: DrawnScenes) -> None:
    image, patch = every_patch(batch)
    expected = batch.read(image, patch)
    assert torch.equal(drawn.read(image, patch).cpu(), expected)
    assert not expected[all_known_blank(drawn)[image, patch]].any()
    # Whatever boxes tell, ink tells too.
    assert (all_known_blank(drawn) | ~all_known_blank(batch)).all()


def test_blank_are_the_patches_that_no_box_meets():
    corners = np.array([[[0, 0], [4, 7]], [[9, 2], [9, 2]]])
    kinds = np.zeros((1, 2, 2), np.uint8)
    layer = Layer(kinds, np.zeros((2, 2), np.int64), corners)
    batch = SceneBatch(PatchGrid((12, 10), 5, 5), [layer], sheet=Sheet(kinds, 5), labels={})
    assert (~all_known_blank(batch)).nonzero().tolist() == [[0, 0], [0, 1], [0, 3], [1, 2], [1, 4]]
    assert batch.blank_share == pytest.approx(7 / 12)
    assert batch.known_blank(torch.tensor([4, 3])).tolist() == [[True, False], [False, True]]


def test_laying_out_a_large_canvas_takes_few_bytes_a_patch(small_data):
    taken = {}
    for side in (2000, 8000):  # as many objects for each area
        data = MegapixelMNIST(
            small_data(canvas=side, n_noise=side**2 // 9000, n_patterns=50), "train"
        )
        data.batch(range(4))
        tracemalloc.start()
        try:
            batch = data.batch(range(4))
            taken[batch.batch_size * batch.n_patches] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    (few, some), (many, most) = taken.items()
    assert (most - some) / (many - few) < 13  # pixels would take 784


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_megapixel_mnist_is_drawn_on_a_device_as_on_the_host(small_data, variant, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    batch = MegapixelMNIST(small_data(**variant), "train").batch([4, 1, 4])
    drawn = DrawnScenes(batch, torch.device(device))
    assert batch.on("cpu") is batch
    assert_the_same_bytes(batch, drawn)
    assert drawn.labels is batch.labels and drawn.boxes is batch.boxes


def test_pasting_in_small_parts_draws_the_same(small_data, monkeypatch):
    batch = MegapixelMNIST(small_data(n_noise=60), "train").batch([0, 1])
    monkeypatch.setattr("ipslib.datasets.megapixel_mnist.scenes._PASTED_VALUES", 2 * 28 * 28)
    assert_the_same_bytes(batch, DrawnScenes(batch, CPU))


def test_reading_asks_the_device_nothing_and_margins_of_boxes_are_known_to_be_blank(small_data):
    batch = MegapixelMNIST(small_data(), "train").batch(range(8))
    drawn = DrawnScenes(batch, CPU)
    assert all_known_blank(drawn).sum() > all_known_blank(batch).sum()
    image, patch = every_patch(drawn)
    with Waits() as waits:
        drawn.read(image, patch)
        assert waits.seen == []
        drawn.read(image, patch).any().item()  # and the watch sees what it is there for
    assert waits.seen == ["_local_scalar_dense"]
