"""Networks met by another arm's test images."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore
from ipslib.study.arms import ArmRuns
from ipslib.study.tables import long_form
from ipslib.study.transfer import transfer, transfer_map
from tests.tiny import TINY

ARMS = {"thin": TINY.replace(stroke_width=1.0), "none": TINY.replace(n_noise=0, n_patterns=0)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[RecordStore, ArmRuns]:
    store = RecordStore(tmp_path_factory.mktemp("records"))
    records = [train_and_record(config, store) for config in ARMS.values()]
    frame = pd.concat({arm: long_form([r]) for arm, r in zip(ARMS, records, strict=True)})
    frame = frame.reset_index(level=0, names="arm").reset_index(drop=True)
    return store, ArmRuns(records, frame)


def test_every_network_meets_every_arms_test_images(trained):
    store, runs = trained
    found = transfer(store, runs, n_images=4)
    pairs = found[["trained_on", "tested_on"]].drop_duplicates().apply(tuple, axis=1).tolist()
    assert pairs == [("thin", "thin"), ("thin", "none"), ("none", "thin"), ("none", "none")]
    assert len(found) == 4 * 4  # tasks


def test_on_its_own_test_set_a_network_scores_what_its_record_says(trained):
    store, runs = trained
    found = transfer(store, runs, n_images=1000)
    at_home = found[found["trained_on"] == found["tested_on"]].set_index(["id", "task"])
    said = runs.frame.set_index(["id", "task"])
    for measure in ("accuracy", "roi_recall", "roi_recall_random"):
        assert at_home[measure].to_dict() == pytest.approx(said[measure].to_dict())


def test_a_run_without_weights_is_left_out(trained, tmp_path):
    _, runs = trained
    found = transfer(RecordStore(tmp_path), runs, n_images=4)
    assert found.empty and "tested_on" in found


def test_the_map_writes_means_over_seeds_in_percent():
    rows = [
        {"trained_on": a, "tested_on": b, "seed": seed, "task": "majority"}
        | {"accuracy": accuracy + 0.2 * seed, "roi_recall": 0.5}
        for a, b, accuracy in (("x", "x", 0.7), ("x", "y", 0.3), ("y", "x", 0.2), ("y", "y", 0.6))
        for seed in (0, 1)
    ]
    figure = transfer_map(pd.DataFrame(rows))
    accuracy, kept = figure.axes
    assert [text.get_text() for text in accuracy.texts] == ["80", "40", "30", "70"]
    assert {text.get_text() for text in kept.texts} == {"50"}
    assert [tick.get_text() for tick in accuracy.get_yticklabels()] == ["x", "y"]
    plt.close(figure)
