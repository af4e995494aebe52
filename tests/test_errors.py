import pytest

from ipslib.errors import did_you_mean


@pytest.mark.parametrize(
    ("wrong", "valid", "hint"),
    [
        ("majorty", ("majority", "max", "top"), "did you mean 'majority'?"),
        ("zzz", ("b", "a"), "valid: a, b"),
        (5, ["a"], "valid: a"),
        (None, ["a"], "valid: a"),
        ("", ["a"], "valid: a"),
    ],
)
def test_the_nearest_valid_name_is_offered_or_all_where_none_is_near(wrong, valid, hint):
    assert did_you_mean(wrong, valid) == f" ({hint})"
