import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PatchCollection

from ipslib.errors import IpslibError
from ipslib.study.maps import (
    ATTENTION_COLOURS,
    BOX_COLOUR,
    AttentionMap,
    attention_figure,
    attention_values,
    draw_attention_map,
    thicken_strokes,
    tint_patches,
)

matplotlib.use("Agg")
WEIGHTS = np.array([0.1, 0.6, 0.3])
CORNERS = np.array([[0, 0], [10, 30], [20, 20]])


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def rectangles(ax):
    (collection,) = [c for c in ax.collections if isinstance(c, PatchCollection)]
    corners = [path.get_extents().bounds for path in collection.get_paths()]
    return corners, collection.get_edgecolor()


def test_attention_values():
    assert attention_values([0.1, 0.6, 0.3]).tolist() == [0, 1, 0.5]
    assert attention_values([0.2, 0.2, 0.6]).tolist() == [0.25, 0.25, 1]  # ties share their place
    assert attention_values([0.5, 0.5]).tolist() == [0.5, 0.5]
    assert attention_values(WEIGHTS, "linear") == pytest.approx([0.3, 1.8, 0.9])
    assert attention_values(10 * WEIGHTS, "log") == pytest.approx([0.3, 1.8, 0.9])
    with pytest.raises(IpslibError, match="did you mean 'linear'"):
        attention_values(WEIGHTS, "linar")


def test_patches_and_boxes_lie_at_their_pixels():
    _, ax = plt.subplots()
    boxes = np.array([[12, 33, 8, 5]])  # top, left, height, width
    draw_attention_map(ax, np.zeros((40, 50), np.uint8), CORNERS, 10, WEIGHTS, boxes)
    squares, edges = rectangles(ax)
    # x, y, width, height, from least to most attention
    assert squares == [(0, 0, 10, 10), (20, 20, 10, 10), (30, 10, 10, 10)]
    assert np.allclose(edges, ATTENTION_COLOURS([0.0, 0.5, 1.0]))
    (box,) = ax.patches
    assert box.get_bbox().bounds == (33, 12, 5, 8)
    assert box.get_edgecolor() == matplotlib.colors.to_rgba(BOX_COLOUR)
    assert ax.get_xlim() == (0, 50) and ax.get_ylim() == (40, 0)
    assert ax.images[0].get_extent() == [0, 50, 40, 0]


def test_the_tint_fills_exactly_the_patch():
    _, ax = plt.subplots()
    draw_attention_map(ax, np.zeros((40, 50), np.uint8), CORNERS[:1], 10, WEIGHTS[:1], alpha=0.5)
    shown = np.asarray(ax.images[0].get_array())
    tinted = shown.any(axis=2)
    assert tinted[:10, :10].all() and tinted.sum() == 100
    assert np.allclose(shown[0, 0], 127.5 * np.array(ATTENTION_COLOURS(0.5)[:3]), atol=1)


def test_where_patches_overlap_the_most_attended_shows():
    _, ax = plt.subplots()
    image = np.zeros((30, 30), np.uint8)
    corners = np.array([[5, 5], [0, 0]])  # the more attended comes first in the list
    draw_attention_map(ax, image, corners, 10, np.array([0.9, 0.1]))
    shown = np.asarray(ax.images[0].get_array()).astype(int)
    most, least = shown[14, 14], shown[0, 0]
    assert (shown[7, 7] == most).all() and (most != least).any()


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


def test_patches_that_hang_over_the_edge_are_cut_there():
    tinted = tint_patches(
        np.zeros((10, 10), np.uint8), np.array([[8, -2]]), 4, np.ones((1, 4)), alpha=1.0
    )
    assert tinted.any(axis=2).sum() == 2 * 2 and tinted[8:, :2].all()


def test_strokes_of_a_large_canvas_survive_its_reduction():
    canvas = np.zeros((1500, 1500), np.uint8)
    canvas[:, 700] = 255
    thick = thicken_strokes(canvas, 3)
    assert (thick[10] > 0).sum() == 3 and thick[10, 699:702].all()
    assert thick[1::3, 1::3].max() == 255  # seen on any third pixel
    assert thicken_strokes(canvas, 1) is canvas
    photo = np.zeros((20, 20, 3), np.uint8)
    assert thicken_strokes(photo, 3) is photo


def test_a_row_shares_one_colour_bar_that_states_its_scale():
    image = np.zeros((40, 50), np.uint8)
    flat = AttentionMap(image, CORNERS, 10, np.ones(3) / 3, title="flat")
    peaked = AttentionMap(image, CORNERS, 10, WEIGHTS, np.array([[0, 0, 8, 8]]), "peaked")
    figure = attention_figure([flat, peaked], scale="linear")
    left, right, bar = figure.axes
    assert (left.get_title(), right.get_title()) == ("flat", "peaked")
    assert bar.get_ylabel() == "attention, × uniform"
    assert bar.get_ylim() == pytest.approx((0, 1.8))
    assert np.allclose(rectangles(left)[1], ATTENTION_COLOURS(1 / 1.8))  # same colours for both
    assert np.allclose(rectangles(right)[1][-1], ATTENTION_COLOURS(1.0))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["digit"]


@pytest.mark.parametrize(
    ("scale", "label"), [("rank", "attention, rank"), ("log", "attention, × uniform, log")]
)
def test_every_scale_names_itself_and_draws_equal_weights(scale, label):
    image = np.zeros((40, 50), np.uint8)
    figure = attention_figure([AttentionMap(image, CORNERS, 10, np.ones(3) / 3)], scale=scale)
    figure.canvas.draw()
    assert figure.axes[-1].get_ylabel() == label
    assert not figure.legends


def test_weights_that_vanish_are_drawn_as_least_on_a_log_scale():
    _, ax = plt.subplots()
    weights = np.array([0.0, 0.9, 0.1])
    draw_attention_map(ax, np.zeros((40, 50), np.uint8), CORNERS, 10, weights, scale="log")
    assert np.allclose(rectangles(ax)[1][0], ATTENTION_COLOURS(0.0))


def test_what_does_not_fit_together_is_refused():
    _, ax = plt.subplots()
    image = np.zeros((40, 50), np.uint8)
    with pytest.raises(IpslibError, match=r"one weight a kept patch, got corners of \(3, 2\)"):
        draw_attention_map(ax, image, CORNERS, 10, WEIGHTS[:2])
    with pytest.raises(IpslibError, match="no attention map"):
        attention_figure([])
