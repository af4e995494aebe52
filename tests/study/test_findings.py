import numpy as np
import pandas as pd
import pytest

from ipslib.errors import IpslibError
from ipslib.study.findings import (
    CONTRADICTS,
    NONE,
    OPEN,
    SUPPORTS,
    Finding,
    arm_finding,
    findings_table,
    load_findings,
    published_row,
    read_together,
    slope_finding,
    state,
)
from ipslib.study.session import Study
from ipslib.study.statistics import over_seeds

SEEDS = 6
CLOSE, WIDE = 0.01 * np.array([1, -1, 2, -2, 0, 0]), 0.3 * np.array([1, -1, 1, -1, 1, 0])


def arms(arm: np.ndarray, reference: np.ndarray = CLOSE[::-1] + 0.7) -> pd.DataFrame:
    """Runs of two arms with these accuracies, one a seed; above 0.4 they took off."""
    rows = [
        {"arm": name, "id": f"{name} {seed}", "task": task, "seed": seed, "accuracy": accuracy}
        | {"took_off": float(accuracy > 0.4), "size": size}
        for name, values, size in (("reference", reference, 100), ("arm", arm, 400))
        for seed, accuracy in enumerate(values)
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("arm", "direction", "verdict"),
    [
        (0.9 + CLOSE, 1, SUPPORTS),
        (0.5 + CLOSE, -1, SUPPORTS),
        (0.5 + CLOSE, 1, CONTRADICTS),
        (0.7 + CLOSE, 1, NONE),
        (0.7 + CLOSE, 0, SUPPORTS),  # no effect was claimed
        (0.5 + CLOSE, 0, CONTRADICTS),
        (0.65 + WIDE, 1, OPEN),
        (0.65 + WIDE, 0, OPEN),
        (np.r_[0.7 + CLOSE[:5], 0.1], 1, OPEN),  # no effect but for one that did not take off
        (np.full(SEEDS, 0.1), -1, SUPPORTS),
    ],
)
def test_each_verdict_is_reached_by_data_made_for_it(arm, direction, verdict):
    frame = arms(arm)
    finding = arm_finding("a claim", frame, "arm", direction=direction)
    assert finding.verdict == verdict
    along = slope_finding("a claim", "sizes", frame, "size", direction=direction)
    assert along.verdict == verdict and along.effect == pytest.approx(finding.effect)
    assert (finding.seeds() > SEEDS) == (verdict == OPEN)


def test_what_took_off_is_counted_on_both_sides_and_no_effect_asked_where_it_differs():
    frame, against = (
        arms(np.r_[0.7 + CLOSE[:4], 0.1, 0.1]),
        {"reference": "reference", "direction": 1},
    )
    finding = arm_finding("a claim", frame, "arm", **against)
    assert finding.took_off == "4 of 6, against 6 of 6" and not finding.none
    assert arm_finding("a claim", frame[::-1], "arm", **against).took_off == finding.took_off
    both_fail = arms(np.r_[0.7 + CLOSE[:4], 0.1, 0.1], np.r_[0.7 + CLOSE[:4], 0.1, 0.1])
    assert arm_finding("a claim", both_fail, "arm", direction=1).verdict == NONE
    unknown = arms(0.7 + CLOSE).drop(columns="took_off")
    finding = arm_finding("a claim", unknown, "arm", direction=1)
    assert finding.took_off == "" and finding.verdict == NONE


def test_two_seeds_decide_nothing_and_no_network_counts_twice():
    frame = arms(0.9 + CLOSE)
    two = arm_finding("a claim", frame[frame["seed"] < 2], "arm", direction=1)
    assert two.n == 2 and two.verdict == OPEN and two.seeds() >= 3
    assert arm_finding("a claim", pd.concat([frame] * 5), "arm", direction=1).n == SEEDS
    shared = frame.assign(id=frame["seed"].astype(str))
    assert arm_finding("a claim", shared, "arm", direction=1) is None
    changes = pd.DataFrame({"seed": [0, 1, 1], "accuracy": 0.1})
    with pytest.raises(IpslibError, match="one effect a seed"):
        state("a claim", "arms", changes, frame, direction=1, by="arm")


@pytest.mark.parametrize(
    ("effect", "none", "p", "published", "sign"),
    [
        (0.2, False, 0.01, 0.3, "same"),
        (0.2, False, 0.01, -0.3, "other"),
        (0.2, False, 0.01, 0.02, "other"),  # within five points is none
        (0.01, True, 0.01, 0.02, "same"),
        (0.2, False, 0.2, 0.3, ""),
        (0.2, False, 0.01, np.nan, ""),
    ],
)
def test_the_published_sign_is_compared_where_both_can_be_told(effect, none, p, published, sign):
    told = {"effect": effect, "none": none, "p": p, "published": published}
    assert Finding("claim", "contrast", 1, **told).published_sign == sign


def test_read_together_p_values_are_holms_and_open_ones_are_priced():
    one = Finding("claim", "contrast", 1, effect=0.2, n=5, sd=0.1)
    p = (0.001, 0.04, 0.03, np.nan)
    measured = one._replace(measured=SUPPORTS)
    findings = read_together([*(one._replace(p=each) for each in p), measured])
    expected = pytest.approx([0.004, 0.09, 0.09, np.nan], nan_ok=True)
    assert [each.p for each in findings[:4]] == expected
    assert [each.verdict for each in findings] == [SUPPORTS, OPEN, OPEN, OPEN, SUPPORTS]
    table = findings_table(findings)
    seeds = table["seeds it would take"]
    assert seeds[0] == seeds[4] == "–" and int(seeds[1]) > 5
    assert int(findings_table([findings[1]])["seeds it would take"][0]) <= int(seeds[1])
    assert read_together([]) == []


def test_of_claims_without_effect_one_study_in_twenty_at_most_tells_any(monkeypatch):
    monkeypatch.setattr("gc.collect", int)  # statsmodels collects garbage at every call
    random, told = np.random.default_rng(0), 0
    took_off = random.random((200, 4, 2, 5)) < 0.7
    for study in 0.7 * took_off + random.normal(0.1, 0.02, took_off.shape):
        found = [over_seeds(arm - reference) for arm, reference in study]
        stated = [Finding("claim", "arms", 1, each["effect"], p=each["p"]) for each in found]
        told += any(each.verdict != OPEN for each in read_together(stated))
    assert told / 200 <= 0.07


def test_a_finding_is_kept_as_it_was_stated_and_removed_when_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    study = Study("13_efficiency", "smoke")
    stated = Finding("it stays", "memory", 0, 0.02, measured=SUPPORTS, unit="exponent", note="So.")
    told = repr(study.finding(stated, figure="sides"))
    (found,) = load_findings(study.layout.tables)
    assert np.isnan([found.published, found.p]).all() and found.verdict == SUPPORTS
    assert found[:4] == stated[:4] and (found.unit, found.note) == ("exponent", "So.")
    assert (found.notebook, found.figure) == ("13_efficiency", "13_sides.png")
    assert "+0.02" in told
    judged = arm_finding("a claim", arms(0.7 + CLOSE), "arm", direction=0)
    study.finding(judged, figure="sides")
    (found,) = load_findings(study.layout.tables)
    assert found.none and found.verdict == SUPPORTS and found.p == judged.p
    study.finding(None, figure="sides")
    assert load_findings(study.layout.tables) == []


def test_the_arm_is_chosen_by_the_published_effect_not_by_ours():
    effects = {"reference": (np.nan, np.nan), "a": (-0.5, 0.1), "b": (0.01, -0.3)}
    columns = ["effect", "published_effect"]
    rows = pd.DataFrame.from_dict(effects, orient="index", columns=columns).rename_axis("arm")
    table = pd.concat([rows.assign(task=task) for task in ("majority", "top")]).reset_index()
    assert published_row(table)[["arm", "task"]].tolist() == ["b", "majority"]
    assert published_row(table.drop(columns="published_effect"))["arm"] == "b"
    assert published_row(table[table["arm"] == "reference"]) is None
