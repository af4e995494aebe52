"""Several comparisons in one notebook: each has its own reference, which is its first arm."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.arms import ArmRuns, arm_table, run_arms
from ipslib.study.session import Study
from ipslib.study.wording import effect_in_words

Arms = Mapping[str, Mapping[str, object]]  # {label: fields of RunConfig that differ from the base}


def run_comparisons(
    study: Study,
    comparisons: Mapping[str, Arms],
    seeds: Sequence[int],
    *,
    arm_seeds: Mapping[str, Sequence[int]] | None = None,
) -> ArmRuns:
    """Train, or look up, the runs of every arm of every comparison, all in one go.

    Args:
        study: whose base run the arms change.
        comparisons: `{title: arms}`; an arm may stand in several.
        seeds: of training.
        arm_seeds: other seeds for some arms, `{label: seeds}`.

    Returns:
        The runs; their frame has the columns `comparison` and `arm` in front.

    Raises:
        IpslibError: seeds for an arm that is in no comparison.
    """
    arm_seeds = dict(arm_seeds or {})
    known = {arm for arms in comparisons.values() for arm in arms}
    for arm in arm_seeds:
        if arm not in known:
            raise IpslibError(f"arm_seeds: there is no arm {arm!r}{did_you_mean(arm, known)}.")
    places = {
        f"{title}: {arm}": (title, arm) for title, arms in comparisons.items() for arm in arms
    }
    runs = run_arms(
        study,
        {label: comparisons[title][arm] for label, (title, arm) in places.items()},
        {label: arm_seeds.get(arm, seeds) for label, (_, arm) in places.items()},
    )
    labels = runs.frame["arm"].map(places)
    frame = runs.frame.assign(arm=labels.str[1])
    frame.insert(0, "comparison", labels.str[0])
    return runs._replace(frame=frame)


def comparison_tables(
    frame: pd.DataFrame, *, published: pd.DataFrame | None = None, same_scale: bool = False
) -> pd.DataFrame:
    """The `arm_table` of every comparison, one below the other, with a first column `comparison`.

    Args:
        frame: of `run_comparisons`.
        published: as `arm_table` takes it, with a column `comparison`.
        same_scale: the published runs have our settings.
    """
    tables = {}
    for title, rows in frame.groupby("comparison", sort=False):
        theirs = None
        if published is not None:
            theirs = published[published["comparison"] == title]
        tables[title] = arm_table(rows, published=theirs, same_scale=same_scale)
    return pd.concat(tables, names=["comparison"]).reset_index("comparison").reset_index(drop=True)


def effects_in_words(table: pd.DataFrame, task: str = "majority") -> str:
    """What each arm of a `comparison_tables` scores against its reference, a sentence each."""
    told = []
    for title, rows in table.groupby("comparison", sort=False):
        level = rows[rows["task"] == task].iloc[0]
        reached = f"*{title}*: **{level['arm']}** reaches {100 * level['mean']:.0f} %"
        others = rows["arm"].unique()[1:]
        against = ", ".join(f"**{arm}** {effect_in_words(rows, arm, task)}" for arm in others)
        told.append(f"{reached}; against it {against}" if against else reached)
    return ". ".join(told)


def published_counterparts(
    study: Study, comparisons: Mapping[str, Arms], published: pd.DataFrame, *, on: Sequence[str]
) -> pd.DataFrame:
    """The published runs that have an arm's settings, with the columns `comparison` and `arm`.

    Args:
        study: whose base run the arms change.
        comparisons: as in `run_comparisons`.
        published: of `published_accuracy`.
        on: fields of RunConfig that must agree; the published table has a column of that name.
    """
    found = [published.iloc[:0].assign(comparison="", arm="")]
    for title, arms in comparisons.items():
        for arm, fields in arms.items():
            config, rows = study.config(**fields).flat(), published
            for name in on:
                value = config[name]
                rows = rows[rows[name] == (value[0] if isinstance(value, list) else value)]
            found.append(rows.assign(comparison=title, arm=arm))
    return pd.concat(found, ignore_index=True)
