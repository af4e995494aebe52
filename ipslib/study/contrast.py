"""An arm table read from another arm than the reference, and runs that never found the digits."""

import pandas as pd

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.arms import arm_table


def table_against(
    frame: pd.DataFrame,
    arm: str,
    *,
    published: pd.DataFrame | None = None,
    same_scale: bool = False,
) -> pd.DataFrame:
    """The `arm_table` whose effects are differences to `arm`, which is moved to the top.

    Args:
        frame: of `run_arms`.
        arm: what all others are compared with.
        published, same_scale: as `arm_table` takes them.
    """
    if arm not in set(frame["arm"]):
        raise IpslibError(f"there is no arm {arm!r}{did_you_mean(arm, frame['arm'].unique())}.")
    ordered = frame.sort_values("arm", key=lambda arms: arms != arm, kind="stable")
    return arm_table(ordered, published=published, same_scale=same_scale)


def found_digits(frame: pd.DataFrame) -> pd.Series:
    """Whether each run keeps at least half of the digits that random patches would miss.

    A run that does not has failed before any digit could be read: its accuracy says nothing of
    how well digits are read.
    """
    random = frame["roi_recall_random"]
    return frame["roi_recall"] - random >= (1 - random) / 2


def found_in_words(frame: pd.DataFrame) -> str:
    """How many runs found the digits, and for arms with runs that did not, how the others score.

    Args:
        frame: of `run_arms`, one task.
    """
    found = found_digits(frame)
    if found.all():
        return f"all {len(frame)} runs found the digits"
    parts = []
    for arm, runs in frame.assign(found=found).groupby("arm", sort=False):
        n_lost = int((~runs["found"]).sum())
        if n_lost:
            others = 100 * runs.loc[runs["found"], "accuracy"].mean()
            rest = f" (the rest {others:.0f} %)" if n_lost < len(runs) else ""
            parts.append(f"{n_lost} of {len(runs)} of *{arm}*{rest}")
    return f"{int(found.sum())} of {len(frame)} runs found the digits; not so {', '.join(parts)}"
