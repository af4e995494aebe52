import pytest

from ipslib.errors import IpslibError, did_you_mean


def test_the_nearest_valid_name_is_offered():
    assert did_you_mean("majorty", ("majority", "max", "top")) == " (did you mean 'majority'?)"


def test_all_valid_names_are_listed_when_none_is_near():
    assert did_you_mean("zzz", ("b", "a")) == " (valid: a, b)"


@pytest.mark.parametrize("wrong", [5, None, ""])
def test_anything_can_be_wrong(wrong):
    assert "valid: a" in did_you_mean(wrong, ["a"])


def test_bad_input_is_a_value_error():
    assert issubclass(IpslibError, ValueError)
