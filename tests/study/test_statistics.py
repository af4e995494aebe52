import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from sklearn.metrics import roc_auc_score

from ipslib.errors import IpslibError
from ipslib.study.statistics import (
    auc_interval,
    correlation,
    rising_trend,
    sign_flip_p,
    t_interval,
    take_off_epoch,
    wilson_interval,
)


def test_t_interval_of_known_values():
    # mean 3, sd sqrt(2.5), t of 4 degrees of freedom 2.776: 3 +- 1.963
    low, high = t_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 1.9633, 3 + 1.9633), abs=1e-4)
    # two seeds: t of one degree of freedom is 12.706
    assert t_interval([0.4, 0.6])[1] == pytest.approx(0.5 + 12.706 * 0.1, abs=1e-3)
    assert t_interval([0.7, 0.7, 0.7]) == (0.7, 0.7)
    for tells_nothing in ([0.5], [], [0.5, np.nan]):
        with pytest.raises(IpslibError, match="finite"):
            t_interval(tells_nothing)


def test_wilson_interval_of_known_values():
    z = 1.959964
    for n, k in ((169, 152), (1000, 0), (1000, 1000)):
        p = k / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        interval = wilson_interval(p, n)
        assert interval == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1, 0.15, 0.3], 2 / 2**3),  # all of one sign: the smallest there is
        ([0.1, 0.11, 0.12, 0.13, 0.14], 2 / 2**5),
        ([0.1, -0.1, 0.1, -0.1], 1),
    ],
)
def test_signs_of_differences_are_flipped_in_every_way(differences, p):
    assert sign_flip_p(differences) == pytest.approx(p)


def test_rising_trend_of_a_straight_line_in_log_n():
    n = np.array([100, 200, 400, 800, 1600])
    trend = rising_trend(n, 0.1 + 0.12 * np.log2(n / 100))
    assert [trend[f"effect{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.12] * 3)
    assert trend["rho"] == pytest.approx(1)
    assert trend["p"] == pytest.approx(trend["smallest_p"]) == pytest.approx(1 / 120)  # one of 5!
    falling = rising_trend(n, -np.log2(n))
    assert falling["rho"] == pytest.approx(-1) and falling["p"] == pytest.approx(1)
    assert rising_trend([1, 1, 2, 2], [1, 2, 3, 4])["p"] == pytest.approx(1 / 6)  # 4 of 24 as good
    with pytest.raises(IpslibError, match="sizes"):
        rising_trend([5, 5, 5], [0.1, 0.2, 0.3])


def test_no_trend_is_seen_in_a_constant_and_nothing_warns(recwarn):
    flat = rising_trend([1, 1, 2, 2], [0.1, 0.1, 0.1, 0.1])
    assert np.isnan(flat["rho"]) and flat["p"] == 1 and flat["effect"] == pytest.approx(0)
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
    n, *found = correlation(runs, "x", "y").values()
    expected = [plain.statistic, *plain.confidence_interval(0.95)]
    assert n == 16 and found == pytest.approx(expected)
    n, r, low, high = correlation(runs, "x", "y", within=["setting"]).values()
    t = smf.ols("y ~ x + C(setting)", runs).fit()
    partial = t.tvalues["x"] / np.sqrt(t.tvalues["x"] ** 2 + t.df_resid)
    assert (n, r) == pytest.approx((15, partial))  # a setting of one run tells nothing
    assert low < partial < high < 0


def test_correlation_of_too_little_is_blank():
    runs = pd.DataFrame({"x": [1.0, 2.0, np.nan], "y": [0.1, 0.1, 0.2]})
    n, *blank = correlation(runs, "x", "y").values()
    assert n == 2 and np.isnan(blank).all()
    assert correlation(runs, "x", "y", within=["x"])["n"] == 0


def test_the_interval_of_an_auc_holds_it_and_narrows_with_more_slides():
    for auc in (0.3, 0.9):
        (low, high), (nearer, farther) = auc_interval(auc, 6, 6), auc_interval(auc, 49, 80)
        assert 0 < low < nearer < auc < farther < high < 1
    assert auc_interval(1, 6, 6)[0] < auc_interval(1, 49, 80)[0] < 1 == auc_interval(1, 6, 6)[1]
    low, high = auc_interval(0.3, 6, 9)
    assert auc_interval(0.7, 9, 6) == pytest.approx((1 - high, 1 - low))


def test_the_interval_of_one_pair_is_wilsons_of_one_trial():
    """Of one slide of each kind the area is right or wrong, a share of one."""
    assert auc_interval(1.0, 1, 1) == pytest.approx(wilson_interval(1.0, 1))


def test_the_interval_of_an_auc_covers_the_true_area():
    random, true = np.random.default_rng(0), stats.norm.cdf(1.2 / np.sqrt(2))
    held = 0
    for _ in range(400):
        scores = np.r_[random.normal(1.2, 1, 12), random.normal(0, 1, 15)]
        low, high = auc_interval(roc_auc_score([1] * 12 + [0] * 15, scores), 12, 15)
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.99
