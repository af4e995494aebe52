"""Backbones: arms without their weights are left out aloud; costs are those of the network."""

from urllib.error import URLError

import pandas as pd
import pytest
from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from ipslib import paths
from ipslib.datasets.registry import run_config
from ipslib.model.encoder import build_encoder
from ipslib.study import backbones
from ipslib.study.backbones import cost_table, encoder_cost, obtainable, published_backbones

PLAIN = {"width": 0.25}
V1 = {"encoder": "resnet50", "weights": "imagenet_v1", "frozen": True}
V2 = V1 | {"weights": "imagenet_v2"}
COMPARISONS = {"first": {"plain": PLAIN, "version 1": V1}, "second": {"version 2": V2}}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of weights, and no network."""

    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "urlopen", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


class Study:
    """Knows the records of some runs."""

    def __init__(self, *recorded: str):
        self.store, self.recorded = self, recorded

    def config(self, **fields):
        return run_config(fields)

    def find(self, config):
        return {"id": config.id} if config.id in self.recorded else None


def asked(comparisons, *, pretrained, study=None, **seeds):
    return obtainable(study or Study(), comparisons, [0, 1], pretrained=pretrained, **seeds)


def test_nothing_is_left_out_where_nothing_needs_weights(cache):
    only = {"only": {"plain": PLAIN}}
    assert asked(only, pretrained=True) == (only, "")


def test_what_cannot_be_had_is_named_with_its_file_and_folder(cache):
    kept, said = asked(COMPARISONS, pretrained=True)
    assert kept == {"first": {"plain": PLAIN}}  # the second has no arm left
    for word in ("version 1", "version 2", "resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"):
        assert said.count(word) == 1
    assert str(cache) in said
    assert "`pretrained = True`" in said
    assert "\n" not in said


def test_weights_that_are_there_are_used_only_when_wanted(cache):
    (cache / "resnet50-0676ba61.pth").touch()
    kept, said = asked(COMPARISONS, pretrained=True)
    assert kept == {"first": COMPARISONS["first"]}
    assert "version 1" not in said
    kept, said = asked(COMPARISONS, pretrained=False)
    assert kept == {"first": {"plain": PLAIN}}
    assert "version 1" in said


def test_each_file_is_asked_for_once(cache, monkeypatch):
    urls = []

    def offline(request, timeout):
        urls.append(request.full_url)
        raise URLError("no network")

    monkeypatch.setattr(paths, "urlopen", offline)
    asked({"a": {"x": V1, "y": V1}, "b": {"z": V1}}, pretrained=True)
    assert urls == [ResNet50_Weights.IMAGENET1K_V1.url]


@pytest.mark.parametrize("pretrained", [True, False])
def test_runs_that_were_made_elsewhere_need_no_weights(cache, pretrained):
    first, second = (run_config(V1 | {"seed": seed}).id for seed in (0, 1))
    kept, _ = asked(COMPARISONS, pretrained=pretrained, study=Study(first, second))
    assert kept == {"first": COMPARISONS["first"]}
    kept, said = asked(COMPARISONS, pretrained=pretrained, study=Study(first))
    assert "version 1" in said
    only_first = {"version 1": [0]}
    kept, _ = asked(COMPARISONS, pretrained=pretrained, study=Study(first), arm_seeds=only_first)
    assert kept == {"first": COMPARISONS["first"]}


def test_the_home_folder_is_not_named(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    _, said = asked(COMPARISONS, pretrained=False)
    assert str(tmp_path) not in said
    assert "~/hub/checkpoints" in said


def test_a_whole_resnet_costs_what_torchvision_says(monkeypatch):
    monkeypatch.setattr(backbones, "build_encoder", lambda config, in_channels: stem_and_stages())
    cost = encoder_cost(run_config({"patch_size": 224, "n_stages": 4}))
    said = ResNet18_Weights.IMAGENET1K_V1.meta
    without_classes = said["num_params"] - 512 * 1000 - 1000
    assert cost.parameters == cost.trained == without_classes
    assert cost.mflop / 2000 == pytest.approx(said["_ops"], rel=0.01)  # theirs: multiply-adds


def stem_and_stages() -> nn.Sequential:
    """ResNet-18 with three colours, for a patch of one: the stem is told apart by its weights."""
    config = run_config({"n_stages": 4}).model
    encoder = build_encoder(config, 3)
    encoder.register_forward_pre_hook(lambda _, inputs: inputs[0].expand(-1, 3, -1, -1))
    return encoder


@pytest.mark.parametrize(
    ("fields", "trained"),
    [
        ({"width": 0.25, "frozen": True}, 7 * 7 * 16),  # the first convolution
        (V1, 7 * 7 * 64 + 2048 * 128 + 128),  # and the projection
    ],
)
def test_what_is_frozen_is_not_trained_and_no_weights_are_loaded(cache, fields, trained):
    cost = encoder_cost(run_config(fields))
    assert cost.trained == trained
    assert cost.parameters > 10 * trained or fields is V1


def test_operations_grow_with_the_patch():
    small, large = (encoder_cost(run_config({"patch_size": p})).mflop for p in (32, 64))
    assert large == pytest.approx(4 * small)


def make_record(minutes: float, **fields) -> dict:
    config = run_config(fields)
    return {
        "id": config.id,
        "config": config.flat(),
        "timing": {"training_seconds": 60 * minutes, "peak_memory_mb": 100 * minutes},
        "provenance": {"device": "a processor"},
    }


def test_costs_are_means_over_an_arms_runs_in_the_order_of_arms():
    records = [make_record(2, width=0.5), make_record(4, width=0.5, seed=1), make_record(1)]
    ids = [record["id"] for record in records]
    arms = ["narrow", "narrow", "wide"]
    frame = pd.DataFrame({"arm": arms * 2, "id": ids * 2, "task": ["top"] * 3 + ["max"] * 3})
    costs = cost_table(frame, records).set_index("arm")
    assert list(costs.index) == ["narrow", "wide"]
    assert costs["minutes"].tolist() == [3, 1]
    assert costs["peak_mb"].tolist() == [300, 100]
    assert costs["embedding"].tolist() == [64, 128]
    assert costs["device"].unique() == ["a processor"]
    assert costs.loc["wide", "mflop_per_patch"] > 3 * costs.loc["narrow", "mflop_per_patch"]


def test_published_effects_are_against_the_random_start_of_the_same_cell():
    runs = published_backbones()
    assert (runs["weights"] == "none").sum() == 16  # four cells, four tasks
    assert runs.loc[runs["weights"] == "none", "effect"].isna().all()
    cell = runs[(runs["digit_size"] == 28) & (runs["n_train"] == 1000)]
    cell = cell[(cell["task"] == "majority") & cell["complete"]].set_index("backbone")
    assert cell["effect"].dropna().to_dict() == pytest.approx(
        {
            "ResNet-18, ImageNet V1": 0.321 - 0.666,
            "ResNet-50, ImageNet V1, frozen": 0.159 - 0.666,
            "ResNet-50, ImageNet V2, frozen": 0.222 - 0.666,
        }
    )
    assert cell.index[0] == "ResNet-18, random start"
