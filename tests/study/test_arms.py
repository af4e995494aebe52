from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study.arms import (
    arm_table,
    compare_arm,
    headline,
    published_beside,
    run_arms,
    run_comparisons,
)
from ipslib.study.statistics import over_seeds
from ipslib.study.tables import show
from tests.study.made_up import make_record

ARMS = {"reference": {}, "less noise": {"n_noise": 400}, "least noise": {"n_noise": 100}}


def record_of(config: RunConfig, accuracy: float) -> dict:
    """Digits kept are in proportion to the noise."""
    share = config.data.n_noise / 1000
    found = {"roi_recall": share, "roi_recall_random": share / 4, "entropy": 0.7}
    return make_record(config, accuracy, attention=found)


def make_study(accuracy_of) -> SimpleNamespace:
    """Stands in for a Study: what it is asked to run has the accuracy of a function."""
    asked = []

    def run(configs):
        asked.extend(configs)
        return [record_of(config, accuracy_of(config)) for config in configs]

    return SimpleNamespace(config=run_config().replace, run=run, asked=asked)


def scattered(config: RunConfig) -> float:
    """Accuracies that differ by noise count and seed, and not by the same for each."""
    seed, n_noise = config.training.seed, config.data.n_noise
    return 0.8 - n_noise / 2000 + seed / 50 + 0.01 * np.sin(7 * seed + n_noise)


def frame_of(seeds, arms=ARMS) -> pd.DataFrame:
    return run_arms(make_study(scattered), arms, seeds).frame


def rows_of(table: pd.DataFrame, task: str = "majority") -> pd.DataFrame:
    return table[table["task"] == task].set_index("arm")


def test_arms_are_run_on_their_seeds_and_shared_runs_stand_under_both():
    arms = ARMS | {"same as reference": {"n_noise": 800}}
    study = make_study(scattered)
    records, frame = run_arms(study, arms, [0, 1])
    assert len(study.asked) == 8 and len(records) == 6
    assert frame.columns[0] == "arm" and frame["arm"].unique().tolist() == list(arms)
    ids = frame.groupby("arm")["id"].agg(set)
    assert (ids.map(len) == 2).all() and ids["same as reference"] == ids["reference"]


def test_a_comparison_has_its_own_reference_and_an_arm_may_have_its_own_seeds():
    more, most = {"n_noise": 400}, {"n_noise": 100}
    comparisons = {"one": {"base": {}, "more": more}, "two": {"more": more, "most": most}}
    seeds = {"most": [1, 5]}
    records, frame = run_comparisons(make_study(scattered), comparisons, [0, 1], arm_seeds=seeds)
    assert list(frame.columns[:3]) == ["comparison", "arm", "id"] and len(records) == 6
    runs = frame.query("task == 'majority'").set_index(["comparison", "arm"])
    assert runs.loc[("two", "most"), "seed"].tolist() == [1, 5]
    counts = runs["n_noise"].groupby("arm").first()
    assert counts.to_dict() == {"base": 800, "more": 400, "most": 100}
    theirs = published_beside(frame, published(), on=["n_noise"])
    table = arm_table(frame, published=theirs)
    rows = table.query("task == 'majority'").set_index(["comparison", "arm"])
    assert rows["effect"].isna().tolist() == [True, False, True, False]
    alone = arm_table(frame.query("comparison == 'two'").drop(columns="comparison"))
    assert rows.loc[("two", "most"), "effect"] == rows_of(alone).loc["most", "effect"]
    assert rows.loc[("one", "more"), "published_effect"] == pytest.approx(-0.15)


def test_no_arm_and_seeds_of_an_arm_that_is_not_there_are_refused():
    with pytest.raises(IpslibError, match="arms"):
        run_arms(make_study(scattered), {}, [0])
    with pytest.raises(IpslibError, match="arm_seeds.*'reference'"):
        run_comparisons(make_study(scattered), {"one": ARMS}, [0], arm_seeds={"referense": [1]})


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_effects_are_the_arms_own_paired_differences_whatever_the_others(n):
    frame = frame_of(range(n))
    table = arm_table(frame)
    assert table["arm"].tolist() == [arm for arm in ARMS for _ in TASKS]
    runs = frame[frame["task"] == "top"].pivot(index="seed", columns="arm", values="accuracy")
    difference = runs["less noise"] - runs["reference"]
    row = rows_of(table, "top").loc["less noise"]
    columns = ["effect", "effect_low", "effect_high", "p"]
    expected = [over_seeds(difference)[name] for name in columns]
    assert row[columns].tolist() == pytest.approx(expected, nan_ok=True)
    reference = rows_of(table).loc["reference"]
    assert reference[["effect", "effect_low", "p"]].isna().all()


def test_pairs_are_the_seeds_that_both_arms_have():
    seeds = {"less noise": [1, 2, 3], "least noise": [7]}
    frame = run_comparisons(make_study(scattered), {"": ARMS}, [0, 1], arm_seeds=seeds).frame
    rows = rows_of(arm_table(frame))
    runs = frame[frame["task"] == "majority"].set_index(["arm", "seed"])["accuracy"]
    difference = runs["less noise", 1] - runs["reference", 1]
    assert rows.at["less noise", "effect"] == pytest.approx(difference)
    assert rows.at["less noise", "n"] == 3 and np.isnan(rows.at["less noise", "effect_low"])
    assert np.isnan(rows.at["least noise", "effect"])


def test_a_network_is_counted_once():
    arms = ARMS | {"again": {"n_noise": 800}}
    frame = frame_of(range(3), arms)
    table = arm_table(frame)
    assert rows_of(table).at["again", "mean"] == rows_of(table).at["reference", "mean"]
    assert np.isnan(rows_of(table).at["again", "effect"])  # the reference's own runs
    pd.testing.assert_frame_equal(arm_table(pd.concat([frame, frame])), table)
    as_another = frame[frame["arm"] == "less noise"].assign(id=lambda f: f["id"] + " as other")
    with pytest.raises(IpslibError, match="seed"):
        arm_table(pd.concat([frame, as_another]))


def test_an_arm_is_looked_at_in_three_ways():
    frame = frame_of(range(4))
    took_off = (frame["arm"] == "reference") | (frame["seed"] > 0)
    looks = compare_arm(frame.assign(took_off=took_off * 1.0), "less noise")
    assert looks["n"].tolist() == [4, 4, 4, 3, 4, 4]
    assert looks["mean"].tolist()[:2] == [1, 0.75]
    assert looks["effect"].notna().tolist() == [0, 1] * 3
    row = rows_of(arm_table(frame)).loc["less noise"]
    assert looks["effect"].iloc[-1] == pytest.approx(row["effect"])
    unknown = compare_arm(frame.assign(took_off=np.nan), "least noise", reference="less noise")
    assert unknown["arm"].tolist() == ["less noise", "least noise"]


def published() -> pd.DataFrame:
    rows = {"n_noise": [800, 400, 400, 300], "accuracy": [0.9, 0.7, 0.8, 0.1]}
    return pd.DataFrame(rows | {"task": "majority"})


def test_published_effects_are_to_the_published_reference():
    frame = frame_of([0, 1])
    theirs = published_beside(frame, published(), on=["n_noise"])
    assert theirs.groupby("arm").size().to_dict() == {"reference": 1, "less noise": 2}
    rows = rows_of(arm_table(frame, published=theirs))
    assert rows["published"].tolist()[:2] == pytest.approx([0.9, 0.75])
    assert rows["n_published"].tolist() == [1, 2, 0]
    assert rows.at["less noise", "published_effect"] == pytest.approx(-0.15)
    assert np.isnan(rows.at["reference", "published_effect"])
    assert "difference" not in rows
    same = rows_of(arm_table(frame, published=theirs, same_scale=True))
    assert same.at["reference", "difference"] == pytest.approx(same.at["reference", "mean"] - 0.9)
    with pytest.raises(IpslibError, match="'n_noise'"):
        published_beside(frame, published(), on=["n_nose"])


def test_effects_are_differences_to_the_reference_that_was_named():
    frame = frame_of([0, 1])
    there, back = arm_table(frame), arm_table(frame, reference="less noise")
    assert back["arm"].unique().tolist() == ["less noise", "reference", "least noise"]
    effect = rows_of(there).loc["less noise", "effect"]
    assert rows_of(back).loc["reference", "effect"] == pytest.approx(-effect)
    with pytest.raises(IpslibError, match="'reference'"):
        arm_table(frame, reference="referense")


def test_the_headline_shows_one_task_with_effects_in_signed_points():
    frame = frame_of([0, 1, 2])
    theirs = published_beside(frame, published(), on=["n_noise"])
    table = arm_table(frame, published=theirs)
    assert rows_of(table).at["less noise", "roi_recall"] == pytest.approx(0.4)
    balanced = arm_table(frame.assign(balanced_accuracy=0.25))
    assert (headline(balanced)["balanced_accuracy"] == 0.25).all()
    cells = show(headline(table)).cells
    assert cells["arm"].tolist() == list(ARMS)
    assert cells["effect (points)"].str.match(r"^(–|[+−]\d+\.\d)$").all()
    assert " to " in cells["its 95 % interval (points)"].iloc[1]
    assert cells["times random"].tolist() == ["4.0"] * 3
    with pytest.raises(IpslibError, match="'majority'"):
        headline(table, "majorty")
