import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.errors import IpslibError
from ipslib.study import figures, thresholds
from ipslib.study.size_figures import size_map, threshold_curves
from ipslib.study.thresholds import fit_thresholds

matplotlib.use("Agg")
SIZES, DIGITS = (100, 200, 400, 800), (28, 56)
ACCURACY = {100: 0.3, 200: 0.4, 400: 0.7, 800: 0.8}


@pytest.fixture(autouse=True)
def style(monkeypatch):
    monkeypatch.setattr(thresholds, "_RESAMPLES", 20)
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


@pytest.fixture
def frame():
    rows = [
        {
            "task": task,
            "n_train": n,
            "digit_size": digit,
            "o2i_ratio": digit**2 / 1500**2,
            "accuracy": ACCURACY[n] + seed / 50 + digit / 1000,
            "n_test": 300,
        }
        for task in TASKS[:2]
        for n in SIZES
        for digit in DIGITS
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def panel(figure, task):
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(task))


def test_runs_fit_band_and_threshold_are_drawn(frame):
    fits = fit_thresholds(frame)
    figure = threshold_curves(frame, fits)
    for task, fit in fits.items():
        ax = panel(figure, task)
        dots = ax.collections[-1].get_offsets()
        rows = frame[frame["task"] == task]
        assert np.allclose(dots, np.column_stack([rows["n_train"], 100 * rows["accuracy"]]))
        assert any(
            len(line.get_xdata()) == len(fit.curve)
            and np.allclose(line.get_ydata(), 100 * fit.curve["accuracy"])
            for line in ax.lines
        )
        uprights = [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]
        assert uprights == ([] if fit.why else [pytest.approx(fit.n_half)])
        assert ax.get_xscale() == "log" and any("chance" in text.get_text() for text in ax.texts)
    ticks = [text.get_text() for text in panel(figure, "max").get_xticklabels()]
    assert ticks == ["100", "200", "400", "800"]
    assert panel(figure, "max").get_xlabel().startswith("training images")


def test_a_threshold_that_was_not_seen_is_not_drawn(frame):
    flat = frame[frame["task"] == "majority"].assign(accuracy=0.1)
    fits = fit_thresholds(flat)
    assert fits["majority"].why
    ax = panel(threshold_curves(flat, fits), "majority")
    assert not [line for line in ax.lines if len(set(line.get_xdata())) == 1]


@pytest.mark.parametrize("same_scale, words", [(True, "published"), (False, "own scale")])
def test_published_runs_have_their_own_fit_and_diamonds(frame, same_scale, words):
    fits = fit_thresholds(frame)
    figure = threshold_curves(
        frame, fits, published=frame, published_fits=fits, same_scale=same_scale
    )
    ax = panel(figure, "majority")
    (marks,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert len(marks.get_xdata()) == len(frame) / 2
    assert sum(line.get_color() == figures.PUBLISHED for line in ax.lines) >= 1
    assert figure.legends[0].get_texts()[-1].get_text().endswith(words)


def test_the_map_holds_the_means_with_large_objects_on_top(frame):
    figure = size_map(frame)
    ax = panel(figure, "majority")
    values = np.asarray(ax.collections[0].get_array()).reshape(len(DIGITS), len(SIZES))
    for i, digit in enumerate(sorted(DIGITS, reverse=True)):
        for j, n in enumerate(SIZES):
            assert values[i, j] == pytest.approx(100 * (ACCURACY[n] + 0.01 + digit / 1000))
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows == ["56 px\n0.14 %", "28 px\n0.035 %"]
    assert ax.get_title(loc="right") == "chance 10 %"
    assert {text.get_text() for text in ax.texts} >= {"34", "87"}
    assert any("accuracy (%)" in each.get_ylabel() for each in figure.axes)  # the colour bar


def test_an_empty_table_makes_no_map(frame):
    with pytest.raises(IpslibError, match="no task to draw"):
        size_map(frame.iloc[:0])
