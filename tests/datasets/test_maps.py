"""Images and attention maps: where patches and boxes lie, and what colours say."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ipslib.config import ModelConfig
from ipslib.datasets.images.attention import Attention, attention_of
from ipslib.datasets.maps import (
    SCALES,
    AttentionMap,
    attention_figure,
    attention_values,
    example_row,
    map_of,
    map_of_image,
)
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet

WEIGHTS = np.array([0.1, 0.6, 0.3])
CORNERS = np.array([[0, 0], [10, 30], [20, 20]])
CANVAS = np.zeros((40, 50), np.uint8)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def network_for(data: MegapixelMNIST) -> IPSNet:
    config = ModelConfig(width=0.125, n_heads=4, memory_size=3, iter_size=4)
    return IPSNet(config, dict.fromkeys(data.config.tasks, 10))


def test_attention_values():
    assert attention_values(WEIGHTS).tolist() == [0, 1, 0.5]
    assert attention_values(WEIGHTS, "linear") == pytest.approx([0.3, 1.8, 0.9])
    assert attention_values(10 * WEIGHTS, "log") == pytest.approx([0.3, 1.8, 0.9])
    with pytest.raises(IpslibError, match="'linear'"):
        attention_values(WEIGHTS, "linar")


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_can_be_drawn(scale):
    """Equal weights and one that vanishes too."""
    for weights in (np.ones(3) / 3, WEIGHTS, np.array([0.0, 0.9, 0.1])):
        shown = AttentionMap(CANVAS, CORNERS, 10, weights, np.array([[12, 33, 8, 5]]))
        attention_figure([shown, shown._replace(boxes=None)], scale=scale).canvas.draw()


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(IpslibError, match="corner"):
        attention_figure([AttentionMap(CANVAS, CORNERS, 10, WEIGHTS[:2])])
    with pytest.raises(IpslibError, match="map"):
        attention_figure([])


def test_a_map_holds_what_the_network_kept(small_data):
    data = MegapixelMNIST(small_data(), "test")
    example_row([data], ["x"], 2).canvas.draw()
    network = network_for(data).train()
    seen = attention_of(network, data.batch([2]))
    shown = map_of_image(network, data, 2, title="t", task="top", head=1)
    assert network.training  # looking does not change the mode
    assert np.array_equal(shown.corners, seen.corners)
    assert np.array_equal(shown.weights, seen.mean("top", 1))
    assert np.array_equal(map_of_image(network, data, 2).weights, seen.mean())
    assert np.array_equal(shown.image, data.canvas(2))


def test_a_map_of_a_large_image_shows_it_smaller_and_its_patches_sharp():
    image = np.zeros((3000, 2000, 3), np.uint8)
    image[1000:1100, 500:600] = np.random.RandomState(0).randint(0, 256, (100, 100, 3))
    places, weights = np.array([[0, 0], [1000, 500]]), np.array([[0.4, 0.6]])
    seen = Attention(places, 100, {"a": weights}, {"a": "x"}, {"a": {"x": 1.0}}, {"a": weights.T})
    shown = map_of(image, seen, boxes=places.repeat(2, axis=1))
    assert shown.image.shape == (1500, 1000, 3)
    assert shown.corners.tolist() == [[500, 250], [0, 0]]  # the best first
    assert shown.patch_size == 50
    assert shown.boxes[1].tolist() == [500, 500, 250, 250]
    assert np.array_equal(shown.pictures[0], image[1000:1100, 500:600])
    attention_figure([shown]).canvas.draw()


def test_what_only_fills_a_row_of_boxes_up_is_not_outlined(small_data):
    data = MegapixelMNIST(small_data(), "test")
    batch = data.batch([2])
    batch.boxes[0, 3:] = torch.tensor([-1, -1, 0, 0])
    of_image = SimpleNamespace(batch=lambda _: batch, canvas=data.canvas, grid=data.grid)
    shown = map_of_image(network_for(data), of_image, 2)
    assert np.array_equal(shown.boxes, batch.boxes[0, :3].numpy())
