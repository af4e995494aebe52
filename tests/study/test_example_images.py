from collections import Counter

import numpy as np
import pytest

from ipslib.datasets.images.own_images import OwnImages, describe_images, read_labels
from ipslib.study.example_images import SHAPES, write_example_images


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_example_images(tmp_path_factory.mktemp("examples") / "new", 24, side=96)


def test_every_format_can_be_read_and_every_shape_is_there_as_often(labels):
    data = OwnImages(describe_images(labels, patch_size=16), "train")
    assert not data.skipped
    assert {name.rpartition(".")[2] for name in read_labels(labels)["image"]} == {
        "png", "tif", "npy", "jpg",
    }  # fmt: skip
    assert Counter(read_labels(labels)["shape"]) == dict.fromkeys(SHAPES, 8)


def test_sizes_differ_within_what_was_asked_for(labels):
    sizes = [np.load(file).shape for file in sorted(labels.parent.glob("*.npy"))]
    assert len(set(sizes)) > 1
    assert all(72 <= side <= 96 for size in sizes for side in size[:2])


def test_images_there_are_not_drawn_again_and_a_seed_draws_the_same_ones(labels, tmp_path):
    before = {file.name: file.stat().st_mtime_ns for file in labels.parent.iterdir()}
    assert write_example_images(labels.parent, 24, side=96) == labels
    assert before == {file.name: file.stat().st_mtime_ns for file in labels.parent.iterdir()}
    again, other = (
        write_example_images(tmp_path / str(seed), 4, side=96, seed=seed).parent / "0000.png"
        for seed in (0, 1)
    )
    assert again.read_bytes() == (labels.parent / "0000.png").read_bytes() != other.read_bytes()
