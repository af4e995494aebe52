"""Names that notebooks still take from here."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ipslib.study.arms import Arms, run_comparisons
from ipslib.study.arms import arm_table as comparison_tables
from ipslib.study.session import Study

__all__ = ["Arms", "comparison_tables", "published_counterparts", "run_comparisons"]


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
