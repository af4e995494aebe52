import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from ipslib.study import thresholds
from ipslib.study.tables import chance_level
from ipslib.study.thresholds import (
    fit_threshold,
    fit_thresholds,
    threshold_table,
)

SIZES = (100, 200, 400, 800, 1600, 3200)


def make_runs(*, half=500, ceiling=0.9, slope=3.0, sizes=SIZES, seeds=1, luck=0.0, chance=0.1):
    random = np.random.default_rng(0)
    n = np.repeat(sizes, seeds)
    accuracy = chance + (ceiling - chance) * expit(slope * np.log(n / half))
    accuracy = np.clip(accuracy + random.normal(0, luck, len(n)), 0, 1)
    return pd.DataFrame({"n_train": n, "accuracy": accuracy, "n_test": 1000})


def test_the_curve_that_made_the_runs_is_found_again():
    fit = fit_threshold(make_runs(), chance=0.1)
    assert fit.n_half == pytest.approx(500, rel=1e-3)
    assert (fit.ceiling, fit.slope) == pytest.approx((0.9, 3.0), rel=1e-3)
    assert fit.n_low < 500 < fit.n_high and not fit.why and fit.n_runs == len(SIZES)
    # no more spread than test images make: the interval is narrow and not empty
    assert 1.005 < fit.n_high / fit.n_low < 1.2
    middle = fit.curve.iloc[(fit.curve["n"] - 500).abs().argmin()]
    assert middle["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert (fit.curve["low"] <= fit.curve["accuracy"]).all()
    assert (fit.curve["accuracy"] <= fit.curve["high"]).all()


@pytest.mark.parametrize("seeds, sizes", [(2, SIZES), (6, (200, 400, 800, 1600))])
def test_the_interval_covers_the_threshold_about_as_often_as_it_says(monkeypatch, seeds, sizes):
    """Drawn about the curve for two seeds, runs drawn anew for six."""
    monkeypatch.setattr(thresholds, "_RESAMPLES", 80)
    random = np.random.default_rng(1)
    covered = []
    for _ in range(20):
        runs = make_runs(seeds=seeds, sizes=sizes)
        runs["accuracy"] = (runs["accuracy"] + random.normal(0, 0.06, len(runs))).clip(0, 1)
        fit = fit_threshold(runs, chance=0.1)
        covered.append(fit.n_low <= 500 <= fit.n_high)
    assert np.mean(covered) >= 0.8


def test_more_luck_makes_a_wider_interval():
    widths = [
        np.log(fit.n_high / fit.n_low)
        for luck in (0.01, 0.05)
        for fit in [fit_threshold(make_runs(luck=luck, seeds=2), chance=0.1)]
    ]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize(
    "runs, words",
    [
        (make_runs(half=5000), "beyond the largest training set, 3200 images"),
        (make_runs(half=30), "the smallest training set, 100 images, is past half-way"),
        (make_runs(ceiling=0.1, luck=0.02, seeds=2), "does not leave chance"),
        (make_runs(sizes=(100, 200), seeds=3), "6 runs of 2 sizes are too few"),
        (make_runs(sizes=(100, 200, 400)), "3 runs of 3 sizes are too few"),
    ],
)
def test_what_the_runs_do_not_show_is_said_and_left_open(runs, words):
    fit = fit_threshold(runs, chance=0.1)
    assert words in fit.why and words in threshold_table({"": fit})["threshold"].item()
    assert np.isnan(fit.n_half)
    assert fit.n_low == 0 or np.isinf(fit.n_high)


def test_an_interval_that_leaves_the_sizes_is_open_on_that_side():
    runs = make_runs(half=1500, slope=1.5, seeds=2, luck=0.05, sizes=(100, 300, 600, 1600))
    fit = fit_threshold(runs, chance=0.1)
    assert np.isinf(fit.n_high) and fit.n_low > 0
    assert not fit.why
    assert "beyond the largest" in threshold_table({"": fit})["threshold"].item()


def test_the_ceiling_stays_at_most_one():
    runs = make_runs().assign(accuracy=[0.1, 0.2, 0.5, 0.9, 1.0, 1.0])
    assert fit_threshold(runs, chance=0.1).ceiling <= 1


def test_a_fit_is_repeatable():
    runs = make_runs(luck=0.05, seeds=2)
    assert fit_threshold(runs, chance=0.1)[:5] == fit_threshold(runs, chance=0.1)[:5]


def test_every_task_has_its_own_floor_and_a_row():
    frame = pd.concat(
        make_runs(chance=chance_level(task)).assign(task=task) for task in ("majority", "max")
    )
    table = threshold_table(fit_thresholds(frame)).set_index("task")
    assert table["n_half"].tolist() == pytest.approx([500, 500], rel=1e-3)
    assert table.loc["max", "threshold"].startswith("500 images (95 % interval 4")
    assert "curve" not in table
