from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study.run_figures import (
    arm_dots,
    attention_against_accuracy,
    curve_table,
    grouped_bars,
    learning_curves,
)
from ipslib.study.tables import long_form
from tests.study.made_up import make_record

FOUND = {"roi_recall": 0.6, "roi_recall_random": 0.1, "entropy": 0.5}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def record(digit_size: int, n_train: int, seed: int) -> dict:
    config = run_config({"digit_size": digit_size, "n_train": n_train, "seed": seed})
    made = make_record(config, 0.5 + seed / 50, attention=FOUND, training=(0.1, 0.2, 0.4, 0.8))
    for row in made["history"][1::2]:
        row["test"] = {"accuracy": dict.fromkeys(TASKS, row["train"]["accuracy"]["top"] / 2)}
    return made


@pytest.fixture
def records():
    return [record(*run) for run in product((28, 56), (400, 800), (0, 1, 2))]


@pytest.fixture
def arms(records):
    frame = long_form(records)
    return frame[frame["n_train"] == 400].assign(arm=frame["digit_size"].map("{} px".format))


def test_bars_have_a_panel_a_task(records):
    frame = long_form(records)
    theirs = {"digit_size": [28, 56], "n_train": [400, 800], "task": "top", "accuracy": [0.3, 0.9]}
    for figure in (
        grouped_bars(frame, published=pd.DataFrame(theirs)),
        grouped_bars(frame[frame["n_train"] == 400], bars=None),
        grouped_bars(frame.assign(accuracy=0.7)),  # no spread
    ):
        figure.canvas.draw()
        assert len(figure.axes) == len(TASKS)


def test_a_curve_holds_training_of_every_epoch_and_test_where_it_was_evaluated(records):
    table = curve_table(records, {each["id"]: each["config"]["n_train"] for each in records})
    assert len(table) == len(records) * 4 * len(TASKS)
    rows = table[(table["id"] == records[0]["id"]) & (table["task"] == "max")].set_index("epoch")
    assert set(rows["level"]) == {400} and rows["train"].tolist() == [0.1, 0.2, 0.4, 0.8]
    assert rows["test"].dropna().to_dict() == {2: 0.1, 4: 0.4}
    figure = learning_curves(records[:6])
    figure.canvas.draw()
    assert len(figure.axes) == len(TASKS)


def test_arms_and_attention_have_a_panel_for_each_task_that_is_asked_for(arms):
    theirs = pd.DataFrame({"arm": ["56 px"], "task": "max", "accuracy": [0.44]})
    signs = arms[arms["task"] == "majority"].assign(task="sign", chance=0.659)
    for figure, n_panels in (
        (arm_dots(arms), len(TASKS)),
        (arm_dots(arms, published=theirs, tasks=["max"], same_scale=True), 1),
        (arm_dots(signs), 1),
        (attention_against_accuracy(arms), 1),
        (attention_against_accuracy(arms, tasks=None), len(TASKS)),
        (attention_against_accuracy(signs, tasks=["sign"], objects="signs"), 1),
    ):
        figure.canvas.draw()
        assert len(figure.axes) == n_panels


def test_a_legend_of_many_arms_has_room(arms):
    one = arms[arms["arm"] == "28 px"]
    figure = attention_against_accuracy(pd.concat([one.assign(arm=f"arm {i}") for i in range(24)]))
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().y0 >= 0


def test_what_cannot_be_drawn_is_refused(records, arms):
    for draw, given, word in (
        (learning_curves, records, "digit_size"),  # would be averaged
        (learning_curves, [records[0] | {"history": []}], "histories"),
        (attention_against_accuracy, arms.assign(roi_recall=np.nan), "attention"),
        (lambda frame: arm_dots(frame, tasks=["majorty"]), arms, "'majority'"),
    ):
        with pytest.raises(IpslibError, match=word):
            draw(given)
