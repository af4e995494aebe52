"""Checked fields of the frozen configurations: each says what it wanted and what came."""

from collections.abc import Callable

import attrs

from ipslib.errors import IpslibError, did_you_mean


def _refuse(attribute: attrs.Attribute, wanted: str, value: object) -> None:
    raise IpslibError(f"{attribute.name}: wanted {wanted}, got {value!r}.")


_LARGEST = 2**31 - 1  # fits every integer of numpy, torch and JSON
_LARGEST_SIDE = 1_000_000


def integer(default: int | Callable, *, at_least: int = 1, at_most: int = _LARGEST) -> int:
    """A whole number; a callable default takes the instance and derives the value from it."""

    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not at_least <= value <= at_most:
            _refuse(attribute, f"a whole number from {at_least} to {at_most}", value)

    return attrs.field(default=_default(default), validator=check)


def number(default: float, *, at_least: float = 0.0, at_most: float = 1e6) -> float:
    """A real number within closed bounds; whole numbers are taken as real ones."""

    def to_float(value: object) -> object:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) > _LARGEST:
            return value
        return float(value) + 0.0  # -0.0 equals 0.0 and must not be written differently

    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        if not isinstance(value, float) or not at_least <= value <= at_most:
            _refuse(attribute, f"a number from {at_least:g} to {at_most:g}", value)

    return attrs.field(default=default, converter=to_float, validator=check)


def flag(default: bool) -> bool:
    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        if not isinstance(value, bool):
            _refuse(attribute, "true or false", value)

    return attrs.field(default=default, validator=check)


def choice(default: str | Callable, options: tuple[str, ...]) -> str:
    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        if value not in options:
            hint = did_you_mean(str(value), options)
            raise IpslibError(
                f"{attribute.name}: wanted one of {', '.join(options)}, got {value!r}{hint}."
            )

    return attrs.field(default=_default(default), validator=check)


def choices(default: tuple[str, ...], options: tuple[str, ...]) -> tuple[str, ...]:
    """Some of the options, each at most once; lists (as YAML and JSON give) become tuples."""

    def to_tuple(value: object) -> object:
        return tuple(value) if isinstance(value, list | tuple) else value

    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        if not isinstance(value, tuple) or not value:
            _refuse(attribute, f"some of {', '.join(options)}, each once", value)
        for item in value:
            if item not in options:
                raise IpslibError(
                    f"{attribute.name}: unknown {item!r}{did_you_mean(str(item), options)}."
                )
        if len(set(value)) < len(value):
            _refuse(attribute, f"some of {', '.join(options)}, each once", value)

    return attrs.field(default=default, converter=to_tuple, validator=check)


def side_lengths(default: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels; one number means a square."""

    def to_pair(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return (value, value)
        return tuple(value) if isinstance(value, list) else value

    def check(instance: object, attribute: attrs.Attribute, value: object) -> None:
        is_pair = isinstance(value, tuple) and len(value) == 2
        if not is_pair or not all(
            type(side) is int and 1 <= side <= _LARGEST_SIDE for side in value
        ):
            _refuse(attribute, "a side in pixels or [height, width]", value)

    return attrs.field(default=default, converter=to_pair, validator=check)


def check_fits(canvas: tuple[int, int], **sides: int) -> None:
    """Refuse squares, by the field that gives their side in pixels, that are larger than the
    canvas."""
    for name, side in sides.items():
        if side > min(canvas):
            raise IpslibError(
                f"{name}: {side} px does not fit the canvas of {canvas[0]} x {canvas[1]} px; "
                f"enlarge canvas or reduce {name}."
            )


def _default(value: object) -> object:
    return attrs.Factory(value, takes_self=True) if callable(value) else value
