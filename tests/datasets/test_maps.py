"""Images and attention maps: where patches and boxes lie, and what colours say."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ipslib.config import ModelConfig
from ipslib.datasets.maps import (
    SCALES,
    AttentionMap,
    attention_figure,
    attention_values,
    example_row,
    image_row,
    map_of_image,
    thicken_strokes,
    tint_patches,
)
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.training import attend

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
    assert attention_values([0.1, 0.6, 0.3]).tolist() == [0, 1, 0.5]
    assert attention_values([0.2, 0.2, 0.6]).tolist() == [0.25, 0.25, 1]  # ties share their place
    assert attention_values([0.5, 0.5]).tolist() == [0.5, 0.5]
    assert attention_values([1.0]).tolist() == [0.5]
    assert attention_values(WEIGHTS, "linear") == pytest.approx([0.3, 1.8, 0.9])
    assert attention_values(10 * WEIGHTS, "log") == pytest.approx([0.3, 1.8, 0.9])
    with pytest.raises(IpslibError, match="did you mean 'linear'"):
        attention_values(WEIGHTS, "linar")


def test_white_strokes_stay_bright_and_photographs_keep_an_even_tint():
    colour = np.array([[0.5, 0.0, 1.0, 1.0]])
    canvas = np.zeros((4, 4), np.uint8)
    canvas[1] = 255
    tinted = tint_patches(canvas, np.array([[0, 0]]), 4, colour, alpha=0.6).astype(int)
    assert tinted[0, 0].tolist() == [76, 0, 153]
    assert tinted[1, 0].min() > 200
    photo = np.full((4, 4, 3), 255, np.uint8)
    tinted = tint_patches(photo, np.array([[0, 0]]), 4, colour, alpha=0.6)
    assert tinted[0, 0].tolist() == [178, 102, 255]
    assert (photo == 255).all()  # the caller's image is left alone


@pytest.mark.parametrize(
    ("corner", "tinted"),
    [((3, 2), np.s_[3:7, 2:6]), ((8, -2), np.s_[8:, :2])],  # one hangs over the edge
)
def test_the_tint_fills_exactly_the_patch(corner, tinted):
    shown = tint_patches(CANVAS[:10, :10], np.array([corner]), 4, np.ones((1, 4)), alpha=1.0)
    wanted = np.zeros((10, 10), bool)
    wanted[tinted] = True
    assert np.array_equal(shown.any(axis=2), wanted)


def test_where_patches_overlap_the_last_shows():
    colours = np.array([[1.0, 0, 0, 1], [0, 1.0, 0, 1]])
    shown = tint_patches(CANVAS, np.array([[0, 0], [5, 5]]), 10, colours, alpha=1.0)
    assert shown[7, 7].tolist() == shown[14, 14].tolist() == [0, 255, 0]
    assert shown[0, 0].tolist() == [255, 0, 0]


def test_strokes_of_a_large_canvas_survive_its_reduction():
    canvas = np.zeros((1500, 1500), np.uint8)
    canvas[:, 700] = 255
    thick = thicken_strokes(canvas, 3)
    assert (thick[10] > 0).sum() == 3 and thick[10, 699:702].all()
    assert thick[1::3, 1::3].max() == 255  # seen on any third pixel
    assert thicken_strokes(canvas, 1) is canvas
    photo = np.zeros((20, 20, 3), np.uint8)
    assert thicken_strokes(photo, 3) is photo


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weights", [np.ones(3) / 3, WEIGHTS, np.array([0.0, 0.9, 0.1])])
def test_every_scale_can_be_drawn(scale, weights):
    """Equal weights and one that vanishes too."""
    boxes = np.array([[12, 33, 8, 5]])
    shown = AttentionMap(CANVAS, CORNERS, 10, weights, boxes, "t")
    figure = attention_figure([shown, shown._replace(boxes=None)], scale=scale)
    figure.canvas.draw()
    assert [ax.get_title("left") or ax.get_title() for ax in figure.axes[:2]] == ["t", "t"]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(IpslibError, match="corner"):
        attention_figure([AttentionMap(CANVAS, CORNERS, 10, WEIGHTS[:2])])
    with pytest.raises(IpslibError, match="no attention map"):
        attention_figure([])


def test_rows_of_images_and_examples_can_be_drawn(small_data):
    photo = np.zeros((20, 30, 3), np.uint8)
    image_row([photo, CANVAS, CANVAS], ["a", "b", "c"], columns=2).canvas.draw()
    example_row([MegapixelMNIST(small_data(), "test")], ["x"], 3).canvas.draw()
    with pytest.raises(ValueError, match="zip"):
        image_row([photo, CANVAS], ["a"])


def test_a_map_holds_what_the_network_kept(small_data):
    data = MegapixelMNIST(small_data(), "test")
    network = network_for(data).train()
    kept, weights = attend(network, data.batch([2]))
    shown = map_of_image(network, data, 2, title="t")
    assert network.training  # looking does not change the mode
    assert np.array_equal(shown.corners, data.grid.corners(kept[0].numpy()))
    torch.testing.assert_close(torch.from_numpy(shown.weights), weights[0].mean(dim=(0, 1)))
    assert shown.weights.sum() == pytest.approx(1)
    assert np.array_equal(shown.image, data.canvas(2))


def test_what_only_fills_a_row_of_boxes_up_is_not_outlined(small_data):
    data = MegapixelMNIST(small_data(), "test")
    batch = data.batch([2])
    batch.boxes[0, 3:] = torch.tensor([-1, -1, 0, 0])
    of_image = SimpleNamespace(batch=lambda _: batch, canvas=data.canvas, grid=data.grid)
    shown = map_of_image(network_for(data), of_image, 2)
    assert np.array_equal(shown.boxes, batch.boxes[0, :3].numpy())
