"""Digit sizes compared with the share of the canvas that noise covers held fixed."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ipslib.errors import IpslibError


def coverage_arms(
    counts: Mapping[int, int], sizes: Sequence[int], *, like: int
) -> dict[str, dict[str, int]]:
    """Arms for `run_arms`: every size with its own noise count and with that of equal coverage.

    Noise objects are as large as digits, so that n objects of side s cover n s^2 pixels of a
    canvas, where they do not overlap. As published, larger digits have fewer objects, which yet
    cover more: size, count and coverage vary together.

    Args:
        counts: noise objects by digit size in px, as designed.
        sizes: digit sizes to compare; an arm whose two counts are the same stands once.
        like: the digit size whose coverage is kept; it is the first arm.

    Raises:
        IpslibError: a size has no count.
    """
    for size in (like, *sizes):
        if size not in counts:
            raise IpslibError(
                f"wanted digit sizes of this grid, {list(counts)}, to hold coverage fixed, got "
                f"{size}; choose among them, or leave the list of sizes empty."
            )
    arms = {_label(like, counts[like], ""): {"digit_size": like, "n_noise": counts[like]}}
    for size in sizes:
        equal = max(1, round(counts[like] * like**2 / size**2))
        designs = {counts[size]: ", as designed", equal: ", same coverage"}
        for n_noise, design in designs.items():
            if size != like:
                arms[_label(size, n_noise, design)] = {"digit_size": size, "n_noise": n_noise}
    return arms


def coverage_in_words(effects: pd.DataFrame, arms: Mapping[str, Mapping[str, int]]) -> str:
    """Whether the gap between sizes (majority) is smaller once noise covers as much at each.

    Args:
        effects: of `arm_table`, of the runs of `arms`.
        arms: of `coverage_arms`.
    """
    rows = effects[effects["task"] == "majority"].set_index("arm")
    sizes = pd.Series({arm: fields["digit_size"] for arm, fields in arms.items()})
    pairs = [rows.loc[own.index] for _, own in sizes.groupby(sizes, sort=False) if len(own) == 2]
    if not pairs:
        return "No size was run with both noise counts."
    if not any((pair["effect_low"] * pair["effect_high"]).iloc[0] > 0 for pair in pairs):
        return "No effect of size is clear in these runs, so none can be divided."
    gaps = [pair["effect"].abs() for pair in pairs]
    n_less = sum(same_coverage < designed for designed, same_coverage in gaps)
    told = f"With the same coverage the gap is smaller at {n_less} of {len(gaps)} other sizes: "
    if n_less == len(gaps):
        return told + "part of what looks like size is the noise that comes with it."
    if n_less == 0:
        return told + "the noise that comes with size does not make its effect."
    return told + "what part of the effect of size is that of noise cannot be told."


def _label(size: int, n_noise: int, design: str) -> str:
    return f"{size} px, {n_noise} object{'s' if n_noise != 1 else ''}{design}"
