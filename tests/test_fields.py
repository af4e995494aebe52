import attrs
import pytest

from ipslib.errors import IpslibError
from ipslib.fields import choice, choices, flag, integer, number, side_lengths


@attrs.frozen(kw_only=True)
class Sample:
    count: int = integer(3, at_least=1, at_most=9)
    derived: int = integer(lambda self: 2 * self.count)
    rate: float = number(0.5, at_most=1.0)
    on: bool = flag(False)
    colour: str = choice("red", ("red", "green"))
    tasks: tuple[str, ...] = choices(("a",), ("a", "b"))
    canvas: tuple[int, int] = side_lengths((4, 5))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("count", [0, 10, 2.0, True, "2"]),
        ("rate", [1.5, float("nan"), float("inf"), True, None, 10**400]),
        ("on", [1]),
        ("colour", ["gren", ["red"]]),
        ("tasks", [["c"], [["a"]], ["a", "a"], [], "a"]),
        ("canvas", [0, [4], [4, 5.0], True, 10**12]),
    ],
)
def test_a_refusal_names_the_field_what_was_wanted_and_what_came(name, values):
    for value in values:
        with pytest.raises(IpslibError, match=f"^{name}: wanted .*, got .*\\.$"):
            Sample(**{name: value})


def test_values_as_yaml_gives_them_are_taken():
    sample = Sample(rate=1, tasks=["b", "a"], canvas=[7, 8])
    assert (sample.rate, sample.tasks, sample.canvas) == (1.0, ("b", "a"), (7, 8))
    assert isinstance(sample.rate, float)
    assert Sample(canvas=6).canvas == (6, 6)


def test_zero_is_written_in_one_way():
    assert str(Sample(rate=-0.0).rate) == "0.0"


def test_a_derived_default_follows_the_instance_unless_given():
    assert (Sample(count=4).derived, Sample(count=4, derived=1).derived) == (8, 1)
