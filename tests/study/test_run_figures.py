from itertools import product

import numpy as np
import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study.run_figures import (
    arm_dots,
    attention_against_accuracy,
    curve_table,
    learning_curves,
)
from ipslib.study.tables import long_form
from tests.study.made_up import make_record

FOUND = {"roi_recall": 0.6, "roi_recall_random": 0.1, "entropy": 0.5}


def record(digit_size: int, n_train: int, seed: int) -> dict:
    config = run_config({"digit_size": digit_size, "n_train": n_train, "seed": seed})
    made = make_record(config, 0.5 + seed / 50, attention=FOUND, training=(0.1, 0.2, 0.4, 0.8))
    for row in made["history"][1::2]:
        row["test"] = {"accuracy": dict.fromkeys(TASKS, row["train"]["accuracy"]["top"] / 2)}
    return made


@pytest.fixture
def records():
    return [record(*run) for run in product((28, 56), (400, 800), (0, 1, 2))]


def test_a_curve_holds_training_of_every_epoch_and_test_where_it_was_evaluated(records):
    table = curve_table(records, {each["id"]: each["config"]["n_train"] for each in records})
    assert len(table) == len(records) * 4 * len(TASKS)
    rows = table[(table["id"] == records[0]["id"]) & (table["task"] == "max")].set_index("epoch")
    assert set(rows["level"]) == {400} and rows["train"].tolist() == [0.1, 0.2, 0.4, 0.8]
    assert rows["test"].dropna().to_dict() == {2: 0.1, 4: 0.4}


def test_what_cannot_be_drawn_is_refused(records):
    arms = long_form(records[:3]).assign(arm="reference")
    for draw, given, word in (
        (learning_curves, records, "digit_size"),  # would be averaged
        (learning_curves, [records[0] | {"history": []}], "histories"),
        (attention_against_accuracy, arms.assign(roi_recall=np.nan), "attention"),
        (lambda frame: arm_dots(frame, tasks=["majorty"]), arms, "'majority'"),
    ):
        with pytest.raises(IpslibError, match=word):
            draw(given)
