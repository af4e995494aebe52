import numpy as np
import pandas as pd
import pytest

from ipslib.study.findings import (
    AGREES,
    DISAGREES,
    OPEN,
    Effect,
    Finding,
    findings_in_view,
    findings_table,
    in_words,
    verdict,
)
from ipslib.study.tables import show


@pytest.mark.parametrize(
    ("low", "high", "expected", "said"),
    [
        (0.1, 0.3, 0.5, AGREES),
        (-0.3, -0.1, -0.5, AGREES),
        (0.1, 0.3, -0.5, DISAGREES),
        (-0.3, -0.1, 0.5, DISAGREES),
        (-0.1, 0.3, 0.5, OPEN),
        (0.0, 0.3, 0.5, OPEN),
        (0.1, 0.3, 0, DISAGREES),
        (-0.1, 0.1, 0, OPEN),
        (np.nan, np.nan, 0.5, OPEN),
        (0.1, 0.3, np.nan, OPEN),
    ],
)
def test_only_an_interval_off_zero_takes_a_side(low, high, expected, said):
    assert verdict(low, high, expected) == said


def test_a_claimed_direction_goes_before_the_published_number():
    assert Effect("a", 0.2, 0.1, 0.3, published=0.4, direction=0).verdict == DISAGREES
    assert Effect("a", 0.2, 0.1, 0.3, direction=1).verdict == AGREES
    assert Effect("a", 0.2, 0.1, 0.3).verdict == OPEN


def test_words_state_effect_interval_counterpart_and_verdict():
    told = in_words(Effect("lines", -0.2, -0.31, -0.1, published=0.05))
    assert told == (
        "**lines**: −20 points (95 % interval −31 to −10). Published: +5 points. "
        "**Disagrees** with the published effect in direction."
    )
    assert in_words(Effect("lines", -0.2, direction=1)) == (
        "**lines**: −20 points. Published: no number; above zero is claimed. "
        "**Cannot be told**: there is no interval."
    )
    holds_zero = in_words(Effect("lines", 0.1, -0.1, 0.3, published=0.05))
    assert holds_zero.endswith("the interval holds zero.")


def test_the_table_keeps_numbers_and_the_view_their_units():
    memory = Effect("memory", -0.5, -0.75, -0.25, direction=-1, unit="exponent")
    findings = [Finding("01_a", "A?", Effect("a", 0.1)), Finding("13_b", "B?", memory)]
    table = findings_table(findings).set_index("notebook")
    assert table.loc["13_b", ["effect", "effect_low", "verdict"]].tolist() == [-0.5, -0.75, AGREES]
    assert pd.isna(table.loc["01_a", "effect_low"])
    view = findings_in_view(findings)
    assert view["ours"].tolist() == ["+10 points", "−0.50"]
    assert view["95 % interval"].tolist() == ["–", "−0.75 to −0.25"]
    assert "−0.75 to −0.25" in show(view)._repr_html_()
