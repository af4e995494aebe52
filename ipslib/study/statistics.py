"""The study's intervals and tests, through scipy and statsmodels.

Accuracies are shares in 0..1. A sample is one value per training seed, so an interval over seeds
says what another seed would give; a Wilson interval says what other test images would give.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import optimize, special, stats
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

from ipslib.errors import IpslibError

CONFIDENCE = 0.95
SEEDS_WITH_OWN_SPREAD = 5  # with fewer, settings share their spread
_RESAMPLES = 9999
_N_TERMS = 4  # of the interaction model
_LEAST_SPREAD = 1e-12  # where no spread was seen, scipy's bounds would be nan
_AT_THE_ROOT = 1e-12  # an area of 1 is a root by itself
_BY_LUCK = 0.999  # quantile of what a constant answer scores


class Interval(NamedTuple):
    low: float
    high: float


class Spread(NamedTuple):
    """Values of one setting over seeds; `interval` says how the bounds of the mean were made."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    interval: str


class PairedDifference(NamedTuple):
    """Mean of `a - b` over the seeds that both arms have, its t interval, and the p value."""

    n: int
    mean: float
    low: float
    high: float
    p: float


class Trend(NamedTuple):
    """Spearman's rho with its p value, and the rise per doubling of n with its interval."""

    rho: float
    p: float
    smallest_p: float  # what the test could have given at best, with so few runs
    per_doubling: float
    low: float
    high: float


class Interaction(NamedTuple):
    """Log odds per doubling of n, of O2I, and of both; the bounds and `p` are those of both."""

    per_n: float
    per_o2i: float
    per_both: float
    both_low: float
    both_high: float
    p: float
    n_runs: int
    errors: str


class Correlation(NamedTuple):
    """Pearson's r over `n` runs with its interval, blank where too few are left to tell."""

    n: int
    r: float
    r_low: float
    r_high: float


def take_off_epoch(
    epochs: Sequence[int], accuracy: Sequence[float], *, n_train: int, share: float
) -> float:
    """The epoch at which learning takes off: the first from which on, to the last, training
    accuracy lies above what a constant answer reaches by luck (binomial, p < 0.001).

    Args:
        epochs: in their order; accuracy: on the training set in each.
        n_train: images in the training set.
        share: of the most frequent answer. The study takes the share that the task's rule gives
            it, for own and published runs alike, so that a record tells it without its data; in
            every published training set the most frequent answer itself stays below the bound.

    Returns:
        The epoch, nan where the last is not above: the run did not take off.
    """
    least = stats.binom.ppf(_BY_LUCK, n_train, share)
    n_right = np.rint(np.asarray(accuracy, float) * n_train)  # logs round to four digits
    epoch = np.nan
    for at, right in zip(reversed(epochs), reversed(n_right), strict=True):
        if not right > least:
            break
        epoch = float(at)
    return epoch


def correlation(frame: pd.DataFrame, x: str, y: str, *, within: Sequence[str] = ()) -> Correlation:
    """Pearson's r of two columns with Fisher's interval.

    Args:
        frame: one row per run; rows where x or y is blank are left out.
        within: columns that make a setting: r is then of the deviations from each setting's mean,
            over the settings of two runs or more, and every setting costs a degree of freedom.
    """
    runs = frame.dropna(subset=[x, y])
    setting = runs.groupby(list(within) or np.zeros(len(runs)), dropna=False)
    left = runs[[x, y]] - setting[[x, y]].transform("mean")
    left = left[setting[x].transform("size") > 1]
    n, freedom = len(left), len(left) - int((setting.size() > 1).sum()) - 2
    if n < 2 or (left.abs().max() < _LEAST_SPREAD).any():
        return Correlation(n, np.nan, np.nan, np.nan)
    r, low, high = float(left[x].corr(left[y])), np.nan, np.nan
    if freedom > 0 and abs(r) < 1:
        reach = stats.norm.ppf((1 + CONFIDENCE) / 2) / np.sqrt(freedom)
        low, high = map(float, np.tanh([np.arctanh(r) - reach, np.arctanh(r) + reach]))
    return Correlation(n, r, low, high)


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean over seeds; needs two values or more."""
    values = _sample(values, at_least=2)
    if np.ptp(values) == 0:  # no spread seen: scipy's would be nan
        return Interval(float(values[0]), float(values[0]))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return Interval(float(low), float(high))


def wilson_interval(accuracy: float, n: int) -> Interval:
    """Wilson's score interval of one run's accuracy on n test images."""
    n_right = round(accuracy * n)
    proportion = stats.binomtest(n_right, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(proportion.low), float(proportion.high))


def spread_over_seeds(values: Sequence[float], *, n_test: int | None = None) -> Spread:
    """Mean, standard deviation and 95 % interval of shares in 0..1, one a seed, blanks left out.

    The interval is Student's t over seeds. One value has Wilson's on its `n_test` images, and none
    where that is no count. It is cut to 0..1.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    n, low, high, interval = len(values), np.nan, np.nan, ""
    if n > 1:
        (low, high), interval = t_interval(values), f"t, {n} seeds"
    elif n == 1 and n_test:
        (low, high), interval = wilson_interval(values[0], n_test), f"Wilson, {n_test} images"
    mean, sd = values.mean() if n else np.nan, values.std(ddof=1) if n > 1 else np.nan
    return Spread(n, mean, sd, max(low, 0.0), min(high, 1.0), interval)


def pooled_intervals(n: pd.Series, mean: pd.Series, sd: pd.Series) -> pd.DataFrame:
    """95 % t intervals, columns `low` and `high`, of means that share one spread.

    The spread within settings is pooled over all of them: two seeds tell none of their own. It
    takes the settings to vary alike from seed to seed. A setting is a row of two values or more.
    """
    freedom = n - 1
    spread = np.sqrt((freedom * sd**2).sum() / freedom.sum())
    error = np.maximum(spread, _LEAST_SPREAD) / np.sqrt(n)
    low, high = stats.t.interval(CONFIDENCE, freedom.sum(), loc=mean, scale=error)
    return pd.DataFrame({"low": low, "high": high}, index=n.index)


def paired_difference(a: pd.Series, b: pd.Series) -> PairedDifference:
    """Compare two arms seed by seed.

    The p value is two-sided, from flipping the signs of the differences: all 2^n ways up to 13
    seeds, random ones beyond. With n seeds it cannot fall below 2 / 2^n: 0.25 for 3, 0.06 for 5.

    Args:
        a, b: one value per run, indexed by seed; seeds that only one arm has are left out.

    Raises:
        IpslibError: a seed occurs twice in an arm, or fewer than two seeds are shared.
    """
    for arm in (a, b):
        if not arm.index.is_unique:
            twice = arm.index[arm.index.duplicated()][0]
            raise IpslibError(f"seed {twice} occurs twice in one arm; select one setting an arm.")
    shared = a.index.intersection(b.index)
    if len(shared) < 2:
        raise IpslibError(
            f"wanted two seeds or more in both arms, got {len(shared)}; "
            f"a has seeds {list(a.index)}, b has {list(b.index)}."
        )
    difference = (a[shared] - b[shared]).to_numpy(float)
    flips = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    interval = t_interval(difference)
    return PairedDifference(len(shared), float(difference.mean()), *interval, float(flips.pvalue))


def rising_trend(n: Sequence[float], accuracy: Sequence[float]) -> Trend:
    """Test whether accuracy rises with n, such as the number of training images.

    Args:
        n: a positive size for each run; accuracy: that run's accuracy.

    Returns:
        Spearman's rho with a one-sided permutation p value (small when accuracy rises), and the
        slope of a straight line in log2(n): accuracy gained per doubling, with its t interval.
    """
    n, accuracy = _sample(n, at_least=3), _sample(accuracy, at_least=3)
    sizes, n_runs = np.unique(n, return_counts=True)
    if len(sizes) < 2:
        raise IpslibError(f"wanted two sizes or more to see a trend, got only {sizes[0]:g}.")
    rank, other = stats.rankdata(n), stats.rankdata(accuracy)
    test = stats.permutation_test(
        (rank,),
        lambda shuffled, axis: np.sum(shuffled * other, axis=axis),  # grows as rho does
        permutation_type="pairings",
        vectorized=True,
        alternative="greater",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    line = sm.OLS(accuracy, sm.add_constant(np.log2(n))).fit()
    low, high = line.conf_int(1 - CONFIDENCE)[1]
    rho = stats.spearmanr(n, accuracy).statistic if np.ptp(accuracy) else np.nan
    smallest = np.prod(special.factorial(n_runs)) / special.factorial(len(n))
    return Trend(*map(float, (rho, test.pvalue, smallest, line.params[1], low, high)))


def interaction_test(runs: pd.DataFrame) -> Interaction:
    """Do more training images help small objects more, or large ones, in one task's runs?

    A binomial model of each run's count of right answers on its test images:

        logit p(right) = a + b log2(n_train) + c log2(O2I) + d log2(n_train) log2(O2I)

    Both logarithms are centred, so that b and c hold in the middle of the grid. d < 0: doubling
    the training set helps small objects more, so that they catch up; d > 0: it helps large ones.

    Answers of one run are right or wrong together, so that a binomial's own errors are too small.
    With five seeds or more, errors are clustered by seed (t with one degree of freedom fewer than
    seeds). With fewer, they are widened by the runs' own over-dispersion (Pearson's, at least 1),
    which knows nothing of what runs of one seed share. Half a right and half a wrong answer are
    added to each run, so that a run without either has odds. The logit has no floor at chance:
    near chance it sees less than there is.

    Args:
        runs: one row per run, columns n_train, o2i_ratio, accuracy, n_test, and seed where known.

    Raises:
        IpslibError: fewer than two sizes or ratios, or no more runs than terms.
    """
    runs = runs.dropna(subset=["accuracy"])
    n_sizes, n_ratios = runs["n_train"].nunique(), runs["o2i_ratio"].nunique()
    if min(n_sizes, n_ratios) < 2 or len(runs) <= _N_TERMS:
        raise IpslibError(
            "wanted runs of two training-set sizes and two object-to-image ratios or more, "
            f"{_N_TERMS + 1} in all, got {len(runs)} of {n_sizes} and {n_ratios}."
        )
    n, o2i = (np.log2(runs[name].astype(float)) for name in ("n_train", "o2i_ratio"))
    right = runs["accuracy"] * runs["n_test"]
    data = pd.DataFrame({"n": n - n.mean(), "o2i": o2i - o2i.mean()})
    data = data.assign(right=right + 0.5, wrong=runs["n_test"] - right + 0.5)
    model = smf.glm("right + wrong ~ n * o2i", data, family=sm.families.Binomial())
    by_seed = "seed" in runs and runs["seed"].nunique() >= SEEDS_WITH_OWN_SPREAD
    with warnings.catch_warnings():  # runs that agree exactly are no cause for alarm
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        if by_seed:
            groups = {"groups": pd.factorize(runs["seed"])[0]}
            fit = model.fit(cov_type="cluster", cov_kwds=groups, use_t=True)
        else:
            fit = model.fit()
            fit = model.fit(scale=max(1.0, fit.pearson_chi2 / fit.df_resid), use_t=True)
    low, high = fit.conf_int(1 - CONFIDENCE).loc["n:o2i"]
    numbers = map(float, (*fit.params.iloc[1:], low, high, fit.pvalues["n:o2i"]))
    errors = "clustered by seed" if by_seed else "over-dispersed runs"
    return Interaction(*numbers, len(runs), errors)


def interaction_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a task: its `interaction_test`; no rows where the runs are too few for it."""
    rows = []
    for task, runs in frame.groupby("task", sort=False):
        try:
            rows.append({"task": task} | interaction_test(runs)._asdict())
        except IpslibError:
            continue
    return pd.DataFrame(rows, columns=["task", *Interaction._fields])


def _sample(values: Sequence[float], *, at_least: int) -> np.ndarray:
    sample = np.asarray(values, float)
    if len(sample) < at_least or not np.isfinite(sample).all():
        raise IpslibError(f"wanted {at_least} finite values or more, got {sample.tolist()}.")
    return sample


def auc_interval(auc: float, n_positive: int, n_negative: int) -> tuple[float, float]:
    """95 % interval of an area under the ROC curve: what other slides would give.

    The variance of Hanley and McNeil (Radiology 1982, doi 10.1148/radiology.143.1.7063747), taken
    at the true area as Wilson's interval takes that of a share, with the mean of both numbers in
    place of each (Newcombe, Statistics in Medicine 2006, doi 10.1002/sim.2324). So an area of 1
    has an interval too, the wider the fewer the slides.

    Args:
        auc: the area.
        n_positive, n_negative: slides of each kind.
    """
    z, pairs, mean = stats.norm.ppf(0.975), n_positive * n_negative, (n_positive + n_negative) / 2

    def too_far(area: float) -> float:
        spread = 1 + (mean - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return (auc - area) ** 2 - z**2 * area * (1 - area) * spread / pairs

    low = optimize.brentq(too_far, 0, auc - _AT_THE_ROOT) if auc > 0 else 0.0
    high = optimize.brentq(too_far, auc + _AT_THE_ROOT, 1) if auc < 1 else 1.0
    return low, high
