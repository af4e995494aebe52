import numpy as np
import pandas as pd
import pytest

from ipslib.study.finding_sources import (
    SOURCES,
    find_figure,
    per_doubling,
    published_row,
    read_effect,
)
from ipslib.study.findings import AGREES, DISAGREES, OPEN

SIZES = (100, 200, 400)


def runs(gain: float, *, wobble: float = 0.01) -> pd.DataFrame:
    rows = [
        {"id": f"{digit}-{n}-{seed}", "task": task, "canvas": 384, "digit_size": digit}
        | {"n_noise": 4, "n_train": n, "seed": seed}
        | {"accuracy": digit / 100 + gain * step + wobble * (seed - 0.5)}
        for digit in (12, 28)
        for step, n in enumerate(SIZES)
        for seed in (0, 1)
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


def arms(effects: dict[str, tuple], **more) -> pd.DataFrame:
    names = ["effect", "effect_low", "effect_high", "published_effect"]
    rows = [
        {"arm": arm, "task": task, **dict(zip(names, values, strict=True))} | more
        for arm, values in ({"reference": (np.nan,) * 4} | effects).items()
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


def test_a_slope_is_per_doubling_with_a_level_for_every_setting():
    slope = per_doubling(runs(0.1), "n_train", within=("canvas", "digit_size", "absent"))
    assert slope.effect == pytest.approx(0.1)
    assert slope.low < 0.1 < slope.high < 0.12
    alone = per_doubling(runs(0.1), "n_train")
    assert alone.effect == pytest.approx(0.1)
    assert alone.high - alone.low > 2 * (slope.high - slope.low)  # levels count as spread


def test_a_slope_needs_two_values_within_a_setting_and_a_spare_run_for_its_interval():
    frame = runs(0.1)
    assert per_doubling(frame[frame["n_train"] == 100], "n_train") is None
    assert per_doubling(frame, "digit_size", within=("digit_size",)) is None
    few = frame[frame["n_train"].isin([100, 200]) & (frame["digit_size"] == 12)]
    few = per_doubling(few[few["seed"] == 0], "n_train")
    assert few.effect == pytest.approx(0.1) and np.isnan([few.low, few.high]).all()


def test_the_arm_is_chosen_by_the_published_effect_not_by_ours():
    table = arms({"a": (-0.5, -0.6, -0.4, 0.1), "b": (0.01, -0.1, 0.1, -0.3)})
    assert published_row(table)["arm"] == "b"
    assert published_row(table)["task"] == "majority"
    assert published_row(table.drop(columns="published_effect"))["arm"] == "b"
    assert published_row(table[table["arm"] == "reference"]) is None


def test_tables_that_are_not_there_are_no_finding(tmp_path):
    assert all(read_effect(notebook, tmp_path) is None for notebook in SOURCES)
    assert find_figure("03_attention_masking", tmp_path) is None
    (tmp_path / "03_phases_1800.png").touch()
    assert find_figure("03_attention_masking", tmp_path).name == "03_phases_1800.png"


@pytest.mark.parametrize(("gain", "said"), [(0.1, AGREES), (-0.1, DISAGREES), (0.0, OPEN)])
def test_more_images_help_as_published(tmp_path, gain, said):
    runs(gain, wobble=0.1).to_csv(tmp_path / "04_runs.csv", index=False)
    effect = read_effect("04_dataset_size", tmp_path)
    assert effect.published > 0.1  # per doubling, of the published runs
    assert effect.verdict == said


def test_masking_is_that_of_both_phases_with_the_part_of_its_own_training_size(tmp_path):
    values = (-0.3, -0.4, -0.2, -0.34)
    tables = [
        arms({"K 4: training": values, "K 4: both": values}, n_train=n, seen=n) for n in (100, 200)
    ]
    tables[1]["published_effect"] *= 2
    pd.concat(tables).to_csv(tmp_path / "03_summary.csv", index=False)
    part = {"masking": "K 4", "both": -0.3, "evaluation": -0.1}
    rows = [
        part | {"n_train": n, "training": training, "due_to_evaluation": -0.3 - training}
        for n, training in ((100, -0.1), (200, -0.25))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "03_loss.csv", index=False)
    effect = read_effect("03_attention_masking", tmp_path)
    assert effect.verdict == AGREES
    assert "training alone −25 points; due to evaluation −5 points" in effect.note


def test_a_frozen_encoder_with_weights_goes_before_a_random_one(tmp_path):
    table = arms({"random": (-0.5, -0.6, -0.4, np.nan), "weights": (-0.3, -0.4, -0.2, np.nan)})
    table = table.assign(comparison="base")
    kinds = {"reference": (False, "none"), "random": (True, "none"), "weights": (True, "imagenet")}
    found = pd.DataFrame(
        [{"comparison": "base", "arm": a, "frozen": f, "weights": w} for a, (f, w) in kinds.items()]
    )
    theirs = pd.DataFrame(
        {"task": "majority", "complete": True, "encoder": ["resnet50", "resnet18"]}
        | {"effect": [-0.5, 0.2]}
    )
    for name, each in {"effects": table, "runs": found, "published": theirs}.items():
        each.to_csv(tmp_path / f"07_{name}.csv", index=False)
    effect = read_effect("07_backbones", tmp_path)
    assert effect.compared.startswith("weights") and effect.published == pytest.approx(-0.5)


def test_memory_is_told_by_how_it_grows_beside_the_whole_image(tmp_path):
    rows = [
        {"way": way, "step": "train", "side": side, "step_mb": mb * (1 + 0.01 * (side == 200))}
        for side in SIZES
        for way, mb in (("ips", 50.0), ("whole", side**2 / 100))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "13_sides.csv", index=False)
    ends = {"way": "ips", "step": "train", "first": 100, "last": 400}
    ends |= {"step_mb_first": 50, "step_mb_last": 50}
    pd.DataFrame([ends]).to_csv(tmp_path / "13_reach.csv", index=False)
    effect = read_effect("13_efficiency", tmp_path)
    assert effect.effect == pytest.approx(-1, abs=0.01)
    assert effect.verdict == AGREES and "that of IPS is 0.00" in effect.note
