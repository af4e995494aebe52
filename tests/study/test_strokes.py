import numpy as np
import pytest

from ipslib.datasets.megapixel_mnist.noise import draw_stroke, random_curve
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError
from ipslib.study.strokes import half_loss_width, noise_patterns, stroke_table


def test_patterns_are_drawn_as_the_configuration_says(small_data):
    def pattern_ink(**changes) -> float:
        return noise_patterns(small_data(**changes), 8).mean()

    assert noise_patterns(small_data(noise_size=20), 8).shape == (8, 28, 28)
    assert pattern_ink(stroke_width=1.0) < pattern_ink(stroke_width=3.0)
    assert pattern_ink(noise="bezier_pixel", stroke_width=1.4) == pattern_ink(
        noise="bezier_pixel", stroke_width=1.9
    )


def test_the_table_holds_width_quartiles_and_ink_of_each_kind():
    curves = [random_curve(stream(2, j)) for j in range(12)]
    widths = {"thin": 1.0, "thick": 3.0}
    strokes = {
        label: np.stack([draw_stroke(curve, size=28, stroke_width=w) for curve in curves])
        for label, w in widths.items()
    }
    table = stroke_table(strokes).set_index("arm")
    for label, width in widths.items():
        row = table.loc[label]
        assert row["stroke"] == pytest.approx(width, abs=0.2)
        assert row["stroke_low"] <= row["stroke_high"]
        assert row["ink_percent"] == pytest.approx(100 * strokes[label].mean() / 255)
    assert table.loc["thick", "ink_percent"] > 2 * table.loc["thin", "ink_percent"]


def test_half_of_what_stood_above_chance_is_lost_between_two_widths():
    # 0.9 at the thinnest and a chance of 0.1: the level is 0.5, half way from 0.7 to 0.3.
    assert half_loss_width([1, 2, 3], [0.9, 0.7, 0.3], chance=0.1) == pytest.approx(2.5)
    assert half_loss_width([3, 1, 2], [0.3, 0.9, 0.7], chance=0.1) == pytest.approx(2.5)


def test_the_first_loss_counts_and_not_the_recovery():
    assert half_loss_width([1, 2, 4], [0.9, 0.1, 0.9], chance=0.1) == pytest.approx(1.5)


def test_no_loss_has_no_width():
    assert half_loss_width([1, 2], [0.9, 0.6], chance=0.1) is None
    assert half_loss_width([1], [0.9], chance=0.1) is None
    assert half_loss_width([1, 2], [0.1, 0.05], chance=0.1) is None  # nothing was there to lose
    with pytest.raises(IpslibError, match="wanted one accuracy a width, got 1 of 2"):
        half_loss_width([1, 2], [0.9], chance=0.1)
