import pandas as pd
import pytest

from ipslib.errors import IpslibError
from ipslib.study.arms import arm_table
from ipslib.study.contrast import found_digits, found_in_words, table_against


@pytest.fixture
def frame() -> pd.DataFrame:
    scores = {"a": (0.5, 0.6), "b": (0.7, 0.9), "c": (0.4, 0.4)}
    rows = [
        {"arm": arm, "id": f"{arm}{seed}", "seed": seed, "task": "majority", "accuracy": accuracy}
        | {"chance": 0.1, "n_test": 100, "roi_recall": 0.9, "roi_recall_random": 0.2}
        | {"entropy": 0.5}
        for arm, of_seeds in scores.items()
        for seed, accuracy in enumerate(of_seeds)
    ]
    return pd.DataFrame(rows)


def test_effects_are_differences_to_the_arm_that_was_named(frame):
    table = table_against(frame, "b").set_index("arm")
    assert list(table.index) == ["b", "a", "c"]
    assert table.loc["a", "effect"] == pytest.approx(-0.25)
    assert table.loc["c", "effect"] == pytest.approx(-0.4)
    from_first = arm_table(frame).set_index("arm")
    assert table.loc["a", "effect_low"] == pytest.approx(-from_first.loc["b", "effect_high"])
    with pytest.raises(IpslibError, match="there is no arm 'd'"):
        table_against(frame, "d")


def test_found_is_half_of_what_chance_would_miss():
    shares = {"roi_recall": [0.61, 0.59, 0.2, 1.0], "roi_recall_random": [0.2, 0.2, 0.2, 0.8]}
    assert found_digits(pd.DataFrame(shares)).tolist() == [True, False, False, True]


def test_runs_that_found_nothing_are_told_with_what_the_rest_of_their_arm_scores(frame):
    assert found_in_words(frame) == "all 6 runs found the digits"
    frame.loc[frame["id"].isin(["b0", "c0", "c1"]), "roi_recall"] = 0.2
    assert found_in_words(frame) == (
        "3 of 6 runs found the digits; not so 1 of 2 of *b* (the rest 90 %), 2 of 2 of *c*"
    )
