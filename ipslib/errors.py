"""The one exception a user of ipslib has to know, and what goes into its sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class IpslibError(ValueError):
    """Bad input: the message is one sentence with what was wanted, what came and the remedy."""


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """Return the nearest valid name as a hint, or all valid names when none is near."""
    valid = sorted(map(str, valid))
    near = get_close_matches(str(wrong), valid, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else f" (valid: {', '.join(valid)})"


def reason_of(error: Exception) -> str:
    """What a foreign error says, in one line: the last, since torch puts headings before."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason').splitlines()[-1].strip()}"
