"""A study's arms: settings that differ from one reference in a named way, run on the same seeds,
and the table that puts each beside the reference and beside its published counterpart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.session import Study
from ipslib.study.statistics import CONFIDENCE, SEEDS_WITH_OWN_SPREAD, sign_flip_p, t_interval
from ipslib.study.tables import (
    PUBLISHED_TAKE_OFF,
    TAKE_OFF,
    beside_published,
    long_form,
    require_columns,
    summarise,
)

Arms = Mapping[str, Mapping[str, object]]  # {label: fields of RunConfig that differ from the base}

_NO_EFFECT = {"effect_low": np.nan, "effect_high": np.nan, "effect_interval": "", "p": np.nan}
_BALANCED = "balanced_accuracy"
_HEADLINE = (
    *("arm", "n", "mean", "low", "high", "chance", _BALANCED),
    *("effect", "effect_low", "effect_high", *TAKE_OFF),
    *("roi_recall", "times_random", "n_found"),
    *("published", "published_effect", "difference"),
    *PUBLISHED_TAKE_OFF,
)


class ArmRuns(NamedTuple):
    """The records, each once, and their long form with the arm's name in front."""

    records: list[dict]
    frame: pd.DataFrame


def run_arms(study: Study, arms: Arms, seeds: Sequence[int]) -> ArmRuns:
    """Train, or look up, the runs of every arm on every seed; the first arm is the reference.

    Their frame has a column `arm` in front. A run that two arms share is trained once and has its
    rows under both.
    """
    runs = run_comparisons(study, {"": arms}, seeds)
    return runs._replace(frame=runs.frame.drop(columns="comparison"))


def run_comparisons(
    study: Study,
    comparisons: Mapping[str, Arms],
    seeds: Sequence[int],
    *,
    arm_seeds: Mapping[str, Sequence[int]] | None = None,
) -> ArmRuns:
    """The same of several comparisons, `{title: arms}`, each with its own reference, all trained in
    one go. Their frame has the columns `comparison` and `arm` in front.

    Args:
        study: whose base run the arms change.
        comparisons: an arm may stand in several.
        seeds: of training.
        arm_seeds: other seeds for some arms, `{label: seeds}`.

    Raises:
        IpslibError: no arm, or seeds for one that is in no comparison.
    """
    arm_seeds = dict(arm_seeds or {})
    known = {arm for arms in comparisons.values() for arm in arms}
    if not known:
        raise IpslibError("arms: wanted a reference at least, got none.")
    for arm in arm_seeds:
        if arm not in known:
            raise IpslibError(f"arm_seeds: there is no arm {arm!r}{did_you_mean(arm, known)}.")
    places = [
        (title, arm, seed)
        for title, arms in comparisons.items()
        for arm in arms
        for seed in arm_seeds.get(arm, seeds)
    ]
    records = study.run(
        [study.config(**comparisons[title][arm], seed=seed) for title, arm, seed in places]
    )
    made = {record["id"]: record for record in records}
    runs = pd.DataFrame(places, columns=["comparison", "arm", "id"])
    runs["id"] = [record["id"] for record in records]
    frame = runs.merge(long_form(made.values()), on="id")
    return ArmRuns(list(made.values()), frame)


def arm_table(
    frame: pd.DataFrame,
    *,
    reference: str | None = None,
    published: pd.DataFrame | None = None,
    same_scale: bool = False,
) -> pd.DataFrame:
    """One row per arm and task, the reference on top; comparisons one below the other.

    Args:
        frame: of `run_arms`, or of `run_comparisons`.
        reference: what all others are compared with; the first arm if None.
        published: of `published_beside`.
        same_scale: the published runs have our settings, so that levels can be compared too.

    Returns:
        The columns of `summarise`, then

        - `effect`: mean difference to the reference over the seeds that both have, with
          `effect_low`, `effect_high`, and in `effect_interval` how these were made: `paired t`
          from the arm's own differences; where no arm has five seeds `pooled paired t`, from the
          spread that is left in all arms together once arms and seeds are accounted for. Blank
          with one seed. `p` is that of `sign_flip_p`, or of the pooled t; neither is corrected for
          the number of arms;
        - `roi_recall`, `times_random` (that over its value at random), `entropy`, `n_found` (the
          runs that `found_digits`), and `balanced_accuracy` where the runs have it;
        - the columns of `beside_published`, and `published_effect`.
    """
    if "comparison" in frame:
        tables = {}
        for title, rows in frame.groupby("comparison", sort=False):
            theirs = None if published is None else published[published["comparison"] == title]
            more = {"reference": reference, "published": theirs, "same_scale": same_scale}
            tables[title] = arm_table(rows.drop(columns="comparison"), **more)
        table = pd.concat(tables, names=["comparison"]).reset_index("comparison")
        return table.reset_index(drop=True)
    if reference is not None:
        known = frame["arm"].unique()
        if reference not in known:
            raise IpslibError(f"there is no arm {reference!r}{did_you_mean(reference, known)}.")
        frame = frame.sort_values("arm", key=lambda arms: arms != reference, kind="stable")
    runs_of = frame["id"].groupby(frame["arm"], sort=False).agg(frozenset)
    twin_of = {arm: runs_of.index[runs_of == ids][0] for arm, ids in runs_of.items()}
    alone = frame[frame["arm"].isin(twin_of.values())]  # the same runs twice would feign spread
    alone = summarise(alone, by=["arm"]).merge(_effects(alone), on=["arm", "task"])
    table = pd.concat(
        [alone[alone["arm"] == twin].assign(arm=arm) for arm, twin in twin_of.items()],
        ignore_index=True,
    )
    table = table.merge(_attention(frame), on="arm")
    if _BALANCED in frame:
        balanced = frame.groupby(["arm", "task"])[_BALANCED].mean().reset_index()
        table = table.merge(balanced, on=["arm", "task"])
    if published is not None:
        table = beside_published(table, published, on=["arm"])
        theirs = table.groupby("task")["published"].transform(lambda each: each.iloc[0])
        effect = table["published"] - theirs
        table["published_effect"] = effect.mask(table["arm"] == table["arm"].iloc[0])
    return table if published is None or same_scale else table.drop(columns="difference")


def headline(table: pd.DataFrame, task: str = "majority") -> pd.DataFrame:
    """One task of an arm table, with the columns that fit a page."""
    rows = table[table["task"] == task]
    if rows.empty:
        known = table["task"].unique()
        raise IpslibError(f"the table has no task {task!r}{did_you_mean(task, known)}.")
    return rows[[name for name in _HEADLINE if name in rows]].reset_index(drop=True)


def published_beside(
    frame: pd.DataFrame, published: pd.DataFrame, *, on: Sequence[str]
) -> pd.DataFrame:
    """The published runs that agree with an arm's own in the columns `on`; an arm without any is
    left out. The columns `arm`, and `comparison` where the frame has it, stand in front."""
    require_columns(frame, on, "runs")
    require_columns(published, on, "published runs")
    places = [name for name in ("comparison", "arm") if name in frame]
    asked = frame[[*places, *on]].drop_duplicates()
    for name in on:  # whole numbers of one may be floats in the other
        if pd.api.types.is_numeric_dtype(asked[name]):
            asked = asked.astype({name: float})
            published = published.astype({name: float})
    return asked.merge(published, on=list(on))


def found_digits(frame: pd.DataFrame) -> pd.Series:
    """Whether each run keeps at least half of the digits that random patches would miss.

    A run that does not has failed before any digit could be read: its accuracy says nothing of
    how well digits are read.
    """
    random = frame["roi_recall_random"]
    return frame["roi_recall"] - random >= (1 - random) / 2


def _effects(frame: pd.DataFrame) -> pd.DataFrame:
    """The effect columns of every arm and task; blank for the reference."""
    reference, rows = frame["arm"].iloc[0], []
    for task, runs in frame.groupby("task", sort=False):
        accuracy = runs.pivot(index="seed", columns="arm", values="accuracy")
        others = accuracy[runs["arm"].unique()].drop(columns=reference)
        differences = others.sub(accuracy[reference], axis=0)
        most = differences.count().max()
        own = most >= SEEDS_WITH_OWN_SPREAD
        pooled = _residual_spread(accuracy) if most > 1 and not own else None
        rows.append({"arm": reference, "task": task, "effect": np.nan} | _NO_EFFECT)
        for arm, difference in differences.items():
            pair = accuracy.loc[difference.notna(), [arm, reference]]
            bounds = _NO_EFFECT
            if len(pair) > 1:
                bounds = _own_bounds(pair) if own else _pooled_bounds(pair, *pooled)
            rows.append({"arm": arm, "task": task, "effect": difference.mean()} | bounds)
    return pd.DataFrame(rows)


def _own_bounds(pair: pd.DataFrame) -> dict[str, object]:
    difference, kind = pair.iloc[:, 0] - pair.iloc[:, 1], f"paired t, {len(pair)} seeds"
    values = (*t_interval(difference), kind, sign_flip_p(difference))
    return dict(zip(_NO_EFFECT, values, strict=True))


def _pooled_bounds(pair: pd.DataFrame, spread: float, freedom: float) -> dict[str, object]:
    effect, n = (pair.iloc[:, 0] - pair.iloc[:, 1]).mean(), len(pair)
    error = max(spread, 1e-12) * np.sqrt(2 / n)
    low, high = stats.t.interval(CONFIDENCE, freedom, loc=effect, scale=error)
    p = 2 * stats.t.sf(abs(effect) / error, freedom)
    kind = f"pooled paired t, {n} seeds"
    return dict(zip(_NO_EFFECT, (low, high, kind, p), strict=True))


def _residual_spread(accuracy: pd.DataFrame) -> tuple[float, float]:
    """What is left of a run's spread, and its degrees of freedom, in a model arm + seed.

    For two arms it gives the paired t interval. For more, pooling the arms' differences to the
    one reference would count the reference's own luck once an arm.
    """
    runs = accuracy.melt(ignore_index=False, var_name="arm", value_name="accuracy")
    runs = runs.dropna().reset_index()
    fit = smf.ols("accuracy ~ C(arm) + C(seed)", runs).fit()
    return float(np.sqrt(fit.mse_resid)), float(fit.df_resid)


def _attention(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: means over its runs, and how many found the digits."""
    measures = ["roi_recall", "roi_recall_random", "entropy"]
    runs = frame.drop_duplicates(["arm", "id"])
    found = runs.groupby("arm", sort=False)[measures].mean().reset_index()
    found.insert(2, "times_random", found["roi_recall"] / found.pop("roi_recall_random"))
    n_found = found_digits(runs).groupby(runs["arm"], sort=False).sum()
    return found.assign(n_found=n_found.to_numpy()).astype({"n_found": int})
