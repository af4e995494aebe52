"""Several comparisons at once: each against its own reference, every run trained once."""

import pandas as pd
import pytest

from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.study.comparisons import (
    comparison_tables,
    effects_in_words,
    published_counterparts,
    run_comparisons,
)

ACCURACY = {10: 0.5, 20: 0.7, 40: 0.3}  # by memory_size


class Study:
    """Gives a made-up record for a run, and counts how often it is asked."""

    def __init__(self):
        self.asked = []

    def config(self, **changes):
        return run_config({"memory_size": 10} | changes)

    def run(self, configs):
        self.asked += [config.id for config in configs]
        return [self._record(config) for config in configs]

    def _record(self, config):
        right = ACCURACY[config.model.memory_size] + config.training.seed / 100
        accuracy = {"majority": right, "top": right / 2}
        found = dict.fromkeys(("roi_recall", "attention_on_digits", "entropy"), 0.5)
        random = dict.fromkeys(("roi_recall_random", "attention_on_digits_random"), 0.1)
        result = dict.fromkeys(("accuracy", "train_accuracy", "best_accuracy"), accuracy)
        return {
            "id": config.id,
            "name": "a run",
            "config": config.flat(),
            "provenance": {},
            "history": [],
            "result": result | {"n_test": 100, "attention": found | random},
        }


COMPARISONS = {
    "one": {"base": {}, "more": {"memory_size": 20}},
    "two": {"more": {"memory_size": 20}, "most": {"memory_size": 40}},
}


def test_runs_keep_their_comparison_and_are_recorded_once():
    study = Study()
    records, frame = run_comparisons(study, COMPARISONS, [0, 1], arm_seeds={"most": [1]})
    assert list(frame.columns[:2]) == ["comparison", "arm"]
    runs = frame[frame["task"] == "majority"]
    places = list(zip(runs["comparison"], runs["arm"], runs["seed"], strict=True))
    assert places == [
        *(("one", arm, seed) for arm in ("base", "more") for seed in (0, 1)),
        ("two", "more", 0),
        ("two", "more", 1),
        ("two", "most", 1),
    ]
    assert len(records) == len({record["id"] for record in records}) == 5
    for _, row in runs.iterrows():
        assert row["memory_size"] == {"base": 10, "more": 20, "most": 40}[row["arm"]]


def test_seeds_for_an_arm_that_is_not_there_are_refused():
    with pytest.raises(IpslibError, match="no arm 'mots'.*most"):
        run_comparisons(Study(), COMPARISONS, [0], arm_seeds={"mots": [1]})


def test_every_comparison_has_its_own_reference():
    _, frame = run_comparisons(Study(), COMPARISONS, [0, 1])
    table = comparison_tables(frame)
    majority = table[table["task"] == "majority"].set_index(["comparison", "arm"])
    assert majority["effect"].isna().to_dict() == {
        ("one", "base"): True,
        ("one", "more"): False,
        ("two", "more"): True,
        ("two", "most"): False,
    }
    assert majority.loc[("one", "more"), "effect"] == pytest.approx(0.2)
    assert majority.loc[("two", "most"), "effect"] == pytest.approx(-0.4)


def test_published_numbers_stay_in_their_comparison():
    _, frame = run_comparisons(Study(), COMPARISONS, [0])
    published = pd.DataFrame(
        {"comparison": ["one", "two"], "arm": "more", "task": "majority", "accuracy": [0.6, 0.8]}
    )
    table = comparison_tables(frame, published=published, same_scale=True)
    rows = table[(table["task"] == "majority") & (table["arm"] == "more")]
    assert rows["published"].tolist() == [0.6, 0.8]
    assert rows["difference"].tolist() == pytest.approx([0.1, -0.1])


def test_effects_in_words_name_each_reference_and_what_stands_against_it():
    _, frame = run_comparisons(Study(), COMPARISONS, [0, 1])
    said = effects_in_words(comparison_tables(frame))
    assert "*one*: **base** reaches 50 %; against it **more** +20 points" in said
    assert "*two*: **more** reaches 70 %; against it **most** −40 points" in said
    alone = frame[frame["arm"] == "base"]
    assert effects_in_words(comparison_tables(alone)) == "*one*: **base** reaches 50 %"


def test_a_counterpart_agrees_in_every_field_asked_for():
    published = pd.DataFrame(
        {"memory_size": [10, 20, 20], "canvas": [3000, 3000, 1500], "accuracy": [0.1, 0.2, 0.3]}
    )
    found = published_counterparts(Study(), COMPARISONS, published, on=["canvas", "memory_size"])
    rows = zip(found["comparison"], found["arm"], found["accuracy"], strict=True)
    assert list(rows) == [("one", "base", 0.1), ("one", "more", 0.2), ("two", "more", 0.2)]
