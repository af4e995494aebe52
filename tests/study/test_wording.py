import numpy as np
import pandas as pd
import pytest

from ipslib.errors import IpslibError
from ipslib.study.wording import effect_in_words, points

TABLE = pd.DataFrame(
    [
        ["reference", "majority", np.nan, np.nan, np.nan],
        ["masked", "majority", -0.123, -0.2, 0.041],
        ["masked", "top", 0.05, np.nan, np.nan],
    ],
    columns=["arm", "task", "effect", "effect_low", "effect_high"],
)


def test_differences_are_signed_points():
    assert [points(share) for share in (-0.123, -0.0035, 0.996)] == [
        "−12 points",
        "0 points",
        "+100 points",
    ]
    assert points(-0.7, 0.08) == "−70 to +8 points"


def test_an_effect_comes_with_its_interval_where_it_has_one():
    assert effect_in_words(TABLE, "masked") == "−12 points (95 % interval −20 to +4)"
    assert effect_in_words(TABLE, "masked", "top") == "+5 points"


@pytest.mark.parametrize("wrong", [("maskd", "majority"), ("masked", "max")])
def test_what_is_not_in_the_table_is_refused(wrong):
    with pytest.raises(IpslibError, match=f"no arm '{wrong[0]}' with task '{wrong[1]}'"):
        effect_in_words(TABLE, *wrong)
