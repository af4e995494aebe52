import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study.statistics import over_seeds, t_interval
from ipslib.study.tables import (
    beside_published,
    chance_level,
    change_along,
    effects_over_seeds,
    long_form,
    points,
    show,
    summarise,
)
from tests.study.made_up import make_record

FOUND = {"roi_recall": 0.8, "roi_recall_random": 0.1, "entropy": 0.7}


def record(accuracy: float = 0.5, *, training: tuple = (), **fields) -> dict:
    config = run_config({"n_test": 200} | fields)
    return make_record(config, accuracy, attention=FOUND, training=training)


def test_long_form_has_a_row_per_run_and_task():
    records = [record(0.5, seed=0), record(0.6, seed=1, canvas=[300, 200])]
    frame = long_form(records)
    assert len(frame) == 2 * len(TASKS)
    assert set(run_config().flat()) <= set(frame)
    row = frame[(frame["seed"] == 1) & (frame["task"] == "max")].iloc[0]
    measured = row[["accuracy", "train_accuracy", "best_accuracy", "chance"]]
    assert measured.tolist() == pytest.approx([0.59, 0.79, 0.60, chance_level("max")])
    assert row["canvas"] == "300x200" and frame["canvas"].iloc[0] == 3000
    assert row["o2i_ratio"] == pytest.approx(28**2 / 60000)
    assert row["roi_recall"] == 0.8 and np.isnan(row["attention_on_digits"])
    assert np.isnan(long_form([make_record(run_config({}))])["roi_recall"]).all()


def test_summary_over_seeds_and_of_a_single_run():
    several = [record(a, seed=s, n_train=800) for s, a in enumerate((0.4, 0.5, 0.6))]
    summary = summarise(long_form([*several, record(0.7, n_train=400)]), by=["n_train"])
    assert summary["n_train"].unique().tolist() == [800, 400]  # the reference stays first
    majority = summary[summary["task"] == "majority"].set_index("n_train")
    expected = [3, 0.5, 0.1, *t_interval([0.4, 0.5, 0.6])]
    assert majority.loc[800, ["n", "mean", "sd", "low", "high"]].tolist() == pytest.approx(expected)
    assert majority.loc[400, ["sd", "low", "high"]].isna().all()  # one run has no interval
    assert majority.at[400, "chance"] == 0.1
    spread = summarise(long_form([record(a, seed=s) for s, a in enumerate((0.1, 0.9, 0.9))]), by=[])
    assert spread["high"].max() == 1  # the interval is cut to what accuracy can be


def test_a_mean_over_seeds_hides_no_other_difference():
    frame = long_form([record(n_noise=800), record(n_noise=400)])
    with pytest.raises(IpslibError, match="n_noise"):
        summarise(frame, by=["digit_size"])
    assert len(summarise(frame, by=["n_noise"])) == 2 * len(TASKS)
    shared = summarise(long_form([record(), record()]), by=["digit_size"])
    assert (shared["n"] == 1).all()  # one run of two sweeps


def test_a_mistyped_column_and_no_records_are_refused():
    with pytest.raises(IpslibError, match="'n_train'"):
        summarise(long_form([record()]), by=["n_trian"])
    with pytest.raises(IpslibError, match="records"):
        long_form([])


def test_published_numbers_stand_beside_the_same_setting():
    records = [record(0.5, n_train=800), record(0.6, n_train=300)]
    summary = summarise(long_form(records), by=["n_train"])
    rows = {"n_train": [800, 800, 1000], "accuracy": [0.3, 0.5, 0.9], "task": "majority"}
    published = pd.DataFrame(rows)
    table = beside_published(summary, published, on=["n_train"])
    row = table[(table["n_train"] == 800) & (table["task"] == "majority")].iloc[0]
    theirs = row[["published", "n_published", "difference"]]
    assert theirs.tolist() == pytest.approx([0.4, 2, 0.1])
    rest = table.drop(row.name)
    assert rest["published"].isna().all() and (rest["n_published"] == 0).all()
    with pytest.raises(IpslibError, match="digit_size"):
        beside_published(summary, published, on=["digit_size"])


def test_a_change_is_by_a_straight_line_in_doublings_and_of_whole_groups():
    rows = [
        {"seed": seed, "size": size, "n": n, "accuracy": 0.1 * seed + gain * i}
        for seed in (0, 1)
        for size, gain in ((14, 0.2), (28, 0.1))
        for i, n in enumerate((100, 200, 400))
    ]
    frame = pd.DataFrame(rows)
    gains = change_along(frame, "n", by=["size", "seed"])
    expected = {(14, 0): 0.4, (14, 1): 0.4, (28, 0): 0.2, (28, 1): 0.2}
    assert gains.set_index(["size", "seed"])["accuracy"].to_dict() == pytest.approx(expected)
    closing = change_along(gains, "size", by=["seed"])  # the interaction
    assert closing["accuracy"].tolist() == pytest.approx([-0.2, -0.2])
    whole = change_along(frame[1:], "n", by=["size", "seed"])
    assert len(whole) == 3  # the group that lacks a size of training set is left out
    assert change_along(frame[frame["n"] == 100], "n", by=["seed"]).empty
    table = effects_over_seeds(gains.assign(accuracy=[0.1, 0.3, 0.1, 0.2]), by=["size"])
    assert table.set_index("size")["effect"].to_dict() == pytest.approx({14: 0.2, 28: 0.15})
    assert table["n"].tolist() == [2, 2]
    assert list(effects_over_seeds(gains[:0], by=["size"])) == ["size", *over_seeds([])]


def test_a_shown_table_reads_as_text_and_as_html():
    several = [record(a, seed=s, n_train=800) for s, a in enumerate((0.4, 0.5, 0.6))]
    summary = summarise(long_form(several), by=["n_train"])
    published = pd.DataFrame({"n_train": [800], "task": "majority", "accuracy": [0.532]})
    shown = show(beside_published(summary, published, on=["n_train"]), caption="A <caption>")
    lines = repr(shown).splitlines()
    assert lines[0] == "A <caption>"
    assert "mean (%)" in lines[1] and "difference (points)" in lines[1]
    assert "800 majority" in lines[2] and "50.0" in lines[2] and "−3.2" in lines[2]
    assert "25.2 to 74.8" in lines[2]
    assert "800" not in lines[3] and "–" in lines[3]  # printed once; nothing published for max
    html = shown._repr_html_()
    assert "25.2 to 74.8" in html and "A <caption>" not in html


def test_headings_name_what_attention_is_to_find():
    table = pd.DataFrame({"roi_recall": [0.5], "balanced_accuracy": [0.25]})
    assert "digits kept (%)" in repr(show(table))
    signs = repr(show(table, objects="signs"))
    assert "signs kept (%)" in signs and "digits" not in signs
    assert "balanced accuracy (%)" in signs and "25.0" in signs


def test_differences_are_signed_whole_points():
    said = [points(share) for share in (-0.123, -0.0035, 0.996, np.nan)]
    assert said == ["−12 points", "0 points", "+100 points", "–"]
    assert points(-0.7, 0.08) == "−70 to +8 points"


def test_take_off_is_counted_and_its_epoch_is_the_median_of_those_that_did():
    curves = [(0.1, 0.9, 0.9, 0.9), (0.1, 0.1, 0.1, 0.9), (0.1, 0.1, 0.1, 0.2)]
    frame = long_form([record(seed=s, training=each) for s, each in enumerate(curves)])
    majority, largest = (frame[frame["task"] == task] for task in ("majority", "max"))
    assert majority["took_off"].tolist() == [1, 1, 1]
    assert majority["take_off_epoch"].tolist() == [2, 4, 4]
    assert largest["took_off"].tolist() == [1, 1, 0]  # 0.2 is below what "9" always reaches
    assert largest["take_off_epoch"].tolist() == pytest.approx([2, 4, np.nan], nan_ok=True)
    summary = summarise(frame, by=["n_train"]).set_index("task")
    assert summary.loc["max", ["took_off", "take_off_epoch"]].tolist() == pytest.approx([2 / 3, 3])
    published = pd.DataFrame(
        {"n_train": 1000, "task": ["max", "max", "top"], "accuracy": 0.5}
        | {"took_off": [1.0, 1.0, 0.0], "take_off_epoch": [7, 10, np.nan]}
    )
    cells = show(beside_published(summary.reset_index(), published, on=["n_train"])).cells
    cells = cells.set_index("task")
    ours, theirs = (cells[f"{of}took off (%), median epoch"] for of in ("", "published "))
    assert ours["max"] == "66.7, epoch 3"
    assert theirs[["max", "top", "multi"]].tolist() == ["100.0, epoch 8.5", "0.0", "–"]


def test_where_the_size_of_the_training_set_is_unknown_take_off_is_not_told():
    unknown = record(training=(0.1, 0.9))
    del unknown["config"]["n_train"]
    assert "took_off" not in long_form([unknown])
