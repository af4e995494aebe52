import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ipslib.datasets import synthetic
from ipslib.datasets.registry import run_config
from ipslib.datasets.synthetic import NOTE
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import load_traffic_signs
from ipslib.runs.profiles import load_parameters
from ipslib.study.comparisons import published_counterparts
from ipslib.study.maps import AttentionMap, attention_figure
from ipslib.study.session import Study
from ipslib.study.sign_runs import (
    SETTING,
    confusion,
    confusion_figure,
    marked,
    published_settings,
    published_signs,
    published_strip,
    with_sign,
)
from ipslib.training import build_network, evaluate

matplotlib.use("Agg")
DRAWN = run_config(
    {
        "dataset": "traffic_signs",
        "signs": "standin",
        "standin_shares": "equal",
        "standin_train": 8,
        "standin_test": 12,
        "canvas": [90, 120],
        "patch_size": 30,
        "width": 0.125,
        "n_heads": 4,
        "memory_size": 4,
        "iter_size": 4,
        "batch_size": 5,
    }
)


@pytest.fixture
def test_set(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "project_root", lambda: tmp_path)
    return load_traffic_signs(DRAWN.data, "test")


@pytest.fixture(scope="module")
def published():
    return published_signs()


def test_published_fractions_and_chance_are_those_of_the_sets_tested_on(published):
    by_size = published.groupby("n_test")[["fraction", "chance"]].first()
    assert by_size["fraction"].to_dict() == {169: 0.25, 184: 0.25, 341: 0.5, 684: 1.0}
    expected = {169: 112 / 169, 184: 121 / 184, 341: 225 / 341, 684: 451 / 684}
    assert by_size["chance"].to_dict() == pytest.approx(expected)


def test_diversity_weights_are_those_of_the_names_where_the_log_has_none(published):
    weights = published[published["compared"]].groupby("diversity_weight").size().to_dict()
    assert {w: weights[w] for w in (0.1, 0.25, 0.5, 0.75, 1.0)} == {
        0.1: 5, 0.25: 5, 0.5: 5, 0.75: 5, 1.0: 3,
    }  # fmt: skip


def test_what_cannot_be_compared_is_kept_and_marked(published):
    left_out = published[~published["compared"]]
    assert left_out["note"].ne("").all()
    assert (left_out["n_test"] == 184).any()  # trained on the test set
    assert not published[published["compared"]]["n_test"].eq(184).any()
    plain = published[published["setting"] == "25 %, patch 100, M 10, I 32"]
    assert plain["compared"].sum() == 5 < len(plain)


def test_a_row_a_setting_the_full_one_first(published):
    table = published_settings(published)
    assert table["setting"].is_unique
    first = table.iloc[0]
    assert (first["n_train"], first["n_test"], first["n"]) == (747, 684, 5)
    assert first["mean"] == pytest.approx(0.98333, abs=1e-5)
    assert first["chance"] < first["low"] < first["mean"] < first["best_accuracy"]


def test_the_strip_has_a_row_and_a_mean_for_each_setting(published):
    table = published_settings(published)
    (ax,) = published_strip(published).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == table["setting"].tolist()
    means = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert means == pytest.approx((100 * table["mean"]).tolist())
    plt.close("all")


def test_every_arm_of_paper_is_a_published_setting(published, monkeypatch, tmp_path):
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    values = load_parameters("paper", "11_traffic_signs")
    study = Study("11_traffic_signs", "paper", base=values["base"])
    fit = published[published["compared"]]
    theirs = published_counterparts(study, values["comparisons"], fit, on=SETTING)
    for title, arms in values["comparisons"].items():
        for arm in arms:
            rows = theirs[(theirs["comparison"] == title) & (theirs["arm"] == arm)]
            assert rows["setting"].nunique() == 1, (title, arm)
            assert len(rows) == (3 if arm == "weight 1" else 5)
    ours = fit[fit["encoder"] == "resnet18"]["setting"]
    assert set(theirs["setting"]) == set(ours)


def test_the_confusion_matrix_has_the_recorded_accuracy_on_its_diagonal(test_set):
    network = build_network(DRAWN).eval()
    batch_size = DRAWN.training.batch_size
    counts = confusion([network, network], test_set, batch_size)
    measured = evaluate(network, test_set, batch_size)
    assert counts.sum(axis=1).tolist() == [2 * n for n in test_set.class_counts.values()]
    share = np.trace(counts) / counts.to_numpy().sum()
    assert share == pytest.approx(measured.accuracy["sign"])
    right = np.diag(counts) / counts.sum(axis=1)
    assert right.mean() == pytest.approx(measured.measures["balanced_accuracy"]["sign"])
    figure = confusion_figure(counts)
    shown = [int(text.get_text()) for text in figure.axes[0].texts]
    assert shown == counts.to_numpy().flatten().tolist()
    plt.close("all")


def test_images_with_a_sign_come_one_of_each_class_in_turn(test_set):
    indices = with_sign(test_set)
    labels = [test_set.examples[i].label for i in indices]
    assert labels == [1, 2, 3] * 3 and len(set(indices)) == 9


def test_what_is_drawn_says_so_and_what_is_real_does_not():
    drawn, real = DRAWN.data, TrafficSignsConfig()
    figures = [marked(plt.figure(), data) for data in (drawn, real)]
    assert [figure.get_supxlabel() for figure in figures] == [NOTE, ""]


def test_the_line_covers_neither_a_legend_nor_an_axis():
    attention = AttentionMap(np.zeros((60, 80, 3), np.uint8), np.zeros((1, 2), int), 20, np.ones(1))
    outlined = attention._replace(boxes=np.array([[5, 5, 10, 10]]))
    for figure in (published_strip(published_signs()), attention_figure([outlined] * 3)):
        marked(figure, DRAWN.data).canvas.draw()
        line = figure._supxlabel.get_window_extent()
        others = [figure.legends[0].get_window_extent(), figure.axes[0].get_tightbbox()]
        assert not any(line.overlaps(other) for other in others)
        assert line.y0 >= 0 and line.x0 >= 0
    plt.close("all")
