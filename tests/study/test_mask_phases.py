import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from ipslib.config import ModelConfig
from ipslib.runs.provenance import make_record
from ipslib.runs.records import RecordStore
from ipslib.study.arms import ArmRuns
from ipslib.study.mask_phases import (
    PHASES,
    mask_phases,
    phase_dots,
    phase_effects,
    phase_table,
    survival,
)
from ipslib.study.tables import long_form
from ipslib.training import train
from tests.tiny import TINY

matplotlib.use("Agg")
MASKINGS = {
    "by score": {"mask_k": 3, "mask_p": 1.0, "mask_in_eval": True},
    "by logit": {"mask_k": 2, "mask_p": 0.5, "mask_variant": "logits"},
}
TIMING = {"training_seconds": 1.0, "epoch_seconds": [0.5, 0.5], "peak_memory_mb": 100.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return RecordStore(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def runs(store):
    torch.set_num_threads(1)
    records, frames = [], []
    for arm, fields in ({"none": {}} | MASKINGS).items():
        config = TINY.replace(**fields)
        trained = train(config)
        records.append(make_record(config, trained, TIMING, "cpu"))
        store.run(config).save(records[-1], trained.network)
        frames.append(long_form(records[-1:]).assign(arm=arm))
    return ArmRuns(records, pd.concat(frames, ignore_index=True))


@pytest.fixture(scope="module")
def frame(store, runs):
    return mask_phases(store, runs, MASKINGS)


def of(frame, arm):
    return frame[frame["arm"] == arm].set_index("task")


def test_every_masking_has_three_phases_after_the_reference(frame):
    expected = ["none"] + [f"{masking}: {phase}" for masking in MASKINGS for phase in PHASES]
    assert list(frame["arm"].unique()) == expected
    assert frame.groupby("arm")["id"].first().is_unique


def test_a_phase_is_where_masks_act(frame, runs):
    in_eval = frame.groupby("arm")[["mask_k", "mask_in_eval"]].first()
    assert in_eval["mask_in_eval"]["by score: both"] and in_eval["mask_in_eval"]["by logit: both"]
    assert not in_eval["mask_in_eval"]["by score: training"]
    assert in_eval["mask_k"]["by logit: evaluation"] == 2
    # of the weights, evaluation has the reference's, the others have the masked arm's
    for arm, run in (("by score: evaluation", "none"), ("by score: training", "by score")):
        own = runs.frame[runs.frame["arm"] == run]["id"].iloc[0]
        assert of(frame, arm)["id"].iloc[0].startswith(own)


def test_what_was_recorded_is_not_measured_again(frame, runs):
    for arm, run in (("by score: both", "by score"), ("by logit: training", "by logit")):
        recorded = of(runs.frame, run)
        pd.testing.assert_frame_equal(
            of(frame, arm)[["id", "accuracy"]], recorded[["id", "accuracy"]]
        )


def test_masks_in_evaluation_change_what_is_kept(frame):
    kept = frame.groupby("arm")[["roi_recall", "entropy"]].first().agg(tuple, axis=1)
    assert kept["by score: both"] != kept["by score: training"]
    assert kept["by score: evaluation"] != kept["none"]


def test_without_weights_what_was_recorded_is_left(tmp_path, runs):
    empty = RecordStore(tmp_path)
    arms = mask_phases(empty, runs, MASKINGS)["arm"].unique()
    assert list(arms) == ["none", "by score: both", "by logit: training"]


ACCURACY = {
    "none": (0.8, 0.6),
    "a: training": (0.7, 0.6),
    "a: both": (0.5, 0.2),
    "b: evaluation": (0.8, 0.5),
}


@pytest.fixture
def made_up():
    rows = [
        {
            "arm": arm,
            "masking": arm.split(": ")[0] if ": " in arm else None,
            "phase": arm.split(": ")[1] if ": " in arm else None,
            "seed": seed,
            "task": task,
            "accuracy": value - (0.1 if task == "top" and arm != "none" else 0),
        }
        for arm, values in ACCURACY.items()
        for seed, value in enumerate(values)
        for task in ("majority", "top")
    ]
    return pd.DataFrame(rows)


def test_effects_are_against_the_reference_of_the_same_seed_and_task(made_up):
    effects = phase_effects(made_up).set_index(["masking", "phase", "task", "seed"])["effect"]
    effects = effects.sort_index()
    assert effects["a", "both", "majority"].tolist() == pytest.approx([-0.3, -0.4])
    assert effects["a", "both", "top"].tolist() == pytest.approx([-0.4, -0.5])
    assert effects["b", "evaluation", "majority"].tolist() == pytest.approx([0, -0.1])


def test_a_seed_that_the_reference_lacks_has_no_effect(made_up):
    lacking = made_up[~((made_up["arm"] == "none") & (made_up["seed"] == 1))]
    effects = phase_effects(lacking)
    assert effects[effects["seed"] == 1]["effect"].isna().all()
    assert effects[effects["seed"] == 0]["effect"].notna().all()


def test_evaluation_is_due_what_both_lose_beyond_training(made_up):
    table = phase_table(phase_effects(made_up)).set_index("masking")
    assert table.loc["a", ["training", "both"]].tolist() == pytest.approx([-0.05, -0.35])
    assert table["due_to_evaluation"]["a"] == pytest.approx(-0.3)
    assert np.isnan(table["due_to_evaluation"]["b"])  # it was not asked so
    assert list(table.columns) == [*PHASES, "due_to_evaluation"]


def test_survival_is_that_of_a_simulation():
    model, n_patches, p = ModelConfig(memory_size=4, iter_size=6), 21, 0.3
    random = np.random.default_rng(0)
    survived = 0
    for _ in range(20_000):
        place = random.integers(n_patches)
        blocks = [range(4), range(4, 10), range(10, 16), range(16, 21)]
        arrived = next(i for i, block in enumerate(blocks) if place in block)
        n_faced = len(blocks) - max(arrived, 1)
        survived += (random.random(n_faced) >= p).all()
    assert survival(p, model, n_patches) == pytest.approx(survived / 20_000, abs=0.012)


def test_survival_at_its_ends():
    published = ModelConfig()
    assert survival(0.0, published, 900) == 1
    assert survival(1.0, published, 900) == 0
    one = ModelConfig(memory_size=10, iter_size=90)
    assert survival(0.25, one, 100) == pytest.approx(0.75)  # a single iteration


def test_the_figure_draws_every_seed_and_published_at_both(made_up):
    figure = phase_dots(phase_effects(made_up), published={"a": -0.25, "unknown": 1.0})
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    drawn = np.concatenate([dots.get_offsets()[:, 0] for dots in ax.collections])
    expected = phase_effects(made_up).query("task == 'majority'")["effect"] * 100
    assert sorted(drawn) == pytest.approx(sorted(expected))
    (diamond,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert diamond.get_xdata() == pytest.approx([-25])
    both = [p for dots in ax.collections for p in dots.get_offsets() if p[0] in (-30, -40)]
    assert diamond.get_ydata() == pytest.approx(np.mean([y for _, y in both]), abs=0.01)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-1] == "published (both), at its own scale"
    plt.close(figure)
