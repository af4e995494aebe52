"""Names that notebooks still take from here."""

import pandas as pd

from ipslib.study.arms import arm_table, found_digits


def table_against(frame: pd.DataFrame, arm: str, **more) -> pd.DataFrame:
    """The `arm_table` with this reference."""
    return arm_table(frame, reference=arm, **more)


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
