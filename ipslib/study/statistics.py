"""The study's intervals and tests, through scipy and statsmodels.

Accuracies are shares in 0..1. A sample is one value per training seed, so an interval over seeds
says what another seed would give; a Wilson interval says what other test images would give.
"""

import warnings
from collections.abc import Sequence

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
_INTERACTION = ["per_n", "per_o2i", "per_both", "both_low", "both_high", "p", "n_runs", "errors"]
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


def spread_over_seeds(values: Sequence[float], *, n_test: int | None = None) -> dict[str, object]:
    """Of shares in 0..1, one a seed, blanks left out: `n`, `mean`, `sd`, the mean's 95 % interval
    from `low` to `high`, and how that was made in `interval`.

    It is Student's t over seeds. One value has Wilson's on its `n_test` images, and none where that
    is no count. It is cut to 0..1.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    n, low, high, interval = len(values), np.nan, np.nan, ""
    if n > 1:
        (low, high), interval = t_interval(values), f"t, {n} seeds"
    elif n == 1 and n_test:
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


def interaction_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Do more training images help small objects more, or large ones? One row a task.

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
        frame: long form, of own or of published runs.

    Returns:
        `per_n`, `per_o2i` and `per_both`, which are b, c and d, bounds and p value of the last,
        `n_runs`, and in `errors` how they were made. A task has no row where runs are of fewer
        than two sizes or ratios, or no more than the model's terms.
    """
    rows = []
    for task, runs in frame.dropna(subset=["accuracy"]).groupby("task", sort=False):
        if runs[["n_train", "o2i_ratio"]].nunique().min() > 1 and len(runs) > _N_TERMS:
            rows.append({"task": task} | _interaction(runs))
    return pd.DataFrame(rows, columns=["task", *_INTERACTION])


def _interaction(runs: pd.DataFrame) -> dict[str, object]:
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
    return dict(zip(_INTERACTION, (*numbers, len(runs), errors), strict=True))


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
