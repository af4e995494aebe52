from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from ipslib.errors import IpslibError
from ipslib.study.interactions import interaction_in_words, interaction_table, interaction_test

SIZES, RATIOS = (500, 1000, 2000, 4000), (0.001, 0.002, 0.004, 0.008)


def make_runs(interaction, *, seeds=1, luck=0.0, n_test=1000):
    random = np.random.default_rng(0)
    grid = pd.DataFrame(
        list(product(SIZES, RATIOS, range(seeds))), columns=["n_train", "o2i_ratio", "seed"]
    )
    n, o2i = np.log2(grid["n_train"] / 1414), np.log2(grid["o2i_ratio"] / 0.002828)
    odds = 0.2 + 0.8 * n + 0.4 * o2i + interaction * n * o2i + random.normal(0, luck, len(grid))
    grid["accuracy"] = random.binomial(n_test, expit(odds)) / n_test
    return grid.assign(n_test=n_test, task="majority")


@pytest.mark.parametrize("interaction", [-0.2, 0.2])
def test_an_interaction_in_the_runs_is_found_with_its_sign(interaction):
    found = interaction_test(make_runs(interaction))
    assert found.per_both == pytest.approx(interaction, abs=0.05)
    assert (found.per_n, found.per_o2i) == pytest.approx((0.8, 0.4), abs=0.1)
    assert found.both_low < interaction < found.both_high and found.p < 0.01
    who = "small" if interaction < 0 else "large"
    assert f"more images help {who} digits more" in interaction_in_words(found)


def test_the_luck_of_training_widens_the_interval():
    """Runs are lucky or unlucky as a whole, so test images alone make the interval too narrow."""

    def width(luck):
        found = interaction_test(make_runs(0.0, luck=luck))
        return found.both_high - found.both_low

    assert width(0.5) > 4 * width(0.0)


@pytest.mark.parametrize("luck, seeds", [(0.0, 1), (0.4, 1), (0.4, 5)])
def test_no_interaction_is_rarely_called_one(luck, seeds):
    random = np.random.default_rng(1)
    runs, called = make_runs(0.0, seeds=seeds), []
    odds = 0.8 * np.log2(runs["n_train"] / 1414) + 0.4 * np.log2(runs["o2i_ratio"] / 0.0028)
    for _ in range(100):
        lucky = expit(odds + random.normal(0, luck, len(runs)))
        again = runs.assign(accuracy=random.binomial(1000, lucky) / 1000)
        called.append(interaction_test(again).p < 0.05)
    assert np.mean(called) <= 0.1
    assert "cannot be told" in interaction_in_words(interaction_test(make_runs(0.0, luck=0.3)))


def test_errors_are_clustered_by_seed_where_there_are_enough():
    assert interaction_test(make_runs(0.1, seeds=4)).errors == "over-dispersed runs"
    assert interaction_test(make_runs(0.1, seeds=5)).errors == "clustered by seed"
    published = make_runs(0.1).drop(columns="seed")
    assert interaction_test(published).errors == "over-dispersed runs"


def test_runs_without_a_right_answer_keep_finite_odds(recwarn):
    runs = make_runs(0.1)
    runs["accuracy"] = np.where(runs["n_train"] == 500, 0.0, 1.0)
    assert np.isfinite(interaction_test(runs)[:4]).all()
    assert interaction_test(runs.assign(accuracy=0.0)).per_both == pytest.approx(0, abs=1e-6)
    assert not recwarn.list


def test_too_few_runs_are_refused_and_leave_the_table_empty():
    runs = make_runs(0.1)
    for few in (runs[runs["n_train"] == 500], runs[runs["o2i_ratio"] == 0.001], runs.iloc[:4]):
        with pytest.raises(IpslibError, match="two training-set sizes and two object-to-image"):
            interaction_test(few)
        assert interaction_table(few).empty
    assert interaction_table(runs)["task"].tolist() == ["majority"]
