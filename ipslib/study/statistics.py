"""The study's intervals and tests, through scipy and statsmodels.

Accuracies are shares in 0..1. A sample is one value per training seed, so an interval over seeds
says what another seed would give; a Wilson interval says what other test images would give.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from ipslib.errors import IpslibError

CONFIDENCE = 0.95
SEEDS_WITH_OWN_SPREAD = 5  # with fewer, settings share their spread
_RESAMPLES = 9999
_LEAST_SPREAD = 1e-12  # where no spread was seen, scipy's bounds would be nan
_AT_THE_ROOT = 1e-12  # an area of 1 is a root by itself
_BY_LUCK = 0.999  # quantile of what a constant answer scores


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


def correlation(
    frame: pd.DataFrame, x: str, y: str, *, within: Sequence[str] = ()
) -> dict[str, float]:
    """Pearson's `r` of two columns over `n` runs, with Fisher's interval from `r_low` to `r_high`,
    blank where too few are left to tell.

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
    r, low, high = np.nan, np.nan, np.nan
    if n > 1 and (left.abs().max() >= _LEAST_SPREAD).all():
        r = float(left[x].corr(left[y]))
    if freedom > 0 and abs(r) < 1:
        reach = stats.norm.ppf((1 + CONFIDENCE) / 2) / np.sqrt(freedom)
        low, high = map(float, np.tanh([np.arctanh(r) - reach, np.arctanh(r) + reach]))
    return {"n": n, "r": r, "r_low": low, "r_high": high}


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's t interval of the mean over seeds; needs two values or more."""
    values = _sample(values, at_least=2)
    if np.ptp(values) == 0:  # no spread seen: scipy's would be nan
        return float(values[0]), float(values[0])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def wilson_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of one run's accuracy on n test images."""
    test = stats.binomtest(round(accuracy * n), n)
    low, high = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def spread_over_seeds(values: Sequence[float], *, n_test: int) -> dict[str, object]:
    """Of shares in 0..1, one a seed, blanks left out: `n`, `mean`, `sd`, the mean's 95 % interval
    from `low` to `high`, and how that was made in `interval`.

    It is Student's t over seeds, cut to 0..1. One value has Wilson's on its `n_test` images.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    n, low, high, interval = len(values), np.nan, np.nan, ""
    if n > 1:
        (low, high), interval = t_interval(values), f"t, {n} seeds"
    elif n == 1:
        (low, high), interval = wilson_interval(values[0], n_test), f"Wilson, {n_test} images"
    mean, sd = values.mean() if n else np.nan, values.std(ddof=1) if n > 1 else np.nan
    bounds = {"low": max(low, 0.0), "high": min(high, 1.0), "interval": interval}
    return {"n": n, "mean": mean, "sd": sd} | bounds


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


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p value of paired differences, one a seed, from flipping their signs: all 2^n ways
    up to 13 seeds, random ones beyond. It cannot fall below 2 / 2^n: 0.25 for 3, 0.06 for 5."""
    flips = stats.permutation_test(
        (_sample(differences, at_least=2),),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(flips.pvalue)


def rising_trend(n: Sequence[float], accuracy: Sequence[float]) -> dict[str, float]:
    """Test whether accuracy rises with n, such as the number of training images; a value a run.

    Returns:
        Spearman's `rho` with its one-sided permutation `p` (small when accuracy rises), and the
        `smallest_p` that the test could have given with so few runs; what a doubling gains by a
        straight line, `effect`, with its t interval from `effect_low` to `effect_high`.
    """
    import statsmodels.api as sm  # here: the queue of published runs does without it

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
    found = {"rho": rho, "p": test.pvalue, "smallest_p": smallest}
    found |= {"effect": line.params[1], "effect_low": low, "effect_high": high}
    return {name: float(value) for name, value in found.items()}


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
    """
    z, pairs, mean = stats.norm.ppf(0.975), n_positive * n_negative, (n_positive + n_negative) / 2

    def too_far(area: float) -> float:
        spread = 1 + (mean - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return (auc - area) ** 2 - z**2 * area * (1 - area) * spread / pairs

    low = optimize.brentq(too_far, 0, auc - _AT_THE_ROOT) if auc > 0 else 0.0
    high = optimize.brentq(too_far, auc + _AT_THE_ROOT, 1) if auc < 1 else 1.0
    return low, high
