import numpy as np
import pandas as pd
import pytest

from ipslib.study.findings import (
    AGREES,
    DISAGREES,
    OPEN,
    Finding,
    arm_finding,
    load_findings,
    per_doubling,
    published_row,
)
from ipslib.study.session import Study


def runs(gain: float) -> pd.DataFrame:
    """Two seeds of two digit sizes, which differ by 0.16, and `gain` per doubling of n_train."""
    rows = [
        {"id": f"{digit}-{n}-{seed}", "task": task, "digit_size": digit, "n_train": n}
        | {"seed": seed, "accuracy": digit / 100 + gain * step + 0.01 * (seed - 0.5)}
        for digit in (12, 28)
        for step, n in enumerate((100, 200, 400))
        for seed in (0, 1)
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


def arms(effects: dict[str, tuple]) -> pd.DataFrame:
    names = ["effect", "effect_low", "effect_high", "published_effect"]
    rows = [
        {"arm": arm, "task": task, **dict(zip(names, values, strict=True))}
        for arm, values in ({"reference": (np.nan,) * 4} | effects).items()
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("low", "high", "published", "direction", "verdict"),
    [
        (0.1, 0.3, 0.5, None, AGREES),
        (-0.3, -0.1, -0.5, None, AGREES),
        (0.1, 0.3, -0.5, None, DISAGREES),
        (-0.1, 0.3, 0.5, None, OPEN),
        (0.0, 0.3, 0.5, None, OPEN),
        (np.nan, np.nan, 0.5, None, OPEN),
        (0.1, 0.3, np.nan, None, OPEN),
        (0.1, 0.3, 0.4, 0, DISAGREES),  # the claim goes before the published number
        (-0.1, 0.1, 0.4, 0, OPEN),
        (0.1, 0.3, np.nan, 1, AGREES),
    ],
)
def test_only_an_interval_off_zero_takes_a_side(low, high, published, direction, verdict):
    assert Finding("a", 0.2, low, high, published, direction).verdict == verdict


def test_a_finding_is_kept_as_it_was_stated_and_removed_when_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    study = Study("13_efficiency", "smoke")
    stated = Finding("memory", -0.5, -0.75, -0.25, direction=-1, unit="exponent", note="So.")
    told = repr(study.finding(stated, figure="sides"))
    (found,) = load_findings(study.layout.tables)
    assert np.isnan(found.published) and found.verdict == AGREES
    assert found[:4] == stated[:4] and (found.unit, found.note) == ("exponent", "So.")
    assert (found.notebook, found.figure) == ("13_efficiency", "13_sides.png")
    assert "−0.50" in told and "−0.75 to −0.25" in told
    study.finding(None, figure="sides")
    assert load_findings(study.layout.tables) == []


def test_a_slope_is_per_doubling_with_a_level_for_every_setting():
    slope = per_doubling(runs(0.1), "n_train", within=["digit_size"])
    effect, low, high = slope
    assert effect == pytest.approx(0.1) and low < 0.1 < high < 0.12
    _, lower, higher = per_doubling(runs(0.1), "n_train")
    assert higher - lower > 2 * (high - low)  # levels count as spread


def test_a_slope_needs_two_values_within_a_setting_and_a_spare_run_for_its_interval():
    frame = runs(0.1)
    assert per_doubling(frame[frame["n_train"] == 100], "n_train") is None
    assert per_doubling(frame, "digit_size", within=["digit_size"]) is None
    few = frame.query("n_train < 400 and digit_size == 12 and seed == 0")
    effect, low, high = per_doubling(few, "n_train")
    assert effect == pytest.approx(0.1) and np.isnan([low, high]).all()


def test_the_arm_is_chosen_by_the_published_effect_not_by_ours():
    table = arms({"a": (-0.5, -0.6, -0.4, 0.1), "b": (0.01, -0.1, 0.1, -0.3)})
    finding = arm_finding(published_row(table), "{arm} in {task}")
    assert finding[:5] == ("b in majority", 0.01, -0.1, 0.1, -0.3)
    assert published_row(table.drop(columns="published_effect"))["arm"] == "b"
    assert published_row(table[table["arm"] == "reference"]) is None
