import pandas as pd
import pytest

from ipslib.errors import IpslibError
from ipslib.study.coverage import coverage_arms, coverage_in_words

COUNTS = {28: 800, 56: 600, 84: 400, 112: 200}


def test_every_size_has_its_own_count_and_that_of_equal_coverage():
    arms = coverage_arms(COUNTS, [28, 56, 112], like=28)
    assert list(arms) == [
        "28 px, 800 objects",
        "56 px, 600 objects, as designed",
        "56 px, 200 objects, same coverage",
        "112 px, 200 objects, as designed",
        "112 px, 50 objects, same coverage",
    ]
    same = [fields for arm, fields in arms.items() if "designed" not in arm]
    assert {fields["n_noise"] * fields["digit_size"] ** 2 for fields in same} == {800 * 28**2}


def test_equal_counts_stand_once_and_no_canvas_is_left_without_noise():
    assert list(coverage_arms({10: 8, 20: 2, 90: 5}, [20, 90], like=10)) == [
        "10 px, 8 objects",
        "20 px, 2 objects, same coverage",
        "90 px, 5 objects, as designed",
        "90 px, 1 object, same coverage",
    ]
    assert len(coverage_arms(COUNTS, [], like=56)) == 1


@pytest.mark.parametrize("sizes, like", [([40], 28), ([28], 40)])
def test_a_size_without_a_count_is_refused(sizes, like):
    with pytest.raises(IpslibError, match=r"got 40; choose among them"):
        coverage_arms(COUNTS, sizes, like=like)


@pytest.mark.parametrize(
    "same_coverage, words",
    [
        ((0.05, 0.1), "smaller at 2 of 2 other sizes: part of what looks like size"),
        ((0.3, 0.1), "smaller at 1 of 2 other sizes: what part"),
        ((-0.3, 0.3), "smaller at 0 of 2 other sizes: the noise that comes with size does not"),
    ],
)
def test_gaps_of_both_designs_are_compared_size_by_size(same_coverage, words):
    arms = coverage_arms(COUNTS, [56, 112], like=28)
    effect = [float("nan"), 0.2, same_coverage[0], 0.25, same_coverage[1]]
    effects = pd.DataFrame({"arm": list(arms), "task": "majority", "effect": effect})
    bounds = {"effect_low": effects["effect"] - 0.1, "effect_high": effects["effect"] + 0.1}
    assert words in coverage_in_words(effects.assign(**bounds), arms)
    wide = effects.assign(effect_low=-0.5, effect_high=0.5)
    assert "No effect of size is clear" in coverage_in_words(wide, arms)
    alone = coverage_arms(COUNTS, [], like=28)
    assert "No size" in coverage_in_words(wide.iloc[:1], alone)
