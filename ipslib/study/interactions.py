"""Names that notebooks still take from here."""

import pandas as pd

from ipslib.study.statistics import Interaction, interaction_table

__all__ = ["interaction_in_words", "interaction_table"]


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
