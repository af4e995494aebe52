import numpy as np
import pytest

from ipslib.datasets.megapixel_mnist.noise import bezier_curve, draw_stroke, random_control
from ipslib.datasets.synthetic import stream
from ipslib.study.strokes import noise_patterns, stroke_table, stroke_width


def stroke_widths(images):
    return np.array([stroke_width(image) for image in images])


CURVES = [bezier_curve(random_control(stream(3, j))) for j in range(40)]


def drawn(width: float) -> np.ndarray:
    return np.stack([draw_stroke(curve, size=28, stroke_width=width) for curve in CURVES])


@pytest.mark.parametrize("width", [0.5, 1.0, 1.925, 3.0, 5.0])
def test_drawn_widths_are_recovered(width):
    assert stroke_widths(drawn(width)).mean() == pytest.approx(width, abs=0.1)


@pytest.mark.parametrize("width", [1.0, 3.0])
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_a_straight_stroke_is_told_wherever_it_lies_between_pixels(width, slope):
    starts = [np.array([4 + shift / 5, 2.0]) for shift in range(5)]
    along = np.array([90 * slope, 90])
    curves = [bezier_curve(np.stack([start, start + along]) / 112) for start in starts]
    strokes = np.stack([draw_stroke(curve, size=112, stroke_width=width) for curve in curves])
    assert stroke_widths(strokes) == pytest.approx(width, abs=0.2)


def test_of_a_disc_it_is_four_thirds_of_the_radius():
    """The mean distance to the edge of a disc's points is a third of the radius."""
    dot = np.full((2, 2), 0.5)
    disc = draw_stroke(dot, size=64, stroke_width=40)
    assert stroke_widths(disc[None]) == pytest.approx(4 * 20 / 3, rel=0.02)


def test_widths_follow_the_image_turned_and_dimmed():
    strokes = drawn(2.0)
    widths = stroke_widths(strokes)
    assert stroke_widths(np.rot90(strokes, axes=(1, 2))) == pytest.approx(widths, rel=1e-6)
    assert stroke_widths(strokes // 2) == pytest.approx(widths / 2, rel=0.03)


def test_published_strokes_have_two_widths_between_1_and_3_px(small_data):
    def measured(asked: float) -> float:
        patterns = noise_patterns(small_data(noise="bezier_pixel", stroke_width=asked), 20)
        return stroke_widths(patterns).mean()

    assert measured(1.4) == measured(1.925) < measured(2.0) == measured(2.8) < measured(3.0)


def test_the_table_holds_width_quartiles_and_ink_of_each_kind():
    strokes = {"thin": drawn(1.0)[:12], "thick": drawn(3.0)[:12]}
    strokes["thick"][0] = 0  # without ink it has no width
    table = stroke_table(strokes).set_index("arm")
    assert table["stroke"].tolist() == pytest.approx([1, 3], abs=0.2)
    assert (table["stroke_low"] <= table["stroke_high"]).all()
    inks = [100 * images.mean() / 255 for images in strokes.values()]
    assert table["ink_percent"].tolist() == pytest.approx(inks)
