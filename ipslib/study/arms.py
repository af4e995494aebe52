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
from ipslib.study.statistics import CONFIDENCE, SEEDS_WITH_OWN_SPREAD, paired_difference
from ipslib.study.tables import TAKE_OFF, long_form, summarise, with_published_means

_NO_EFFECT = {"effect_low": np.nan, "effect_high": np.nan, "effect_interval": "", "p": np.nan}
_BALANCED = "balanced_accuracy"
_HEADLINE = (
    *("arm", "n", "mean", "low", "high", "chance", _BALANCED),
    *("effect", "effect_low", "effect_high", *TAKE_OFF),
    *("roi_recall", "times_random", "published", "published_effect", "difference"),
    *("published_took_off", "published_take_off_epoch"),
)


class ArmRuns(NamedTuple):
    """The records, each once, and their long form with a first column `arm`."""

    records: list[dict]
    frame: pd.DataFrame


def run_arms(
    study: Study,
    arms: Mapping[str, Mapping[str, object]],
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
) -> ArmRuns:
    """Train, or look up, the runs of every arm.

    Args:
        study: whose base run the arms change.
        arms: `{label: {field of RunConfig: value}}`; the first is the reference.
        seeds: of training, for every arm, or `{label: seeds}`.

    Returns:
        The runs. One that two arms share is trained once and has its rows under both.

    Raises:
        IpslibError: no arm, or seeds for other arms than there are.
    """
    by_arm = dict(seeds) if isinstance(seeds, Mapping) else dict.fromkeys(arms, seeds)
    if not arms or by_arm.keys() != arms.keys():
        raise IpslibError(
            f"seeds: wanted a list for each of the arms {list(arms)}, got {list(by_arm)}."
        )
    runs = [
        (arm, study.config(**fields, seed=seed))
        for arm, fields in arms.items()
        for seed in by_arm[arm]
    ]
    records = study.run([config for _, config in runs])
    made = {record["id"]: record for record in records}
    tables = {arm: [r for (a, _), r in zip(runs, records, strict=True) if a == arm] for arm in arms}
    frames = [long_form(of_arm) for of_arm in tables.values()]
    frame = pd.concat(frames, keys=tables, names=["arm"]).reset_index("arm")
    return ArmRuns(list(made.values()), frame.reset_index(drop=True))


def arm_table(
    frame: pd.DataFrame, *, published: pd.DataFrame | None = None, same_scale: bool = False
) -> pd.DataFrame:
    """One row per arm and task, the reference (the first arm) on top.

    Args:
        frame: of `run_arms`.
        published: of `published_arms`; adds their mean and its difference to their reference.
        same_scale: the published runs have our settings, so that levels can be compared too.

    Returns:
        The columns of `summarise`, then

        - `effect`: mean difference to the reference over the seeds that both have, with
          `effect_low`, `effect_high`, and in `effect_interval` how these were made: `paired t`
          from the arm's own differences; where no arm has five seeds `pooled paired t`, from the
          spread that is left in all arms together once arms and seeds are accounted for. Blank
          with one seed. `p` is that of `paired_difference`, or of the pooled t; neither is
          corrected for the number of arms;
        - `roi_recall`, `times_random` (that over its value at random), `entropy`, and
          `balanced_accuracy` where the runs have it;
        - the columns of `with_published_means`, `published_effect`, and `difference` (ours -
          theirs).
    """
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
        table = _add_published(table, published, same_scale=same_scale)
    return table


def headline(table: pd.DataFrame, task: str = "majority") -> pd.DataFrame:
    """One task of an arm table, with the columns that fit a page."""
    rows = table[table["task"] == task]
    if rows.empty:
        known = table["task"].unique()
        raise IpslibError(f"the table has no task {task!r}{did_you_mean(task, known)}.")
    return rows[[name for name in _HEADLINE if name in rows]].reset_index(drop=True)


def published_arms(
    published: pd.DataFrame, arms: Mapping[str, Mapping[str, object]]
) -> pd.DataFrame:
    """The rows of a published frame that belong to each arm, with a first column `arm`.

    Args:
        published: of `published_accuracy`.
        arms: `{label: {column: value, or list of values, or None where it is blank}}`; arms that
            were not published are left out of it.

    Raises:
        IpslibError: unknown column, or an arm without rows.
    """
    chosen = {}
    for arm, columns in arms.items():
        rows = published
        for name, value in columns.items():
            if name not in rows:
                raise IpslibError(f"no published column {name!r}{did_you_mean(name, rows)}.")
            wanted = value if isinstance(value, list | tuple) else [value]
            is_blank = rows[name].isna() & (None in wanted)
            rows = rows[rows[name].isin(wanted) | is_blank]
        if rows.empty:
            raise IpslibError(f"arm {arm!r}: no published run has {dict(columns)}; leave it out.")
        chosen[arm] = rows
    frame = pd.concat(chosen, names=["arm"]).reset_index("arm")
    return frame.reset_index(drop=True)


def _effects(frame: pd.DataFrame) -> pd.DataFrame:
    """The effect columns of every arm and task; blank for the reference."""
    reference = frame["arm"].iloc[0]
    tables = []
    for task, rows in frame.groupby("task", sort=False):
        accuracy = rows.pivot(index="seed", columns="arm", values="accuracy")
        accuracy = accuracy[rows["arm"].unique()]
        differences = accuracy.drop(columns=reference).sub(accuracy[reference], axis=0)
        n_shared = differences.count()
        own = (n_shared >= SEEDS_WITH_OWN_SPREAD).any()
        pooled = _residual_spread(accuracy) if (n_shared > 1).any() and not own else None
        effects = {reference: {"effect": np.nan} | _NO_EFFECT}
        for arm, n in n_shared.items():
            bounds = _NO_EFFECT
            if n > 1:
                pair = accuracy[[arm, reference]].dropna()
                bounds = _own_bounds(pair) if own else _pooled_bounds(pair, *pooled)
            effects[arm] = {"effect": differences[arm].mean()} | bounds
        tables.append(pd.DataFrame(effects.values()).assign(arm=list(effects), task=task))
    return pd.concat(tables)


def _own_bounds(pair: pd.DataFrame) -> dict[str, object]:
    found = paired_difference(pair.iloc[:, 0], pair.iloc[:, 1])
    kind = f"paired t, {found.n} seeds"
    return dict(zip(_NO_EFFECT, (found.low, found.high, kind, found.p), strict=True))


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
    measures = ["roi_recall", "roi_recall_random", "entropy"]
    runs = frame.drop_duplicates(["arm", "id"])
    found = runs.groupby("arm", sort=False)[measures].mean().reset_index()
    found.insert(2, "times_random", found["roi_recall"] / found.pop("roi_recall_random"))
    return found


def _add_published(
    table: pd.DataFrame, published: pd.DataFrame, *, same_scale: bool
) -> pd.DataFrame:
    table = with_published_means(table, published, ["arm", "task"])
    is_reference = table["arm"] == table["arm"].iloc[0]
    reference = table[is_reference].set_index("task")["published"]
    table["published_effect"] = table["published"] - table["task"].map(reference)
    table.loc[is_reference, "published_effect"] = np.nan
    if same_scale:
        table["difference"] = table["mean"] - table["published"]
    return table
