import numpy as np
import pytest

from ipslib.datasets.megapixel_mnist.noise import draw_stroke, random_curve
from ipslib.datasets.megapixel_mnist.randomness import stream
from ipslib.study.strokes import noise_patterns, stroke_table


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
