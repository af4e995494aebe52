"""How many training images does learning need? A logistic curve in log n, and its half-way point.

    accuracy(n) = chance + (ceiling - chance) / (1 + exp(-slope (log n - log n_half)))

The floor is held at chance; ceiling (at most 1), slope and n_half are free. n_half, the threshold,
is the number of training images at which accuracy is half-way between chance and ceiling.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import expit

from ipslib.study.statistics import CONFIDENCE, SEEDS_WITH_OWN_SPREAD
from ipslib.study.tables import chance_level

_N_PARAMETERS = 3
_RESAMPLES = 400
_MOST_EVALUATIONS = 200  # of the curve in one fit, which is then taken as it stands
_PLACES = 60  # along the curve
_STEEPEST = 4.0  # log of the slope: 10 to 90 % within 8 % more images
_CLEAR = 2.0  # spreads about the curve by which its end must leave chance


class ThresholdFit(NamedTuple):
    """A fitted curve.

    `n_half` and `ceiling` are nan where the runs do not show the half-way point, and `why` says
    so. `n_low` is 0, or `n_high` infinite, where the 95 % interval of `n_half` is open. `curve` has
    the columns n, accuracy, low and high: the fit with its pointwise 95 % band.
    """

    n_half: float
    n_low: float
    n_high: float
    ceiling: float
    slope: float
    n_runs: int
    why: str
    curve: pd.DataFrame


def fit_threshold(runs: pd.DataFrame, *, chance: float, seed: int = 0) -> ThresholdFit:
    """Fit the curve to the runs of one task by least squares, with a bootstrap interval.

    Where every size has five runs or more, runs are drawn anew within sizes. Fewer tell no spread
    of their own: accuracies are then drawn about the fitted curve, with the spread of all runs
    about it (itself drawn, as so few runs tell it poorly), or with the binomial spread of the
    count of right answers where that is larger.

    Args:
        runs: columns n_train, accuracy and n_test, a row a run.
        chance: accuracy at the floor.
        seed: of the bootstrap.
    """
    runs = runs.dropna(subset=["accuracy"])
    sizes, n_runs = np.sort(runs["n_train"].unique()), len(runs)
    if len(sizes) < _N_PARAMETERS or n_runs <= _N_PARAMETERS:
        nothing = pd.DataFrame(columns=["n", "accuracy", "low", "high"], dtype=float)
        why = f"{n_runs} runs of {len(sizes)} sizes are too few for a curve"
        return ThresholdFit(np.nan, 0.0, np.inf, np.nan, np.nan, n_runs, why, nothing)
    places, accuracy = np.log(runs["n_train"].to_numpy(float)), runs["accuracy"].to_numpy()
    fitted = _fit(places, accuracy, chance)
    left = accuracy - _curve(places, chance, *fitted)
    spread = float(np.sqrt((left**2).sum() / (n_runs - _N_PARAMETERS)))
    random = np.random.default_rng(seed)
    drawn = _resamples(runs, _curve(places, chance, *fitted), spread, random)
    draws = np.array([_fit(np.log(at), values, chance, start=fitted) for at, values in drawn])
    why = _why_not(sizes, chance, fitted, spread)
    low, high = _open_interval(draws[:, 0], sizes)
    return ThresholdFit(
        n_half=np.nan if why else float(np.exp(fitted[0])),
        n_low=low,
        n_high=high,
        ceiling=np.nan if why else float(chance + (1 - chance) * expit(fitted[2])),
        slope=float(np.exp(fitted[1])),
        n_runs=n_runs,
        why=why,
        curve=_band(sizes, chance, fitted, draws),
    )


def fit_thresholds(frame: pd.DataFrame) -> dict[str, ThresholdFit]:
    """Fit the curve of every task of a long form, of own or of published runs."""
    by_task = frame.groupby("task", sort=False)
    return {task: fit_threshold(runs, chance=chance_level(task)) for task, runs in by_task}


def threshold_table(fits: Mapping[str, ThresholdFit]) -> pd.DataFrame:
    """One row a task: `threshold` in words, such as "894 images (95 % interval 790 to 1000)" or why
    there is none, then the numbers of the fit."""
    rows = []
    for task, fit in fits.items():
        low = f"{fit.n_low:.0f}" if fit.n_low else "below the smallest size"
        high = f"{fit.n_high:.0f}" if np.isfinite(fit.n_high) else "beyond the largest"
        words = f"{fit.n_half:.0f} images (95 % interval {low} to {high})"
        words = f"not seen: {fit.why}" if fit.why else words
        rows.append({"task": task, "threshold": words} | fit._asdict())
    return pd.DataFrame(rows).drop(columns="curve")


def _curve(places: np.ndarray, chance: float, middle: float, log_slope: float, top: float):
    """Accuracy at log n; the ceiling is chance + (1 - chance) expit(top), so at most 1."""
    return chance + (1 - chance) * expit(top) * expit(np.exp(log_slope) * (places - middle))


def _fit(
    places: np.ndarray, accuracy: np.ndarray, chance: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Least squares from `start`, or the best from several starts: middle, log slope, top."""

    def residuals(parameters: np.ndarray) -> np.ndarray:
        middle, log_slope, top = parameters
        return _curve(places, chance, middle, min(log_slope, _STEEPEST), top) - accuracy

    middles = np.quantile(places, (0.2, 0.5, 0.8))
    starts = [(middle, np.log(2), 2) for middle in middles] if start is None else [start]
    fits = [
        optimize.least_squares(residuals, each, method="lm", max_nfev=_MOST_EVALUATIONS)
        for each in starts
    ]
    middle, log_slope, top = min(fits, key=lambda fit: fit.cost).x
    return np.array([middle, min(log_slope, _STEEPEST), top])


def _resamples(
    runs: pd.DataFrame, fitted: np.ndarray, spread: float, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sizes and accuracies of other runs that might have been."""
    n, n_test = runs["n_train"].to_numpy(float), runs["n_test"].to_numpy(float)
    by_size = runs.groupby("n_train")["accuracy"]
    binomial = np.sqrt(fitted * (1 - fitted) / n_test)
    freedom = len(runs) - _N_PARAMETERS
    for _ in range(_RESAMPLES):
        if by_size.size().min() >= SEEDS_WITH_OWN_SPREAD:
            drawn = by_size.sample(frac=1, replace=True, random_state=random)
            yield runs.loc[drawn.index, "n_train"].to_numpy(float), drawn.to_numpy()
        else:
            luck = spread * np.sqrt(freedom / random.chisquare(freedom))
            scale = np.maximum(luck, binomial)
            yield n, random.normal(fitted, scale).clip(0, 1)


def _why_not(sizes: np.ndarray, chance: float, fitted: np.ndarray, spread: float) -> str:
    """Why the half-way point cannot be told; empty where it can."""
    best = _curve(np.log(sizes), chance, *fitted).max()
    if best - chance < _CLEAR * spread:
        return "accuracy does not leave chance clearly"
    if fitted[0] > np.log(sizes[-1]):
        return f"half-way lies beyond the largest training set, {sizes[-1]} images"
    if fitted[0] < np.log(sizes[0]):
        return f"the smallest training set, {sizes[0]} images, is past half-way already"
    return ""


def _open_interval(middles: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """The percentile interval of n_half; a bound outside the sizes seen is not known: open."""
    low, high = np.quantile(middles, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    first, last = np.log(sizes[[0, -1]])
    n_low = 0.0 if low < first else np.exp(min(low, last))
    n_high = np.inf if high > last else np.exp(max(high, first))
    return float(n_low), float(n_high)


def _band(sizes: np.ndarray, chance: float, fitted: np.ndarray, draws: np.ndarray) -> pd.DataFrame:
    n = np.geomspace(sizes[0], sizes[-1], _PLACES)
    curves = np.array([_curve(np.log(n), chance, *draw) for draw in draws])
    low, high = np.quantile(curves, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)
    accuracy = _curve(np.log(n), chance, *fitted)
    return pd.DataFrame({"n": n, "accuracy": accuracy, "low": low, "high": high})
