"""What the study found: each notebook states one effect, with its interval and its published
counterpart; the summary reads what they stated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.api as sm

from ipslib.paths import write_atomically
from ipslib.study.statistics import CONFIDENCE
from ipslib.study.tables import points

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "cannot be told"
_TASK = "majority"
_CLAIMS = {-1: "below zero", 0: "no effect", 1: "above zero"}


class Finding(NamedTuple):
    """One difference, or slope, and what was published of it.

    Args:
        compared: what it is, such as "lines against Bezier strokes".
        effect: as a share of accuracy, or of what `unit` says.
        low, high: its 95 % interval; blank where it has none.
        published: the same of the published runs; blank where no number was published.
        direction: the sign that the claim gives it, 0 for a claim of no effect, where the verdict
            is on the claim; if None it is on the published effect.
        note: a further sentence.
        unit: `points`, or `exponent` of a power law.
        notebook: that states it, and the name of the `figure` that shows it: of `Study.finding`.
    """

    compared: str
    effect: float
    low: float = np.nan
    high: float = np.nan
    published: float = np.nan
    direction: int | None = None
    note: str = ""
    unit: str = "points"
    notebook: str = ""
    figure: str = ""

    @property
    def verdict(self) -> str:
        """`agrees` where the interval lies wholly on the published, or claimed, side of zero,
        `disagrees` where on the other side, or off zero where no effect was claimed; else
        `cannot be told`.
        """
        expected = self.published if self.direction is None else self.direction
        if not np.isfinite([self.low, self.high, expected]).all() or self.low <= 0 <= self.high:
            return OPEN
        return AGREES if np.sign(self.low) == np.sign(expected) else DISAGREES

    def in_unit(self, *values: float) -> str:
        """Values as the effect's unit is written; a dash for what is blank."""
        if self.unit == "points" or any(map(pd.isna, values)):
            return points(*values)
        return " to ".join(f"{value:+.2f}" for value in values).replace("-", "−")

    def save(self, path: Path) -> None:
        """Write it as JSON, without what is blank."""
        known = {name: value for name, value in self._asdict().items() if not pd.isna(value)}
        write_atomically(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding, in words; what is claimed stands where the verdict is on the claim."""
    rows = {
        "compared": [each.compared for each in findings],
        "ours": [each.in_unit(each.effect) for each in findings],
        "95 % interval": [each.in_unit(each.low, each.high) for each in findings],
        "published effect": [each.in_unit(each.published) for each in findings],
        "claimed": [_CLAIMS.get(each.direction) for each in findings],
        "verdict": [each.verdict for each in findings],
        "note": [each.note for each in findings],
    }
    return pd.DataFrame(rows)


def load_findings(folder: Path) -> list[Finding]:
    """What notebooks have stated among a profile's tables, in their order."""
    paths = sorted(folder.glob("[0-9][0-9]_finding.json"))
    return [Finding(**json.loads(path.read_text())) for path in paths]


def per_doubling(
    frame: pd.DataFrame, x: str, *, within: Sequence[str] = ()
) -> tuple[float, float, float] | None:
    """Accuracy (majority) gained per doubling of `x`, by one straight line for all settings.

    Args:
        frame: long form, of own or of published runs.
        x: column of positive numbers.
        within: columns whose settings have levels of their own.

    Returns:
        The slope and its t interval, blank where no run is left to tell the spread; None where
        `x` does not vary within a setting.
    """
    runs = frame[frame["task"] == _TASK]
    runs = runs.drop_duplicates("id") if "id" in runs else runs
    settings = runs[list(within)].astype(str).agg(" ".join, axis=1)
    levels = pd.get_dummies(settings if len(settings) else pd.Series(dtype=str), dtype=float)
    design = levels.assign(doubling=np.log2(runs[x]))
    if len(runs) < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fit = sm.OLS(runs["accuracy"], design).fit()
    low, high = np.nan, np.nan
    if fit.df_resid > 0:
        low, high = fit.conf_int(1 - CONFIDENCE).loc["doubling"]
    return float(fit.params["doubling"]), float(low), float(high)


def published_row(table: pd.DataFrame) -> pd.Series | None:
    """Of an arm table the arm (majority) with the largest published effect, whatever ours is; the
    last where none was published, None where none has an effect."""
    rows = table[(table["task"] == _TASK) & table["effect"].notna()]
    if rows.empty:
        return None
    theirs = rows["published_effect"] if "published_effect" in rows else pd.Series(dtype=float)
    theirs = theirs.dropna()
    return rows.loc[theirs.abs().idxmax() if len(theirs) else rows.index[-1]]


def arm_finding(row: pd.Series | None, compared: str, **more: object) -> Finding | None:
    """A finding of one row of an arm table, or of another table with an effect and its bounds;
    None of no row.

    Args:
        row: such as `published_row` gives.
        compared: what with what; a column's name in braces stands for what the row has there.
        **more: further fields; `published` goes before the row's own.
    """
    if row is None:
        return None
    bounds = row[["effect", "effect_low", "effect_high"]].astype(float)
    more = {"published": row.get("published_effect", np.nan)} | more
    return Finding(compared.format_map(row), *bounds, **more)
