"""What the figures of stroke widths show, and where."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from ipslib.study.stroke_figures import accuracy_by_stroke, published_by_width
from ipslib.study.tables import chance_level

DIGITS = pd.Series({"stroke": 2.5, "stroke_low": 2.0, "stroke_high": 3.0})


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def frame() -> pd.DataFrame:
    arms = [("true 1", "bezier", 1.0, 0.8), ("true 3", "bezier", 3.0, 0.4)]
    arms += [("whole 2", "bezier_pixel", 2.4, 0.3)]
    rows = [
        {"arm": arm, "noise": noise, "stroke": stroke, "task": task, "id": f"{arm} {seed}"}
        | {"seed": seed, "accuracy": accuracy + 0.1 * seed, "n_test": 100}
        for arm, noise, stroke, accuracy in arms
        for seed in (0, 1)
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


def lines_by_label(ax) -> dict:
    return {line.get_label(): line for line in ax.lines}


def test_means_stand_at_the_measured_width_one_line_a_kind_of_noise(frame):
    figure = accuracy_by_stroke(frame, DIGITS)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["majority", "top"]
    lines = lines_by_label(figure.axes[0])
    assert lines["true width"].get_xdata().tolist() == [1.0, 3.0]
    assert lines["true width"].get_ydata() == pytest.approx([85, 45])
    assert lines["whole pixels"].get_xdata().tolist() == [2.4]
    scatters = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    dots = np.concatenate([scatter.get_offsets() for scatter in scatters])
    assert sorted(dots[:, 1].round().tolist()) == [30, 40, 40, 50, 80, 90]


def test_the_digits_own_width_is_marked_in_every_panel(frame):
    for ax in accuracy_by_stroke(frame, DIGITS).axes:
        [band] = ax.patches
        assert (band.get_x(), band.get_width()) == (2.0, 1.0)
        assert any(set(line.get_xdata()) == {2.5} for line in ax.lines)


def test_published_runs_are_shown_where_they_are_given(frame):
    published = pd.DataFrame({"task": ["majority"], "stroke": [1.2], "accuracy": [0.7]})
    figure = accuracy_by_stroke(frame, DIGITS, published=published)
    [at] = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert (at.get_xdata().tolist(), at.get_ydata().tolist()) == ([1.2], [70.0])


def test_published_widths_fall_together_where_they_drew_the_same():
    published = pd.DataFrame(
        {"task": "majority", "stroke_width": [1.4, 1.8, 2.0], "accuracy": [0.8, 0.7, 0.1]}
    )
    drawn = {1.4: 1.2, 1.8: 1.2, 2.0: 2.4}
    panels = published_by_width(published, drawn, DIGITS).axes
    left, right = (lines_by_label(ax)["published run"] for ax in panels)
    assert np.asarray(left.get_xdata()).tolist() == [1.4, 1.8, 2.0]
    assert np.asarray(right.get_xdata()).tolist() == [1.2, 1.2, 2.4]
    assert np.asarray(right.get_ydata()).tolist() == pytest.approx([80, 70, 10])
    for ax in panels:
        level = 100 * chance_level("majority")
        assert any(set(np.asarray(line.get_ydata())) == {level} for line in ax.lines)
