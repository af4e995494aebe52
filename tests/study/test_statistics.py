import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from ipslib.errors import IpslibError
from ipslib.study.statistics import (
    bootstrap_interval,
    correlation,
    paired_difference,
    rising_trend,
    t_interval,
    take_off_epoch,
    wilson_interval,
)


def test_t_interval_of_known_values():
    # mean 3, sd sqrt(2.5), t of 4 degrees of freedom 2.776: 3 +- 1.963
    low, high = t_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 1.9633, 3 + 1.9633), abs=1e-4)
    # two seeds: t of one degree of freedom is 12.706
    assert t_interval([0.4, 0.6]).high == pytest.approx(0.5 + 12.706 * 0.1, abs=1e-3)
    assert t_interval([0.7, 0.7, 0.7]) == (0.7, 0.7)


def test_wilson_interval_of_known_values():
    z = 1.959964
    for n, k in ((169, 152), (1000, 0), (1000, 1000)):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        interval = wilson_interval(p, n)
        assert interval == pytest.approx((centre - half, centre + half), abs=1e-6)
        assert 0 <= interval.low <= p <= interval.high <= 1


def test_intervals_cover_the_mean_about_as_often_as_they_say():
    random = np.random.default_rng(3)
    samples = random.normal(0.5, 0.1, (300, 8))
    covered = [low <= 0.5 <= high for low, high in map(t_interval, samples)]
    assert 0.90 <= np.mean(covered) <= 0.99
    low, high = bootstrap_interval(random.normal(0.5, 0.1, 400))
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.2)


def test_bootstrap_interval_is_repeatable_and_stays_within_the_sample():
    values = [0.1, 0.2, 0.25, 0.9]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert 0.1 <= bootstrap_interval(values).low <= bootstrap_interval(values).high <= 0.9
    assert bootstrap_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)


def test_paired_difference_pairs_by_seed_and_counts_sign_flips():
    a = pd.Series([0.9, 0.5, 0.7], index=[2, 0, 1])
    b = pd.Series([0.4, 0.55, 0.6, 0.99], index=[0, 1, 2, 7])
    found = paired_difference(a, b)
    assert found.n == 3
    assert found.mean == pytest.approx((0.1 + 0.15 + 0.3) / 3)
    assert (found.low, found.high) == pytest.approx(t_interval([0.1, 0.15, 0.3]))
    assert found.p == pytest.approx(2 / 2**3)  # all differences of one sign: the smallest there is
    five = pd.Series(np.arange(5) / 10)
    assert paired_difference(five + 0.1 + five / 10, five).p == pytest.approx(2 / 2**5)
    mixed = pd.Series([0.1, -0.1, 0.1, -0.1])
    assert paired_difference(mixed, 0 * mixed).p == pytest.approx(1)


def test_paired_difference_refuses_what_cannot_be_paired():
    a = pd.Series([0.1, 0.2], index=[0, 1])
    with pytest.raises(IpslibError, match="occurs twice"):
        paired_difference(pd.Series([0.1, 0.2], index=[0, 0]), a)
    with pytest.raises(IpslibError, match="two seeds or more in both arms, got 1"):
        paired_difference(a, pd.Series([0.1, 0.2], index=[1, 2]))


def test_rising_trend_of_a_straight_line_in_log_n():
    n = np.array([100, 200, 400, 800, 1600])
    trend = rising_trend(n, 0.1 + 0.12 * np.log2(n / 100))
    assert trend.rho == pytest.approx(1)
    assert trend.per_doubling == pytest.approx(0.12)
    assert (trend.low, trend.high) == pytest.approx((0.12, 0.12))
    assert trend.p == pytest.approx(1 / 120)  # one order of 5! is as good
    falling = rising_trend(n, -np.log2(n))
    assert falling.rho == pytest.approx(-1) and falling.p == pytest.approx(1)


def test_rising_trend_sees_none_where_there_is_none():
    random = np.random.default_rng(0)
    n = np.repeat([100, 200, 400, 800], 5)
    p = [rising_trend(n, random.normal(size=20)).p for _ in range(20)]
    assert 0.2 < np.mean(p) < 0.8


@pytest.mark.parametrize("values", [[0.5], [], [0.5, np.nan]])
def test_samples_that_tell_nothing_are_refused(values):
    for interval in (t_interval, bootstrap_interval):
        with pytest.raises(IpslibError, match="wanted 2 finite values"):
            interval(values)


def test_a_trend_says_how_small_its_p_can_be():
    perfect = rising_trend([1, 1, 2, 2], [0.1, 0.2, 0.3, 0.4])
    assert perfect.smallest_p == pytest.approx(1 / 6)  # of 24 pairings 4 are as good
    assert perfect.p == pytest.approx(perfect.smallest_p)
    assert rising_trend([1, 2, 3, 4], [1, 2, 3, 4]).smallest_p == pytest.approx(1 / 24)
    with pytest.raises(IpslibError, match="two sizes"):
        rising_trend([5, 5, 5], [0.1, 0.2, 0.3])


def test_no_trend_is_seen_in_a_constant_and_nothing_warns(recwarn):
    flat = rising_trend([1, 1, 2, 2], [0.1, 0.1, 0.1, 0.1])
    assert np.isnan(flat.rho) and flat.p == 1 and flat.per_doubling == pytest.approx(0)
    assert not recwarn


def test_a_constant_answer_rarely_takes_off_and_one_image_more_than_luck_does():
    least = int(stats.binom.ppf(0.999, 1000, 0.1))
    assert stats.binom.sf(least, 1000, 0.1) < 0.001 <= stats.binom.sf(least - 1, 1000, 0.1)
    bound = {"n_train": 1000, "share": 0.1}
    assert np.isnan(take_off_epoch([1], [least / 1000], **bound))
    assert take_off_epoch([1], [(least + 1) / 1000], **bound) == 1


@pytest.mark.parametrize(
    ("epochs", "accuracy", "expected"),
    [
        ([1, 2, 3, 4], [0.1, 0.1, 0.5, 0.9], 3),
        ([1, 2, 3, 4], [0.5, 0.1, 0.5, 0.9], 3),  # once, and lost again, is not yet
        ([1, 2, 3], [0.5, 0.9, 0.1], np.nan),  # the end decides
        ([1, 2, 30], [0.1, 0.1, 0.5], 30),  # where a log has a gap, the first epoch that it tells
        ([], [], np.nan),
    ],
)
def test_take_off_is_the_first_epoch_from_which_it_holds_to_the_end(epochs, accuracy, expected):
    found = take_off_epoch(epochs, accuracy, n_train=200, share=0.1)
    assert found == pytest.approx(expected, nan_ok=True)


def test_correlation_within_settings_is_that_of_a_model_with_a_level_for_each():
    random = np.random.default_rng(0)
    runs = pd.DataFrame({"setting": np.repeat(list("abcd"), [6, 5, 4, 1]), "x": random.random(16)})
    runs["y"] = random.random(16) - runs["x"] + runs["setting"].map(ord)
    plain = stats.pearsonr(runs["x"], runs["y"])
    found = correlation(runs, "x", "y")
    assert found[:2] == pytest.approx((16, plain.statistic))
    assert found[2:] == pytest.approx(plain.confidence_interval(0.95))
    within = correlation(runs, "x", "y", within=["setting"])
    t = smf.ols("y ~ x + C(setting)", runs).fit()
    partial = t.tvalues["x"] / np.sqrt(t.tvalues["x"] ** 2 + t.df_resid)
    assert within[:2] == pytest.approx((15, partial))  # a setting of one run tells nothing
    assert within.r_low < partial < within.r_high < 0


def test_correlation_of_too_little_is_blank():
    runs = pd.DataFrame({"x": [1.0, 2.0, np.nan], "y": [0.1, 0.1, 0.2]})
    assert correlation(runs, "x", "y") == pytest.approx((2, np.nan, np.nan, np.nan), nan_ok=True)
    assert correlation(runs, "x", "y", within=["x"]).n == 0
