"""What reading a set of traffic signs found: what was kept, left out, repaired and skipped."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    import pandas as pd

REPAIRED, SKIPPED = "repaired", "skipped"


class Problem(NamedTuple):
    """One thing that is not as it should be, and what was done about it."""

    action: str  # repaired: read as meant; skipped: the image is not used
    kind: str
    file: str
    line: int | None  # from 1
    image: str | None
    message: str  # one sentence: where, wanted, got, remedy


@attrs.frozen
class ReadReport:
    """Of one set; `kept` and `left_out` count images, `problems` are in the order of the file."""

    name: str
    n_lines: int
    n_misc: int  # MISC_SIGNS entries, which have no box and are passed over as published
    kept: dict[str, int]  # by class
    left_out: dict[str, int]  # by reason, as published
    problems: tuple[Problem, ...]

    @property
    def repaired(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.action == REPAIRED)

    @property
    def skipped(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.action == SKIPPED)

    def table(self) -> "pd.DataFrame":
        """A row a problem, with the columns of `Problem`."""
        import pandas as pd  # training does without

        return pd.DataFrame(self.problems, columns=Problem._fields).astype({"line": "Int64"})

    def summary(self) -> str:
        """One line of counts, and a sentence for every image that was skipped."""
        classes = _counted(self.kept.items())
        counts = [f"{sum(self.kept.values())} images kept of {self.n_lines} lines ({classes})"]
        if any(self.left_out.values()):
            counts.append(f"left out as published: {_counted(self.left_out.items())}")
        counts.append(f"MISC_SIGNS passed over: {self.n_misc}")
        counts += [
            f"{action}: {_counted(Counter(p.kind for p in group).items()) or 'none'}"
            for action, group in [(REPAIRED, self.repaired), (SKIPPED, self.skipped)]
        ]
        return "\n".join([f"{self.name}: {'; '.join(counts)}.", *(p.message for p in self.skipped)])


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts)
