"""Checked fields of the frozen configurations: each says what it wanted and what came."""

import re
from collections.abc import Callable

import attrs

from ipslib.errors import IpslibError, did_you_mean

LARGEST = 2**31 - 1  # fits every integer of numpy, torch and JSON
_LARGEST_SIDE = 1_000_000


def _field(
    default: object,
    wanted: str,
    fits: Callable[[object], bool],
    *,
    converter: Callable[[object], object] | None = None,
    options: tuple[str, ...] = (),
) -> object:
    """A callable default takes the instance and derives the value from it."""

    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        if not fits(value):
            items = value if isinstance(value, tuple) else (value,)
            wrong = [item for item in items if item not in options]
            hint = did_you_mean(wrong[0], options) if options and wrong else ""
            raise IpslibError(f"{attribute.name}: wanted {wanted}, got {value!r}{hint}.")

    if callable(default):
        default = attrs.Factory(default, takes_self=True)
    return attrs.field(
        default=default, converter=converter, validator=check, metadata={"wanted": wanted}
    )


def integer(default: int | Callable, *, at_least: int = 1, at_most: int = LARGEST) -> int:
    """A whole number within closed bounds."""
    return _field(
        default,
        f"a whole number from {at_least} to {at_most}",
        lambda value: type(value) is int and at_least <= value <= at_most,
    )


def number(default: float, *, at_least: float = 0.0, at_most: float = 1e6) -> float:
    """A real number within closed bounds; whole numbers are taken as real ones."""

    def to_float(value: object) -> object:
        if type(value) is int and abs(value) <= LARGEST:
            return float(value)
        return value + 0.0 if isinstance(value, float) else value  # -0.0 is written as 0.0

    return _field(
        default,
        f"a number from {at_least:g} to {at_most:g}",
        lambda value: isinstance(value, float) and at_least <= value <= at_most,
        converter=to_float,
    )


def flag(default: bool) -> bool:
    return _field(default, "true or false", lambda value: isinstance(value, bool))


def choice(
    default: str | Callable, options: tuple[str, ...], *, form: str = "", pattern: str = "(?!)"
) -> str:
    """One of the options, or what matches a pattern, which `form` puts in words."""

    def fits(value: object) -> bool:
        return value in options or (isinstance(value, str) and bool(re.fullmatch(pattern, value)))

    wanted = f"one of {', '.join(options)}" + f" or {form}" * bool(form)
    return _field(default, wanted, fits, options=options)


def choices(default: tuple[str, ...], options: tuple[str, ...]) -> tuple[str, ...]:
    """Some of the options, each at most once."""

    def fits(value: object) -> bool:
        some = isinstance(value, tuple) and len(value) > 0
        return some and all(item in options and value.count(item) == 1 for item in value)

    wanted = f"some of {', '.join(options)}, each once"
    return _field(default, wanted, fits, converter=_to_tuple, options=options)


def side_lengths(default: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels; one number means a square."""

    def fits(value: object) -> bool:
        is_pair = isinstance(value, tuple) and len(value) == 2
        return is_pair and all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in value)

    def to_pair(value: object) -> object:
        return (value, value) if type(value) is int else _to_tuple(value)

    return _field(default, "a side in pixels or [height, width]", fits, converter=to_pair)


def _to_tuple(value: object) -> object:
    """A list, as YAML and JSON give it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def check_fits(canvas: tuple[int, int], **sides: int) -> None:
    """Refuse squares, by the field that gives their side in pixels, larger than the canvas."""
    for name, side in sides.items():
        if side > min(canvas):
            raise IpslibError(
                f"{name}: {side} px does not fit the canvas of {canvas[0]} x {canvas[1]} px; "
                f"enlarge canvas or reduce {name}."
            )
