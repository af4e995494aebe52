"""The study's intervals and tests, through scipy and statsmodels.

Accuracies are shares in 0..1. What is judged is one value per training seed: a paired difference,
a slope, an interaction. No spread is shared between settings: runs take off or do not, so that
settings scatter differently. statsmodels is imported where it is used: the queue of published runs
does without it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE  # of the tests
MARGIN = 0.05  # an effect within five points counts as none
FEWEST = 3  # values with an interval: of runs that take off or not, two are too often alike
_FEWEST_TO_FLIP = 6  # with fewer, no flip of signs has a p below 0.05
_FLIPS = 9999
_POWER, _MOST_SEEDS = 0.8, 2000
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
    """Student's t interval of the mean over seeds; blank with fewer than three."""
    values = _finite(values)
    if len(values) < FEWEST:
        return np.nan, np.nan
    low, high = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def over_seeds(values: Sequence[float]) -> dict[str, object]:
    """Of effects on accuracy, one a seed, blanks left out: their number `n`, mean `effect`, `sd`,
    t interval from `effect_low` to `effect_high`, and two p values, blank with fewer than three.

    `p` is that of an effect of zero, by the `test` of t, from six seeds on by flipping signs (all
    2^n ways up to 13 seeds, random ones beyond). `p_none` is that of an effect beyond five points,
    by two one-sided t tests: small where the 90 % interval lies within.

    The interval knows nothing of failures rarer than were seen: where runs may fail to take off,
    read it beside `share_interval`.
    """
    from statsmodels.stats.weightstats import ttost_paired

    values = _finite(values)
    n = len(values)
    mean, sd = values.mean() if n else np.nan, values.std(ddof=1) if n > 1 else np.nan
    low, high = t_interval(values)
    p, p_none, test = np.nan, np.nan, "paired t"
    if n >= FEWEST:
        p = stats.ttest_1samp(values, 0).pvalue
        p_none, _, _ = ttost_paired(values, np.zeros(n), -MARGIN, MARGIN)
    if n >= _FEWEST_TO_FLIP:
        flips = {"n_resamples": _FLIPS, "rng": np.random.default_rng(0)}
        found = stats.permutation_test((values,), np.mean, permutation_type="samples", **flips)
        p, test = found.pvalue, "flipped signs"
    numbers = {"effect": mean, "sd": sd, "effect_low": low, "effect_high": high}
    numbers |= {"p": p, "p_none": p_none}
    return {"n": n, "test": test} | {name: float(value) for name, value in numbers.items()}


def _finite(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) and np.ptp(values) == 0:
        values = values + _LEAST_SPREAD * np.linspace(-1, 1, len(values))
    return values


def share_interval(yes: Sequence[float]) -> tuple[float, float]:
    """Clopper and Pearson's interval of the share of ones among ones and zeros."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(np.sum(yes), len(yes), LEVEL, method="beta")
    return float(low), float(high)


def compare_shares(reference: pd.Series, arm: pd.Series) -> dict[str, object]:
    """What share of runs does something, such as take off, in one arm and not in another.

    Args:
        reference, arm: 1 or 0 for every run, indexed by seed.

    Returns:
        `effect`, the difference of the shares; Newcombe's interval of it; `p`, and of which `test`
        it is: the exact McNemar where both arms have the same seeds, else Boschloo's.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    yes, n = (arm.sum(), reference.sum()), (len(arm), len(reference))
    how = {"method": "newcomb", "compare": "diff", "alpha": LEVEL}
    bounds = confint_proportions_2indep(yes[0], n[0], yes[1], n[1], **how)
    if set(arm.index) == set(reference.index):
        change = arm - reference
        more, either = int((change > 0).sum()), int((change != 0).sum())
        p, test = stats.binomtest(more, either).pvalue if either else 1.0, "McNemar, exact"
    else:
        counts = [yes, (n[0] - yes[0], n[1] - yes[1])]
        p, test = stats.boschloo_exact(counts).pvalue, "Boschloo"
    return _comparison(arm.mean() - reference.mean(), bounds, p, test)


def compare_means(reference: Sequence[float], arm: Sequence[float]) -> dict[str, object]:
    """The same of two means by Welch's test, blank where either has fewer than three values."""
    arm, reference = _finite(arm), _finite(reference)
    if min(len(arm), len(reference)) < FEWEST:
        return _comparison(np.nan, (np.nan, np.nan), np.nan, "Welch")
    welch = stats.ttest_ind(arm, reference, equal_var=False)
    effect, bounds = arm.mean() - reference.mean(), welch.confidence_interval(CONFIDENCE)
    return _comparison(effect, bounds, welch.pvalue, "Welch")


def _comparison(effect: float, bounds: Sequence[float], p: float, test: str) -> dict[str, object]:
    low, high = map(float, bounds)
    found = {"effect": float(effect), "effect_low": low, "effect_high": high}
    return found | {"p": float(p), "test": test}


def seeds_needed(
    effect: float, sd: float, *, level: float = LEVEL, more_than: int = FEWEST - 1
) -> float:
    """How many seeds an arm it takes to tell an effect of that size from none, or to show that it
    is none, whichever are fewer, in four studies of five; blank beyond 2000.

    Args:
        effect: mean of the paired differences, or slopes; sd: theirs.
        level: at which it is tested; more_than: so many seeds, which did not do.
    """
    if not sd > 0:
        return np.nan
    n = np.arange(max(more_than + 1, FEWEST), _MOST_SEEDS + 1)
    error, freedom = sd / np.sqrt(n), n - 1
    bound = stats.t.ppf(1 - level / 2, freedom)
    tells = stats.nct.sf(bound, freedom, abs(effect) / error)
    tells[(n >= _FEWEST_TO_FLIP) & (2.0 ** (1 - n) > level)] = 0  # no flip of signs is that rare
    bound = stats.t.ppf(1 - level, freedom)
    misses = [stats.nct.cdf(bound, freedom, (MARGIN + s * effect) / error) for s in (-1, 1)]
    enough = n[np.maximum(tells, 1 - sum(misses)) >= _POWER]
    return float(enough[0]) if len(enough) else np.nan


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
