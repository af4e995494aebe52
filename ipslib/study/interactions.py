"""Do more training images and larger objects help each other, or does one make up for the other?

A binomial model of each run's count of right answers on its test images:

    logit p(right) = a + b log2(n_train) + c log2(O2I) + d log2(n_train) log2(O2I)

Both logarithms are centred, so that b and c hold in the middle of the grid. d < 0: doubling the
training set helps small objects more, so that they catch up; d > 0: it helps large ones more.
"""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.api as sm
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

from ipslib.errors import IpslibError
from ipslib.study.statistics import CONFIDENCE

_N_TERMS = 4
_ENOUGH_SEEDS = 5  # as clusters; a variance estimated from fewer is far too small


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


def interaction_test(runs: pd.DataFrame) -> Interaction:
    """Test the interaction of training-set size and object-to-image ratio in one task's runs.

    Answers of one run are right or wrong together, so that a binomial's own errors are too small.
    With five seeds or more, errors are clustered by seed (t with one degree of freedom fewer than
    seeds). With fewer, they are widened by the runs' own over-dispersion (Pearson's, at least 1),
    which knows nothing of what runs of one seed share. Half a right and half a wrong answer are
    added to each run, so that a run without either has odds. The logit has no floor at chance:
    near chance it sees less than there is.

    Args:
        runs: columns n_train, o2i_ratio, accuracy, n_test, and seed where it is known, a row a
            run.

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
    n, o2i = (np.log2(runs[name].to_numpy(float)) for name in ("n_train", "o2i_ratio"))
    n, o2i = n - n.mean(), o2i - o2i.mean()
    terms = sm.add_constant(np.column_stack([n, o2i, n * o2i]))
    right = runs["accuracy"] * runs["n_test"]
    counts = np.column_stack([right + 0.5, runs["n_test"] - right + 0.5])
    by_seed = "seed" in runs and runs["seed"].nunique() >= _ENOUGH_SEEDS
    with warnings.catch_warnings():  # runs that agree exactly are no cause for alarm
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        fit = _fit(counts, terms, pd.factorize(runs["seed"])[0] if by_seed else None)
    low, high = fit.conf_int(1 - CONFIDENCE)[3]
    numbers = map(float, (*fit.params[1:], low, high, fit.pvalues[3]))
    return Interaction(
        *numbers, len(runs), "clustered by seed" if by_seed else "over-dispersed runs"
    )


def _fit(counts: np.ndarray, terms: np.ndarray, clusters: np.ndarray | None):
    model = sm.GLM(counts, terms, family=sm.families.Binomial())
    if clusters is not None:
        return model.fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    fit = model.fit()
    return model.fit(scale=max(1.0, fit.pearson_chi2 / fit.df_resid), use_t=True)


def interaction_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a task: its `interaction_test`; no rows where the runs are too few for it."""
    rows = []
    for task, runs in frame.groupby("task", sort=False):
        try:
            rows.append({"task": task} | interaction_test(runs)._asdict())
        except IpslibError:
            continue
    return pd.DataFrame(rows, columns=["task", *Interaction._fields])


def interaction_in_words(found: Interaction | pd.Series) -> str:
    """Which digits more images help more, or that it cannot be told.

    Args:
        found: of `interaction_test`, or a row of `interaction_table`.
    """
    who = "small" if found.per_both < 0 else "large"
    odds = f"{found.per_both:+.2f}".replace("-", "−")
    bounds = f"{found.both_low:+.2f} to {found.both_high:+.2f}".replace("-", "−")
    told = (
        f"more images help {who} digits more"
        if found.both_low * found.both_high > 0
        else "which digits more images help more cannot be told"
    )
    return f"{told} ({odds} log odds per doubling of both, 95 % interval {bounds})"
