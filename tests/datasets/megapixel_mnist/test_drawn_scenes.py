import pytest
import torch
from hypothesis import given, settings

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.drawn_scenes import DrawnScenes
from tests.datasets.megapixel_mnist.test_dataset import VARIANTS
from tests.datasets.megapixel_mnist.test_scenes import crowded
from tests.waits import Waits

CPU = torch.device("cpu")


def every_patch(batch) -> tuple[torch.Tensor, torch.Tensor]:
    number = torch.randperm(batch.batch_size * batch.n_patches)
    return number // batch.n_patches, number % batch.n_patches


def assert_the_same_bytes(batch, drawn: DrawnScenes) -> None:
    image, patch = every_patch(batch)
    expected = batch.read(image, patch)
    assert torch.equal(drawn.read(image, patch).cpu(), expected)
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
    monkeypatch.setattr("ipslib.datasets.megapixel_mnist.drawn_scenes._PASTED_VALUES", 2 * 28 * 28)
    assert_the_same_bytes(batch, batch.drawn_on(CPU))


def test_patches_that_only_meet_the_margin_of_a_box_are_known_to_be_blank(small_data):
    batch = MegapixelMNIST(small_data(), "train").batch(range(8))
    assert batch.drawn_on(CPU).blank.sum() > batch.blank.sum()


def test_patterns_go_to_a_device_once(small_data):
    data = MegapixelMNIST(small_data(), "train")
    sheet = data._noise_sheet
    data.batch([0]).drawn_on(CPU)
    first = sheet.on(CPU)
    data.batch([1]).drawn_on(CPU)
    assert all(one is other for one, other in zip(first, sheet.on(CPU), strict=True))


def test_on_the_host_a_batch_stays_as_it_is(small_data):
    batch = MegapixelMNIST(small_data(), "train").batch([0])
    assert batch.on("cpu") is batch


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
