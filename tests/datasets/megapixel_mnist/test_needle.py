import hashlib

import numpy as np
import pytest
from scipy.stats import binomtest

from ipslib.datasets.megapixel_mnist.dataset import NEEDLE_CLASS, NeedleMNIST
from ipslib.errors import IpslibError


@pytest.fixture
def dataset() -> NeedleMNIST:
    return NeedleMNIST(digits="embedded", canvas=(120, 90), n_clutter=7)


def test_the_label_says_whether_a_3_lies_on_the_canvas(dataset):
    for index in range(60):
        placement = dataset.placement(index)
        classes = dataset.digit_set.labels[placement.digits]
        assert len(classes) == 8  # as many objects with a needle as without
        assert (classes[:-1] != NEEDLE_CLASS).all()
        assert (classes[-1] == NEEDLE_CLASS) == placement.label


def test_the_object_in_question_lies_whole_on_top(dataset):
    for index in range(20):
        placement = dataset.placement(index)
        scene = dataset.scene(placement)
        top, left, height, width = scene.boxes[-1]
        image = scene.draw(dataset.canvas)
        box = image[top : top + height, left : left + width]
        assert np.array_equal(box, dataset.digit_set.images[placement.digits[-1]])
        assert image.dtype == np.uint8


def test_half_of_the_images_have_a_needle(dataset):
    labels = [dataset.placement(index).label for index in range(600)]
    assert binomtest(sum(labels), 600, 0.5).pvalue > 1e-3


def test_images_are_keyed_by_index_split_and_seed(dataset):
    def draw(index: int, **changes: object) -> bytes:
        fields = {"digits": "embedded", "canvas": (120, 90), "n_clutter": 7} | changes
        other = NeedleMNIST(**fields)
        return other.scene(other.placement(index)).draw(other.canvas).tobytes()

    first = draw(0)
    assert first == dataset.scene(dataset.placement(0)).draw(dataset.canvas).tobytes()
    assert len({first, draw(1), draw(0, split="test"), draw(0, data_seed=1)}) == 4
    assert hashlib.sha256(first).hexdigest()[:16] == "2221d89e1d7d105b"


def test_bad_input_is_refused():
    assert NeedleMNIST(digits="embedded", canvas=28, n_clutter=0).placement(0).corners.any() == 0
    for field, value in {"canvas": (27, 50), "split": "val"}.items():
        with pytest.raises(IpslibError, match=field):
            NeedleMNIST(**{field: value})
