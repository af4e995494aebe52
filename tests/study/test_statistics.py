import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from ipslib.study.statistics import (
    auc_interval,
    compare_means,
    compare_shares,
    correlation,
    over_seeds,
    seeds_needed,
    share_interval,
    t_interval,
    take_off_epoch,
)

ENDS = ("effect_low", "effect_high")


def test_t_interval_of_known_values():
    # mean 3, sd sqrt(2.5), t of 4 degrees of freedom 2.776: 3 +- 1.963
    low, high = t_interval([1, 2, 3, np.nan, 4, 5])
    assert (low, high) == pytest.approx((3 - 1.9633, 3 + 1.9633), abs=1e-4)
    assert t_interval([0.7, 0.7, 0.7]) == pytest.approx((0.7, 0.7))
    assert np.isnan([t_interval(two) for two in ([0.4, 0.6], [0.4, 0.6, np.nan], [])]).all()


@pytest.mark.parametrize(
    ("effects", "p"),
    [
        ([0.1, 0.15, 0.3, 0.2, 0.4, 0.3], 2 / 2**6),  # all of one sign: the smallest there is
        ([0.1, -0.1, 0.1, -0.1, 0.1, -0.1], 1),
        ([0.1, 0.15, 0.3, 0.2, 0.4], stats.ttest_1samp([0.1, 0.15, 0.3, 0.2, 0.4], 0).pvalue),
        ([0.1, 0.2], np.nan),
    ],
)
def test_signs_are_flipped_from_six_seeds_on_and_two_decide_nothing(effects, p):
    assert over_seeds(effects)["p"] == pytest.approx(p, nan_ok=True)


def test_no_effect_is_shown_where_the_90_percent_interval_lies_within_five_points():
    for effects in ([0.01, 0.02, 0.03, 0.0], [0.02, 0.06, 0.0, 0.03], [0.2, 0.21, 0.22]):
        low, high = stats.ttest_1samp(effects, 0).confidence_interval(0.9)
        assert (over_seeds(effects)["p_none"] < 0.05) == (low > -0.05 and high < 0.05)
    flat = over_seeds([0.0, 0.0, 0.0])
    assert flat["p"] == pytest.approx(1) and flat["p_none"] < 1e-6


def test_shares_of_paired_seeds_are_mcnemars_and_of_others_boschloos():
    half, all_of_them = pd.Series([1, 0, 1, 0, 0, 1, 0, 1, 0, 1]), pd.Series([1] * 10)
    paired = compare_shares(all_of_them, half)
    assert paired["effect"] == -0.5 and paired["p"] == 2 / 2**5
    assert -1 < paired["effect_low"] < -0.5 < paired["effect_high"] < 0
    others = compare_shares(all_of_them.set_axis(range(5, 15)), half)
    assert others["p"] == pytest.approx(stats.boschloo_exact([[5, 10], [5, 0]]).pvalue)
    assert compare_shares(half, half)["p"] == 1


def test_means_are_compared_from_three_runs_an_arm_on():
    arm, reference = [0.8, 0.82, 0.85], [0.7, 0.6, 0.75, 0.72]
    found = compare_means(reference, arm)
    assert found["p"] == stats.ttest_ind(arm, reference, equal_var=False).pvalue
    assert found["effect_low"] < found["effect"] < found["effect_high"]
    assert np.isnan(compare_means(reference, arm[:2])["p"])


@pytest.mark.parametrize(
    ("effect", "sd", "n"),
    [(0, 0.02, 4), (0.02, 0.02, 5), (-0.35, 0.37, 11), (0.05, 0.1, 34), (0, 0.0, np.nan)],
)
def test_seeds_needed_are_those_of_known_power(effect, sd, n):
    assert seeds_needed(effect, sd) == pytest.approx(n, nan_ok=True)
    if effect:  # a paired t test of that size
        power = TTestPower().power(abs(effect) / sd, n, 0.05)
        assert power >= 0.8 or abs(effect) < 0.05
    assert not seeds_needed(effect, sd, level=0.005) < n


def test_where_six_seeds_did_not_do_more_are_asked_than_no_flip_of_signs_could_tell():
    assert seeds_needed(0.3, 0.01, level=0.005) == 3
    assert seeds_needed(0.3, 0.01, level=0.005, more_than=6) == 9  # 2 / 2^9 is below the level


def taking_off(random: np.random.Generator, share: float, shape: tuple) -> np.ndarray:
    """Accuracies of runs that take off, or stay at chance."""
    took_off = random.random(shape) < share
    return np.where(took_off, random.normal(0.8, 0.02, shape), random.normal(0.1, 0.02, shape))


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_over_seeds_covers_the_effect_where_half_of_an_arms_runs_take_off(n):
    random = np.random.default_rng(n)
    effects = taking_off(random, 0.5, (1000, n)) - taking_off(random, 1, (1000, n))
    low, high = np.transpose([t_interval(each) for each in effects])
    assert 0.92 <= ((low <= -0.35) & (high >= -0.35)).mean() <= 0.97


@pytest.mark.parametrize(("n", "share"), [(3, 0.5), (3, 0.9), (5, 0.5), (10, 0.7)])
def test_arms_that_do_not_differ_are_rarely_told_apart_though_runs_may_not_take_off(n, share):
    random = np.random.default_rng(n)
    shape = (300 if n > 5 else 1000, n)
    effects = taking_off(random, share, shape) - taking_off(random, share, shape)
    assert np.mean([over_seeds(each)["p"] < 0.05 for each in effects]) <= 0.06


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n", [5, 10])
def test_intervals_of_shares_cover_them(n, share):
    k = np.arange(n + 1)
    chance, ones = stats.binom.pmf(k, n, share), [pd.Series(np.r_[:n] < each) * 1 for each in k]
    low, high = np.transpose([share_interval(each) for each in ones])
    assert chance[(low <= share) & (share <= high)].sum() >= 0.95
    for other in (1.0, 0.5):  # Newcombe's is a little below nominal where a share is extreme
        weight = np.outer(chance, stats.binom.pmf(k, n, other))
        found = [[compare_shares(b, a) for b in ones] for a in ones]
        low, high = (np.array([[f[end] for f in row] for row in found]) for end in ENDS)
        assert weight[(low <= share - other) & (share - other <= high)].sum() >= 0.91


def test_survivors_means_are_covered():
    random, held = np.random.default_rng(0), []
    for arm, reference in taking_off(random, 0.7, (500, 2, 10)):
        found = compare_means(reference[reference > 0.4], arm[arm > 0.4])
        held.append(found["effect_low"] <= 0 <= found["effect_high"] or np.isnan(found["p"]))
    assert 0.92 <= np.mean(held) <= 0.98


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
    assert auc_interval(1.0, 1, 1) == pytest.approx(proportion_confint(1, 1, method="wilson"))


def test_the_interval_of_an_auc_covers_the_true_area():
    random, true = np.random.default_rng(0), stats.norm.cdf(1.2 / np.sqrt(2))
    held = 0
    for _ in range(400):
        scores = np.r_[random.normal(1.2, 1, 12), random.normal(0, 1, 15)]
        low, high = auc_interval(roc_auc_score([1] * 12 + [0] * 15, scores), 12, 15)
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.99
