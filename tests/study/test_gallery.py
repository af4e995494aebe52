"""Drawn images: what is shown, and where the outlines and kept patches lie."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ipslib.config import ModelConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.model.ips import IPSNet
from ipslib.study.gallery import example_row, image_row, map_of_image
from ipslib.training import attend


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_images_and_outlines_stand_where_they_should():
    image = np.zeros((40, 60), np.uint8)
    image[5:10, 20:30] = 255
    figure = image_row([image, image], ["a", "b"], boxes=[None, np.array([[5, 20, 5, 10]])])
    first, second = figure.axes
    assert [first.get_title(loc="left") or first.get_title(), len(first.patches)] == ["a", 0]
    [outline] = second.patches
    assert outline.get_xy() == (20, 5)
    assert (outline.get_width(), outline.get_height()) == (10, 5)
    assert np.array_equal(np.asarray(second.images[0].get_array()), image)


def test_a_grid_leaves_surplus_axes_empty():
    images = [np.zeros((8, 8), np.uint8)] * 3
    figure = image_row(images, ["a", "b", "c"], columns=2)
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]


def test_examples_outline_all_five_digits(small_data):
    data = MegapixelMNIST(small_data(), "test")
    [ax] = example_row([data], ["x"], 3).axes
    corners = [(patch.get_y(), patch.get_x()) for patch in ax.patches]
    assert corners == [tuple(box[:2].tolist()) for box in data.batch([3]).boxes[0]]


def test_a_map_holds_what_the_network_kept(small_data):
    data = MegapixelMNIST(small_data(), "test")
    config = ModelConfig(width=0.125, n_heads=4, memory_size=3, iter_size=4)
    network = IPSNet(config, dict.fromkeys(data.config.tasks, 10)).train()
    kept, weights = attend(network, data.batch([2]))
    shown = map_of_image(network, data, 2, title="t")
    assert network.training  # looking does not change the mode
    assert np.array_equal(shown.corners, data.grid.corners(kept[0].numpy()))
    torch.testing.assert_close(torch.from_numpy(shown.weights), weights[0].mean(dim=(0, 1)))
    assert shown.weights.sum() == pytest.approx(1)
    assert np.array_equal(shown.image, data.canvas(2))


def test_photographs_are_shown_in_their_colours():
    image = np.zeros((20, 30, 3), np.uint8)
    image[..., 0] = 200
    [ax] = image_row([image], ["a"]).axes
    assert np.array_equal(np.asarray(ax.images[0].get_array()), image)


def test_what_only_fills_a_row_of_boxes_up_is_not_outlined(small_data):
    data = MegapixelMNIST(small_data(), "test")
    batch = data.batch([2])
    batch.boxes[0, 3:] = torch.tensor([-1, -1, 0, 0])
    stand_in = SimpleNamespace(batch=lambda _: batch, canvas=data.canvas, grid=data.grid)
    config = ModelConfig(width=0.125, n_heads=4, memory_size=3, iter_size=4)
    shown = map_of_image(IPSNet(config, dict.fromkeys(data.config.tasks, 10)), stand_in, 2)
    assert np.array_equal(shown.boxes, batch.boxes[0, :3].numpy())
