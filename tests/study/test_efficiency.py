"""Measurements over sides: kept and reused, told apart, and stopped where a way fails."""

import json
from itertools import product

import numpy as np
import pytest

from ipslib.errors import IpslibError
from ipslib.runs.executors import WorkerDied
from ipslib.study import efficiency
from ipslib.study.efficiency import NOT_TRIED, at_side, measure_runs, measure_sides
from ipslib.study.efficiency_step import DONE, OUT_OF_MEMORY, OUT_OF_TIME
from tests.tiny import TINY

LIMITS = {"memory_limit_mb": 500, "seconds_limit": 60, "n_steps": 1}
RATES = {"matmul": 2e9, "conv": 5e9}


@pytest.fixture
def asked(monkeypatch):
    """What is measured, in place of measuring: whole images fail at 168 px."""
    asked = []

    def fake(work, measurement):
        if work is efficiency.measure_rates:
            return RATES
        side = measurement.config.data.canvas[0]
        asked.append((measurement.variant, measurement.step, side))
        if measurement.variant == "whole" and side >= 168:
            return {"outcome": OUT_OF_MEMORY, "said": "no"}
        numbers = {"seconds": 2.0, "n_timed": 1, "operations": 40 * side, "peak_mb": 9.0}
        return {"outcome": DONE, "step_mb": side / 2} | numbers

    monkeypatch.setattr(efficiency, "do_alone", fake)
    return asked


def test_objects_keep_their_density_and_noise_its_patterns():
    base = TINY.replace(canvas=(84, 168), n_noise=6, n_patterns=11)
    large = at_side(base, 168)
    assert (large.data.canvas, large.data.n_noise, large.data.n_patterns) == ((168, 168), 12, 11)
    assert large.model == base.model


def test_each_variant_is_measured_up_to_where_it_fails(asked, tmp_path):
    measured = measure_sides(TINY, [336, 84, 168], tmp_path, **LIMITS)
    for step in ("classify", "train"):
        assert [side for name, of, side in asked if (name, of) == ("ips", step)] == [84, 168, 336]
        assert [side for name, of, side in asked if (name, of) == ("whole", step)] == [84, 168]
    row = measured.frame.iloc[0]  # of a batch of 4, at the faster of the two rates
    assert (row["seconds"], row["operations"]) == (2.0 / 4, 40 * 84 / 4)
    assert row["roofline_seconds"] == row["operations"] / 5e9
    rows = measured.frame.set_index(["variant", "step", "side"]).sort_index()
    outcomes = rows.loc[("whole", "train"), "outcome"]
    assert outcomes.to_dict() == {84: DONE, 168: OUT_OF_MEMORY, 336: NOT_TRIED}
    assert rows.loc[("whole", "train", 168), ["seconds", "step_mb"]].isna().all()
    assert rows["n_patches"].loc[("all", "classify")].to_dict() == {84: 9, 168: 36, 336: 144}


def test_what_was_measured_is_reused_and_what_differs_measured(asked, tmp_path, monkeypatch):
    first = measure_sides(TINY, [84], tmp_path, **LIMITS)
    n_measured = len(asked)
    assert n_measured == 6
    again = measure_sides(TINY, [84], tmp_path, **LIMITS)
    assert len(asked) == n_measured and again.frame.equals(first.frame)
    measure_sides(TINY, [84], tmp_path, **LIMITS | {"memory_limit_mb": 400})
    measure_sides(TINY.replace(memory_size=4), [84], tmp_path, **LIMITS)
    assert len(asked) == 3 * n_measured
    real = efficiency.provenance
    monkeypatch.setattr(efficiency, "provenance", lambda *of: real(*of) | {"device": "another"})
    measure_sides(TINY, [84], tmp_path, **LIMITS)
    assert len(asked) == 4 * n_measured


def test_a_run_is_measured_as_it_is_and_kept_like_a_variant(asked, tmp_path):
    runs = [TINY.replace(canvas=168, memory_size=36), TINY]
    frame = measure_runs(runs, tmp_path, **LIMITS)
    assert asked == [("ips", "train", 168), ("ips", "train", 84)]
    assert frame["step_mb"].tolist() == [84, 42] and frame["n_patches"].tolist() == [36, 9]
    measure_sides(TINY, [84], tmp_path, **LIMITS)
    assert asked.count(("ips", "train", 84)) == 1


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema": 0, "id": "x"}'])
def test_a_record_that_cannot_be_read_is_measured_again(asked, tmp_path, content):
    first = measure_sides(TINY, [84], tmp_path, **LIMITS)
    for path in tmp_path.glob("*.json"):
        path.write_text(content)
    again = measure_sides(TINY, [84], tmp_path, **LIMITS)
    assert len(asked) == 12 and again.frame.equals(first.frame)
    assert all(json.loads(path.read_text())["schema"] for path in tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("exitcode", "outcome"), [(-14, OUT_OF_TIME), (-11, "It died."), (1, "It died.")]
)
def test_a_process_that_dies_is_told_by_its_status(monkeypatch, tmp_path, exitcode, outcome):
    death = WorkerDied("It died.")
    death.exitcode = exitcode
    monkeypatch.setattr(efficiency, "do_alone", lambda *_: death)
    measurement = efficiency.Measurement(config=TINY)
    assert efficiency.measure_apart(measurement) == {"outcome": outcome}
    with pytest.raises(IpslibError, match="matrix rate"):
        measure_sides(TINY, [84], tmp_path, **LIMITS)


def test_a_real_measurement_in_processes_of_its_own(tmp_path):
    measured = measure_sides(TINY, [84], tmp_path, **LIMITS)
    frame = measured.frame.set_index(["variant", "step"])
    assert set(frame.index) == set(product(("ips", "all", "whole"), ("classify", "train")))
    assert (frame["outcome"] == DONE).all() and np.isfinite(frame["seconds"]).all()
    # Backward costs about twice what forward does, and IPS encodes for both all and the kept.
    train, classify = (frame["operations"].xs(step, level="step") for step in ("train", "classify"))
    assert train["whole"] > 2 * classify["whole"] and train["all"] > 2 * classify["all"]
    assert (frame["step_mb"] < frame["peak_mb"]).all()
    assert (frame["roofline_seconds"] < frame["seconds"]).all()
