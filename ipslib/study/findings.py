"""What the study found: one effect a notebook, with its interval and its published counterpart."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ipslib.study.wording import points

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "cannot be told"


class Effect(NamedTuple):
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
    """

    compared: str
    effect: float
    low: float = np.nan
    high: float = np.nan
    published: float = np.nan
    direction: int | None = None
    note: str = ""
    unit: str = "points"

    @property
    def verdict(self) -> str:
        expected = self.published if self.direction is None else self.direction
        return verdict(self.low, self.high, expected)


class Finding(NamedTuple):
    """A notebook's question, and the effect that answers it."""

    notebook: str
    question: str
    effect: Effect


def verdict(low: float, high: float, expected: float) -> str:
    """Whether an effect goes the published way.

    Args:
        low, high: 95 % interval of the effect.
        expected: any number of the published effect's sign; 0 where none was claimed.

    Returns:
        `agrees` where the interval lies wholly on the published side of zero, `disagrees` where
        on the other side, or off zero where no effect was claimed; else `cannot be told`.
    """
    if not np.isfinite([low, high, expected]).all() or low <= 0 <= high:
        return OPEN
    return AGREES if np.sign(low) == np.sign(expected) else DISAGREES


def in_unit(effect: Effect, *values: float) -> str:
    """Values as the effect's unit is written; a dash for what is blank."""
    if any(map(pd.isna, values)):
        return "–"
    if effect.unit == "points":
        return points(*values)
    return " to ".join(f"{value:+.2f}" for value in values).replace("-", "−")


def in_words(effect: Effect) -> str:
    """An effect with its interval, its published counterpart and the verdict."""
    said = f"**{effect.compared}**: {in_unit(effect, effect.effect)}"
    if pd.notna(effect.low):
        bounds = in_unit(effect, effect.low, effect.high).removesuffix(" points")
        said += f" (95 % interval {bounds})"
    ways = {
        -1: "; below zero is claimed",
        0: "; no effect is claimed",
        1: "; above zero is claimed",
    }
    theirs = "no number" if pd.isna(effect.published) else in_unit(effect, effect.published)
    theirs += ways.get(effect.direction, "")
    other = "published effect" if effect.direction is None else "claim"
    reasons = {
        AGREES: f"**Agrees** with the {other} in direction.",
        DISAGREES: f"**Disagrees** with the {other} in direction.",
        OPEN: "**Cannot be told**: "
        + ("there is no interval." if pd.isna(effect.low) else "the interval holds zero."),
    }
    return " ".join(filter(None, [f"{said}. Published: {theirs}.", reasons[effect.verdict]]))


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row a finding, in numbers: what is kept as CSV."""
    rows = [
        {"notebook": f.notebook, "question": f.question}
        | {"compared": f.effect.compared, "unit": f.effect.unit}
        | {"effect": f.effect.effect, "effect_low": f.effect.low, "effect_high": f.effect.high}
        | {"published_effect": f.effect.published, "verdict": f.effect.verdict}
        for f in findings
    ]
    return pd.DataFrame(rows)


def findings_in_view(findings: Iterable[Finding]) -> pd.DataFrame:
    """The same for a page: a column for the effect with its interval, each in its unit."""
    rows = [
        {
            "": f.notebook.split("_")[0],
            "question": f.question,
            "compared": f.effect.compared,
            "ours": in_unit(f.effect, f.effect.effect),
            "95 % interval": in_unit(f.effect, f.effect.low, f.effect.high),
            "published effect": in_unit(f.effect, f.effect.published),
            "verdict": f.effect.verdict,
        }
        for f in findings
    ]
    return pd.DataFrame(rows)
