import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.errors import IpslibError
from ipslib.study import figures
from ipslib.study.arm_figures import arm_colours, arm_dots, attention_against_accuracy
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


def test_every_arm_has_a_row_the_reference_on_top(frame):
    figure = arm_dots(frame)
    for task in TASKS:
        assert (
            panel(figure, task).get_title(loc="right") == f"chance {100 * chance_level(task):.2g} %"
        )
    ax = panel(figure, "majority")
    assert [text.get_text() for text in ax.get_yticklabels()] == list(ARMS)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the reference on top
    assert panel(figure, "top").get_xlabel() == "test accuracy (%)"


@pytest.mark.parametrize("same_scale, words", [(True, "published"), (False, "own scale")])
def test_a_legend_says_whose_scale_published_runs_have(frame, same_scale, words):
    theirs = pd.DataFrame({"arm": ["second"], "task": "max", "accuracy": [0.44]})
    figure = arm_dots(frame, published=theirs, tasks=["max"], same_scale=same_scale)
    assert figure.legends[0].get_texts()[-1].get_text().endswith(words)


def test_attention_is_drawn_against_accuracy_in_a_panel_a_task(frame):
    (ax,) = attention_against_accuracy(frame).axes
    assert ax.get_xlabel().endswith("(%)") and ax.get_ylabel() == "test accuracy (%)"
    figure = attention_against_accuracy(frame, tasks=None)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*ARMS, "random patches"]
    assert len(figure.axes) == len(TASKS)


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
