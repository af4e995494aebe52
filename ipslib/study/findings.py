"""What the study found: each notebook judges its claim by one contrast, written down before any
run; the summary reads what they stated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from ipslib.errors import IpslibError
from ipslib.paths import write_atomically
from ipslib.study.statistics import LEVEL, MARGIN, over_seeds, seeds_needed
from ipslib.study.tables import change_along, paired_differences, points

SUPPORTS, CONTRADICTS = "supports", "contradicts"
NONE, OPEN = "equivalent to none", "open"
VERDICTS = (SUPPORTS, CONTRADICTS, NONE, OPEN)
_TASK = "majority"


class Finding(NamedTuple):
    """One claim, the contrast that judges it, and what came of it over seeds.

    Args:
        claim: in a few words.
        contrast: what is compared, such as "lines, against Bezier strokes".
        direction: the sign that the claim gives the effect, 0 for a claim of no effect.
        effect: mean over `n` seeds, as a share of accuracy or of what `unit` says; `sd` over seeds.
        low, high: its 95 % interval; blank where it has none.
        none: what the p value says: no effect beyond five points, or if False an effect.
        p: that value; Holm's where findings are read together.
        took_off: how many runs of each side took off, in words.
        published: the effect of the published runs; blank where there is none.
        measured: the verdict of a quantity that does not differ by chance and has no p value.
        note: a further sentence.
        unit: `points`, or `exponent` of a power law.
        notebook: that states it, the name of the `figure` that shows it, and the `source` of its
            data: of `Study.finding`.
    """

    claim: str
    contrast: str
    direction: int
    effect: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    sd: float = np.nan
    none: bool = False
    p: float = np.nan
    took_off: str = ""
    published: float = np.nan
    measured: str = ""
    note: str = ""
    unit: str = "points"
    notebook: str = ""
    figure: str = ""
    source: str = ""

    @property
    def verdict(self) -> str:
        """On the claim: `supports` and `contradicts` where there is an effect of its sign or of the
        other, `equivalent to none` where there is none beyond five points (`supports`, where none
        was claimed), `open` where the p value allows neither.
        """
        if self.measured:
            return self.measured
        if not self.p < LEVEL:
            return OPEN
        if self.none:
            return NONE if self.direction else SUPPORTS
        return SUPPORTS if np.sign(self.effect) == self.direction else CONTRADICTS

    @property
    def published_sign(self) -> str:
        """Whether the effect has the sign of the published one, where both can be told; a
        published one within five points is none."""
        if pd.isna(self.published) or self.verdict == OPEN:
            return ""
        ours = 0 if self.none else np.sign(self.effect)
        theirs = 0 if abs(self.published) <= MARGIN else np.sign(self.published)
        return "same" if ours == theirs else "other"

    def seeds(self, *, level: float = LEVEL) -> float:
        """How many seeds an arm would decide an open finding; blank if decided, or if there were
        too few to tell a spread."""
        if self.verdict != OPEN:
            return np.nan
        return seeds_needed(self.effect, self.sd, level=level, more_than=self.n)

    def in_unit(self, *values: float) -> str:
        """Values as the effect's unit is written; a dash for what is blank."""
        if self.unit == "points" or any(map(pd.isna, values)):
            return points(*values)
        return " to ".join(f"{value:+.2f}" for value in values).replace("-", "−")

    def save(self, path: Path) -> None:
        """Write it as JSON, without what is blank."""
        known = {name: value for name, value in self._asdict().items() if not pd.isna(value)}
        write_atomically(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def load_findings(folder: Path) -> list[Finding]:
    """What notebooks have stated among a profile's tables, in their order."""
    paths = sorted(folder.glob("[0-9][0-9]_finding.json"))
    return [Finding(**json.loads(path.read_text())) for path in paths]


def read_together(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with p values by Holm's method: if no claim had an effect, one study in twenty
    at most would tell any, though findings share runs. One that could not be judged counts too."""
    p = pd.Series([each.p for each in findings], dtype=float).fillna(1)
    judged = [not each.measured for each in findings]
    if any(judged):
        p[judged] = multipletests(p[judged], method="holm")[1]
    together = zip(findings, p, strict=True)
    return [each if pd.isna(each.p) else each._replace(p=float(holms)) for each, holms in together]


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding, in words. Seeds that are wanted are those that Holm's method asks of the
    clearest finding among as many open ones."""
    n_open = sum(each.verdict == OPEN and not each.measured for each in findings)
    seeds = [each.seeds(level=LEVEL / max(n_open, 1)) for each in findings]
    rows = {
        "claim": [each.claim for each in findings],
        "contrast": [each.contrast for each in findings],
        "took off": [each.took_off or "–" for each in findings],
        "seeds": [each.n or "–" for each in findings],
        "our effect": [each.in_unit(each.effect) for each in findings],
        "95 % interval": [each.in_unit(each.low, each.high) for each in findings],
        "p": ["–" if pd.isna(each.p) else f"{each.p:.2g}" for each in findings],
        "verdict": [each.verdict for each in findings],
        "seeds it would take": ["–" if pd.isna(n) else f"{n:.0f}" for n in seeds],
        "published effect": [each.in_unit(each.published) for each in findings],
        "published sign": [each.published_sign or "–" for each in findings],
    }
    return pd.DataFrame(rows)


def state(
    claim: str,
    contrast: str,
    changes: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    direction: int,
    by: str,
    **more: object,
) -> Finding | None:
    """A finding of one effect a seed; None without any.

    Whether there is an effect is asked of all runs. Whether there is none is asked of the seeds
    whose runs all took off, and not at all where a seed took off in some of its runs only.

    Args:
        claim, contrast, direction: of the finding; **more: further fields.
        changes: columns `seed` and `accuracy`, the effect.
        runs: that these were made of, with `seed`, and `took_off` where that is known.
        by: the runs' column that is contrasted: what took off is counted at both ends of it.

    Raises:
        IpslibError: two effects of one seed, which would count a network twice.
    """
    if changes["seed"].duplicated().any():
        raise IpslibError(f"{contrast}: wanted one effect a seed, got {sorted(changes['seed'])}.")
    if changes.empty:
        return None
    found, took_off = over_seeds(changes["accuracy"]), ""
    p_none = found["p_none"]
    if "took_off" in runs and runs["took_off"].notna().all():
        counts = runs.groupby(by, sort=by != "arm")["took_off"].agg(["sum", "size"]).iloc[[0, -1]]
        ends = [f"{n:.0f} of {size}" for _, n, size in counts.itertuples()]
        if by == "arm":  # the reference comes first
            took_off = f"{ends[1]}, against {ends[0]}"
        else:
            took_off = ", ".join(f"{n} at {of}" for n, of in zip(ends, counts.index, strict=True))
        share = runs[runs["seed"].isin(changes["seed"])].groupby("seed")["took_off"].mean()
        survived = changes["seed"].map(share) == 1
        p_none = over_seeds(changes.loc[survived, "accuracy"])["p_none"]
        p_none = p_none if share.isin([0, 1]).all() else np.nan
    none = bool(p_none < LEVEL)
    own = {"effect": found["effect"], "low": found["effect_low"], "high": found["effect_high"]}
    own |= {"n": found["n"], "sd": found["sd"], "p": p_none if none else found["p"]}
    return Finding(claim, contrast, direction, **own, none=none, took_off=took_off, **more)


def slope_finding(
    claim: str, contrast: str, frame: pd.DataFrame, x: str, **more: object
) -> Finding | None:
    """A finding of the change along `x`, one a seed, on majority; **more: of `state`."""
    runs = frame[frame["task"] == _TASK].drop_duplicates("id")
    return state(claim, contrast, change_along(runs, x, by=["seed"]), runs, by=x, **more)


def arm_finding(
    claim: str, frame: pd.DataFrame, arm: str, *, reference: str | None = None, **more: object
) -> Finding | None:
    """A finding of one arm against a reference, the first arm if None, on majority.

    Args:
        claim: of the finding; **more: of `state`.
        frame: of `run_arms`, or one comparison of `run_comparisons`.
    """
    reference = frame["arm"].iloc[0] if reference is None else reference
    runs = frame[(frame["task"] == _TASK) & frame["arm"].isin([arm, reference])]
    runs = runs.sort_values("arm", key=lambda arms: arms != reference, kind="stable")
    changes = paired_differences(runs, reference)
    return state(claim, f"{arm}, against {reference}", changes, runs, by="arm", **more)


def published_row(table: pd.DataFrame) -> pd.Series | None:
    """Of an arm table the arm (majority) with the largest published effect, whatever ours is; the
    last where none was published, None where none has an effect."""
    rows = table[(table["task"] == _TASK) & table["effect"].notna()]
    if rows.empty:
        return None
    theirs = rows["published_effect"] if "published_effect" in rows else pd.Series(dtype=float)
    theirs = theirs.dropna()
    return rows.loc[theirs.abs().idxmax() if len(theirs) else rows.index[-1]]
