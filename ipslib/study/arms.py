"""A study's arms: settings that differ from one reference in a named way, run on the same seeds,
and the table that puts each beside the reference and beside its published counterpart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.session import Study
from ipslib.study.statistics import (
    compare_means,
    compare_shares,
    over_seeds,
    share_interval,
    t_interval,
)
from ipslib.study.tables import (
    PUBLISHED_TAKE_OFF,
    TAKE_OFF,
    beside_published,
    effects_over_seeds,
    long_form,
    paired_differences,
    require_columns,
    summarise,
)

Arms = Mapping[str, Mapping[str, object]]  # {label: fields of RunConfig that differ from the base}

_EFFECT = ["effect", "effect_low", "effect_high", "p"]
_BALANCED = "balanced_accuracy"
_HEADLINE = (
    *("arm", "n", "mean", "low", "high", "chance", _BALANCED),
    *("effect", "effect_low", "effect_high", "p", *TAKE_OFF),
    *("roi_recall", "times_random"),
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

        - `effect`: the mean of `paired_differences`, with the interval and the p value of
          `over_seeds`: each arm's own, corrected for no other arm;
        - `roi_recall`, `times_random` (that over its value at random), `entropy`, and
          `balanced_accuracy` where the runs have it;
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
    differences = paired_differences(frame, frame["arm"].iloc[0])
    effects = effects_over_seeds(differences, by=["arm", "task"])
    table = summarise(frame, by=["arm"])
    table = table.merge(effects[["arm", "task", *_EFFECT]], how="left", on=["arm", "task"])
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


def compare_arm(
    frame: pd.DataFrame, arm: str, *, reference: str | None = None, task: str = "majority"
) -> pd.DataFrame:
    """An arm and its reference, the first arm if None, looked at in three ways: the share of runs
    that take off, the accuracy of those that did, and of all runs together.

    Returns:
        Two rows a look, reference first: `look`, `arm`, the number of runs `n`, `mean` with its
        interval (of shares Clopper's and Pearson's), and in the arm's row the `effect` with its
        interval, `p`, and of which `test` it is. Without take-off the last look alone.
    """
    reference = frame["arm"].iloc[0] if reference is None else reference
    runs = frame[frame["task"] == task].drop_duplicates(["arm", "id"]).set_index("seed")
    sides, looks = [runs[runs["arm"] == name] for name in (reference, arm)], []
    if "took_off" in runs and runs["took_off"].notna().all():
        shares = [side["took_off"] for side in sides]
        looks.append(("share that takes off", shares, share_interval, compare_shares(*shares)))
        left = [side.loc[side["took_off"] == 1, "accuracy"] for side in sides]
        looks.append(("accuracy of those that did", left, t_interval, compare_means(*left)))
    differences = paired_differences(runs.reset_index(), reference).query("arm == @arm")
    means = [side["accuracy"] for side in sides]
    looks.append(("accuracy of all runs", means, t_interval, over_seeds(differences["accuracy"])))
    rows = []
    for look, values, interval, effect in looks:
        for name, each, found in zip((reference, arm), values, ({}, effect), strict=True):
            low, high = interval(each)
            row = {"look": look, "arm": name, "n": len(each), "mean": each.mean()}
            rows.append(found | row | {"low": low, "high": high})
    columns = ["look", "arm", "n", "mean", "low", "high", *_EFFECT, "test"]
    return pd.DataFrame(rows)[columns]


def _attention(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: means over its runs."""
    measures = ["roi_recall", "roi_recall_random", "entropy"]
    found = frame.drop_duplicates(["arm", "id"]).groupby("arm", sort=False)[measures].mean()
    found["times_random"] = found["roi_recall"] / found.pop("roi_recall_random")
    return found.reset_index()
