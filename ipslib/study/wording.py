"""Results in words, for the readings of notebooks."""

import pandas as pd

from ipslib.errors import IpslibError, did_you_mean


def points(*shares: float) -> str:
    """Differences of shares as signed points: "−12 points" for −0.123, "−12 to +3 points"; a dash
    for what is blank."""
    if any(map(pd.isna, shares)):
        return "–"
    rounded = [round(100 * share) for share in shares]  # whole numbers have no "-0"
    return " to ".join(f"{n:+d}" if n else "0" for n in rounded).replace("-", "−") + " points"


def effect_in_words(table: pd.DataFrame, arm: str, task: str = "majority") -> str:
    """An arm's effect with its interval, such as "−12 points (95 % interval −20 to −4)".

    Args:
        table: of `arm_table`.
        arm: not the reference, which has no effect on itself.
        task: whose accuracy.
    """
    rows = table[(table["arm"] == arm) & (table["task"] == task)]
    if rows.empty:
        hint = did_you_mean(arm, table["arm"].unique())
        raise IpslibError(f"no arm {arm!r} with task {task!r} in the table{hint}.")
    row = rows.iloc[0]
    said = points(row["effect"])
    if pd.isna(row["effect_low"]):
        return said
    bounds = points(row["effect_low"], row["effect_high"]).removesuffix(" points")
    return f"{said} (95 % interval {bounds})"
