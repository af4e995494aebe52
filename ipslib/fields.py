"""Checked fields of the frozen configurations: each says what it wanted and what came."""

from collections.abc import Callable

import attrs

from ipslib.errors import IpslibError, did_you_mean

_LARGEST = 2**31 - 1  # fits every integer of numpy, torch and JSON
_LARGEST_SIDE = 1_000_000


def _field(
    default: object,
    wanted: str,
    fits: Callable[[object], bool],
    *,
    converter: Callable[[object], object] | None = None,
    hint: Callable[[object], str] = lambda value: "",
) -> object:
    """A callable default takes the instance and derives the value from it."""

    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        if not fits(value):
            raise IpslibError(f"{attribute.name}: wanted {wanted}, got {value!r}{hint(value)}.")

    if callable(default):
        default = attrs.Factory(default, takes_self=True)
    return attrs.field(
        default=default, converter=converter, validator=check, metadata={"wanted": wanted}
    )


def integer(default: int | Callable, *, at_least: int = 1, at_most: int = _LARGEST) -> int:
    """A whole number within closed bounds."""
    return _field(
        default,
        f"a whole number from {at_least} to {at_most}",
        lambda value: type(value) is int and at_least <= value <= at_most,
    )


def number(default: float, *, at_least: float = 0.0, at_most: float = 1e6) -> float:
    """A real number within closed bounds; whole numbers are taken as real ones."""

    def to_float(value: object) -> object:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) > _LARGEST:
            return value
        return float(value) + 0.0  # -0.0 equals 0.0 and must not be written differently

    return _field(
        default,
        f"a number from {at_least:g} to {at_most:g}",
        lambda value: isinstance(value, float) and at_least <= value <= at_most,
        converter=to_float,
    )


def flag(default: bool) -> bool:
    return _field(default, "true or false", lambda value: isinstance(value, bool))


def choice(default: str | Callable, options: tuple[str, ...]) -> str:
    return _field(
        default,
        f"one of {', '.join(options)}",
        lambda value: value in options,
        hint=lambda value: did_you_mean(value, options),
    )


def choices(default: tuple[str, ...], options: tuple[str, ...]) -> tuple[str, ...]:
    """Some of the options, each at most once; lists (as YAML and JSON give) become tuples."""

    def fits(value: object) -> bool:
        some = isinstance(value, tuple) and len(value) > 0
        return some and all(item in options and value.count(item) == 1 for item in value)

    def hint(value: object) -> str:
        items = value if isinstance(value, tuple) else ()
        return next((did_you_mean(item, options) for item in items if item not in options), "")

    return _field(
        default,
        f"some of {', '.join(options)}, each once",
        fits,
        converter=lambda value: tuple(value) if isinstance(value, list) else value,
        hint=hint,
    )


def side_lengths(default: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels; one number means a square."""

    def to_pair(value: object) -> object:
        if type(value) is int:
            return (value, value)
        return tuple(value) if isinstance(value, list) else value

    def fits(value: object) -> bool:
        is_pair = isinstance(value, tuple) and len(value) == 2
        return is_pair and all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in value)

    return _field(default, "a side in pixels or [height, width]", fits, converter=to_pair)


def check_fits(canvas: tuple[int, int], **sides: int) -> None:
    """Refuse squares, by the field that gives their side in pixels, larger than the canvas."""
    for name, side in sides.items():
        if side > min(canvas):
            raise IpslibError(
                f"{name}: {side} px does not fit the canvas of {canvas[0]} x {canvas[1]} px; "
                f"enlarge canvas or reduce {name}."
            )
