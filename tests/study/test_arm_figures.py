import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.errors import IpslibError
from ipslib.study import figures
from ipslib.study.arm_figures import arm_colours, arm_dots, attention_against_accuracy
from ipslib.study.arms import arm_table
from ipslib.study.tables import chance_level

matplotlib.use("Agg")
ARMS = ("reference", "second", "third")


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


@pytest.fixture
def frame():
    rows = [
        {
            "arm": arm,
            "id": f"{arm}{seed}",
            "seed": seed,
            "task": task,
            "accuracy": 0.7 - i / 10 + seed / 20 - t / 10 + i * seed / 50,
            "chance": chance_level(task),
            "n_test": 300,
            "roi_recall": 0.6 - i / 10 + seed / 100,
            "roi_recall_random": 0.1 + i / 20,
            "entropy": 0.5,
        }
        for i, arm in enumerate(ARMS)
        for seed in (0, 1)
        for t, task in enumerate(TASKS)
    ]
    return pd.DataFrame(rows)


def panel(figure, task):
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(task))


def test_every_arm_has_a_row_with_its_mean_interval_and_runs(frame):
    figure = arm_dots(frame)
    table = arm_table(frame)
    for task in TASKS:
        ax, rows = panel(figure, task), table[table["task"] == task]
        (means,) = ax.containers
        assert 100 * rows["mean"].to_numpy() == pytest.approx(means.lines[0].get_xdata())
        ends = [stem[:, 0].tolist() for stem in means.lines[2][0].get_segments()]
        assert np.allclose(ends, 100 * rows[["low", "high"]])
        (dots,) = ax.collections[-1:]
        runs = frame[frame["task"] == task]
        assert sorted(dots.get_offsets()[:, 0]) == pytest.approx(sorted(100 * runs["accuracy"]))
        uprights = [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]
        assert any(np.isclose(uprights, 100 * chance_level(task)))
        assert any(np.isclose(uprights, 100 * rows["mean"].iloc[0]))  # the reference's mean
        assert "chance" in ax.get_title(loc="right")
    ax = panel(figure, "majority")
    assert [text.get_text() for text in ax.get_yticklabels()] == list(ARMS)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the reference on top
    assert panel(figure, "top").get_xlabel() == "test accuracy (%)"


@pytest.mark.parametrize("same_scale, words", [(True, "published"), (False, "own scale")])
def test_published_diamonds_say_whose_scale_they_have(frame, same_scale, words):
    theirs = pd.DataFrame({"arm": ["second"], "task": "max", "accuracy": [0.44]})
    figure = arm_dots(frame, published=theirs, tasks=["max"], same_scale=same_scale)
    (ax,) = figure.axes
    (marks,) = [line for line in ax.lines if line.get_marker() == "D"]
    points = marks.get_xydata()
    assert points[np.isfinite(points[:, 0])].tolist() == [[pytest.approx(44), 1]]
    assert figure.legends[0].get_texts()[-1].get_text().endswith(words)


def test_attention_is_drawn_against_accuracy_in_the_arms_colour(frame):
    figure = attention_against_accuracy(frame)
    (ax,) = figure.axes
    assert ax.get_xlabel().endswith("(%)") and ax.get_ylabel() == "test accuracy (%)"
    rows = frame[frame["task"] == "majority"]
    for dots, arm in zip(ax.collections, ARMS, strict=True):
        expected = 100 * rows[rows["arm"] == arm][["roi_recall", "accuracy"]].to_numpy()
        assert np.allclose(dots.get_offsets(), expected)
    ticks = {line.get_xdata()[0] for line in ax.lines if line.get_ydata()[1] == 6}
    assert sorted(ticks) == pytest.approx([10, 15, 20])  # random patches, an arm each
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*ARMS, "random patches"]
    assert len(attention_against_accuracy(frame, tasks=None).axes) == len(TASKS)


def test_arms_with_the_same_random_level_share_a_tick(frame):
    ax = attention_against_accuracy(frame.assign(roi_recall_random=0.12)).axes[0]
    ticks = [line.get_xdata()[0] for line in ax.lines if line.get_ydata()[1] == 6]
    assert ticks == pytest.approx([12])


def test_a_legend_of_many_arms_has_room(frame):
    one = frame[(frame["arm"] == ARMS[0]) & (frame["task"] == "majority")]
    many = pd.concat([one.assign(arm=f"arm {i}") for i in range(24)])
    figure = attention_against_accuracy(many)
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().y0 >= 0
    plt.close(figure)


def test_what_cannot_be_drawn_is_said(frame):
    with pytest.raises(IpslibError, match="did you mean 'majority'"):
        arm_dots(frame, tasks=["majorty"])
    with pytest.raises(IpslibError, match="no attention to draw"):
        attention_against_accuracy(frame.assign(roi_recall=np.nan))


@pytest.mark.parametrize("n", [1, 2, 9, 15])
def test_arms_have_different_colours(n):
    assert len({tuple(np.round(matplotlib.colors.to_rgb(c), 3)) for c in arm_colours(n)}) == n


def test_chance_is_that_of_the_runs_whatever_the_task(frame):
    signs = frame[frame["task"] == "majority"].assign(task="sign", chance=0.659)
    (ax,) = arm_dots(signs).axes
    assert ax.get_title(loc="right") == "chance 66 %"
    (ax,) = attention_against_accuracy(signs, tasks=["sign"], objects="signs").axes
    assert ax.get_xlabel() == "signs touched by a kept patch (%)"
    levels = [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1]
    assert levels == pytest.approx([65.9])
