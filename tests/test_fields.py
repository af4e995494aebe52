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
    ("name", "value", "message"),
    [
        ("count", 0, "count: wanted a whole number from 1 to 9, got 0."),
        ("count", 10, "count: wanted a whole number from 1 to 9, got 10."),
        ("count", 2.0, "count: wanted a whole number from 1 to 9, got 2.0."),
        ("count", True, "count: wanted a whole number from 1 to 9, got True."),
        ("count", "2", "count: wanted a whole number from 1 to 9, got '2'."),
        ("rate", 1.5, "rate: wanted a number from 0 to 1, got 1.5."),
        ("rate", float("nan"), "rate: wanted a number from 0 to 1, got nan."),
        ("rate", float("inf"), "rate: wanted a number from 0 to 1, got inf."),
        ("rate", True, "rate: wanted a number from 0 to 1, got True."),
        ("rate", None, "rate: wanted a number from 0 to 1, got None."),
        ("on", 1, "on: wanted true or false, got 1."),
        ("colour", "gren", "wanted one of red, green, got 'gren' (did you mean 'green'?)."),
        ("colour", ["red"], "colour: wanted one of red, green, got ['red']"),
        ("tasks", ["c"], "(valid: a, b)."),
        ("tasks", [["a"]], "tasks: wanted some of a, b, each once, got (['a'],)"),
        ("tasks", ["a", "a"], "tasks: wanted some of a, b, each once, got ('a', 'a')."),
        ("tasks", [], "tasks: wanted some of a, b, each once, got ()."),
        ("tasks", "a", "tasks: wanted some of a, b, each once, got 'a'."),
        ("canvas", 0, "canvas: wanted a side in pixels or [height, width], got (0, 0)."),
        ("canvas", [4], "canvas: wanted a side in pixels or [height, width], got (4,)."),
        ("canvas", [4, 5.0], "canvas: wanted a side in pixels or [height, width], got (4, 5.0)."),
        ("canvas", True, "canvas: wanted a side in pixels or [height, width], got True."),
        ("canvas", 10**12, "canvas: wanted a side in pixels or [height, width]"),
    ],
)
def test_a_refusal_says_what_was_wanted_and_what_came(name, value, message):
    with pytest.raises(IpslibError) as refusal:
        Sample(**{name: value})
    assert message in str(refusal.value)


def test_a_whole_number_beyond_floating_point_is_refused_as_any_other():
    with pytest.raises(IpslibError, match="rate: wanted a number from 0 to 1"):
        Sample(rate=10**400)


def test_values_as_yaml_gives_them_are_taken():
    sample = Sample(rate=1, tasks=["b", "a"], canvas=[7, 8])
    assert (sample.rate, sample.tasks, sample.canvas) == (1.0, ("b", "a"), (7, 8))
    assert isinstance(sample.rate, float)
    assert Sample(canvas=6).canvas == (6, 6)


def test_zero_is_written_in_one_way():
    assert str(Sample(rate=-0.0).rate) == "0.0"


def test_a_derived_default_follows_the_instance_unless_given():
    assert (Sample(count=4).derived, Sample(count=4, derived=1).derived) == (8, 1)


def test_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Sample().count = 4
