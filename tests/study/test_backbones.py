"""Backbones: whether their weights can be had; costs are those of the network."""

from urllib.error import URLError

import pandas as pd
import pytest
from torch import nn
from torchvision.models import ResNet18_Weights

from ipslib import paths
from ipslib.datasets.registry import run_config
from ipslib.model.encoder import build_encoder
from ipslib.study import backbones
from ipslib.study.backbones import cost_table, encoder_cost, obtain_weights

PLAIN = {"width": 0.25}
V1 = {"encoder": "resnet50", "weights": "imagenet_v1", "frozen": True}
V2 = V1 | {"weights": "imagenet_v2"}


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


def test_weights_are_obtained_where_they_are_here_or_the_network_answers(cache, monkeypatch):
    plain, version_1 = run_config(PLAIN).model, run_config(V1).model
    assert obtain_weights(plain) and not obtain_weights(version_1)
    (cache / "resnet50-0676ba61.pth").touch()
    assert obtain_weights(version_1) and not obtain_weights(run_config(V2).model)
    built = []
    monkeypatch.setattr(backbones, "reachable", lambda _: True)
    monkeypatch.setattr(backbones, "build_encoder", lambda model, _: built.append(model.weights))
    assert obtain_weights(run_config(V2).model) and built == ["imagenet_v2"]


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
