"""Networks asked again with another selection, and what encoders cost."""

from unittest.mock import Mock
from urllib.error import URLError

import pandas as pd
import pytest
import torch
from torchvision.models import ResNet18_Weights

from ipslib import paths
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.encoder import build_encoder
from ipslib.runs.records import RecordStore, make_record
from ipslib.study import networks
from ipslib.study.networks import cost_table, encoder_cost, evaluate_again, obtain_weights
from ipslib.study.tables import long_form
from ipslib.training import train
from tests.tiny import TINY

MASKED = TINY.replace(mask_k=3, mask_p=1.0, mask_in_eval=True, n_test=8)
TIMING = {"training_seconds": 120.0, "epoch_seconds": [0.5, 0.5], "peak_memory_mb": 100.0}
V1 = {"encoder": "resnet50", "weights": "imagenet_v1", "frozen": True}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return RecordStore(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def runs(store):
    """Records of two runs that differ in nothing but masking in evaluation."""
    torch.set_num_threads(1)
    records = {}
    for in_eval in (True, False):
        config = MASKED.replace(mask_in_eval=in_eval)
        trained = train(config)
        records[in_eval] = make_record(config, trained, TIMING, "cpu")
        store.run(config).save(records[in_eval], trained.network)
    return records


@pytest.mark.parametrize("trained_with", [True, False])
def test_a_switched_run_measures_what_its_twin_was_recorded_with(store, runs, trained_with):
    own, twin = runs[trained_with], runs[not trained_with]
    assert own["result"]["attention"] != twin["result"]["attention"]
    (switched,) = evaluate_again(store, [own], mask_in_eval=not trained_with)
    for name in ("accuracy", "attention", "train_accuracy"):
        assert switched["result"][name] == twin["result"][name]
    assert (switched["config"], switched["name"]) == (twin["config"], twin["name"])
    assert switched["id"] not in (own["id"], twin["id"])  # it is no run
    frame = long_form([switched])
    assert frame["best_accuracy"].isna().all() and frame["accuracy"].notna().all()


def test_order_is_kept_what_is_wanted_is_itself_and_what_has_no_weights_left_out(store, runs):
    absent = runs[False] | {"id": "0" * 12}
    both = evaluate_again(store, [runs[False], absent, runs[True]], mask_in_eval=True)
    assert both[0]["id"].split()[0] == runs[False]["id"] and both[1] is runs[True]
    first, second = networks.trained_runs(store, [runs[False], absent, runs[True]])
    assert first.test_set is second.test_set and len(first.test_set) == 8
    assert not first.network.training


@pytest.mark.parametrize("change", [{"n_heads": 2}, {"mask_q": 0.1}, {"mask_p": 1.5}])
def test_what_weights_depend_on_is_refused(store, runs, change):
    with pytest.raises(IpslibError, match=next(iter(change))):
        evaluate_again(store, [runs[True]], **change)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of weights, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "urlopen", Mock(side_effect=URLError("no network")))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_are_obtained_where_they_are_here_or_the_network_answers(cache, monkeypatch):
    version_1, version_2 = (run_config(V1 | {"weights": f"imagenet_v{n}"}).model for n in (1, 2))
    assert obtain_weights(run_config({}).model) and not obtain_weights(version_1)
    (cache / "resnet50-0676ba61.pth").touch()
    assert obtain_weights(version_1) and not obtain_weights(version_2)
    built = []
    monkeypatch.setattr(networks, "reachable", lambda _: True)
    monkeypatch.setattr(networks, "build_encoder", lambda model, _: built.append(model.weights))
    assert obtain_weights(version_2) and built == ["imagenet_v2"]


def test_a_whole_resnet_costs_what_torchvision_says(monkeypatch):
    def stem_and_stages(config, in_channels):
        """With three colours, for a patch of one: the stem is told apart by its weights."""
        encoder = build_encoder(config, 3)
        encoder.register_forward_pre_hook(lambda _, inputs: inputs[0].expand(-1, 3, -1, -1))
        return encoder

    monkeypatch.setattr(networks, "build_encoder", stem_and_stages)
    cost = encoder_cost(run_config({"patch_size": 224, "n_stages": 4}))
    said = ResNet18_Weights.IMAGENET1K_V1.meta
    without_classes = said["num_params"] - 512 * 1000 - 1000
    assert cost["encoder_parameters"] == cost["trained"] == without_classes
    assert cost["mflop_per_patch"] / 2000 == pytest.approx(said["_ops"], rel=0.01)  # multiply-adds


@pytest.mark.parametrize(
    ("fields", "trained"),
    [
        ({"width": 0.25, "frozen": True}, 7 * 7 * 16),  # the first convolution
        (V1, 7 * 7 * 64 + 2048 * 128 + 128),  # and the projection
    ],
)
def test_what_is_frozen_is_not_trained_and_no_weights_are_loaded(cache, fields, trained):
    assert encoder_cost(run_config(fields))["trained"] == trained


def test_costs_are_means_over_an_arms_runs_in_the_order_of_arms():
    records = []
    for minutes, fields in ((2, {"width": 0.5}), (4, {"width": 0.5, "seed": 1}), (1, {})):
        config = run_config(fields)
        timing = {"training_seconds": 60 * minutes, "peak_memory_mb": 100 * minutes}
        record = {"id": config.id, "config": config.flat(), "timing": timing}
        records.append(record | {"provenance": {"device": "a processor"}})
    ids, arms = [record["id"] for record in records], ["narrow", "narrow", "wide"]
    frame = pd.DataFrame({"arm": arms * 2, "id": ids * 2, "task": ["top"] * 3 + ["max"] * 3})
    costs = cost_table(frame, records).set_index("arm")
    assert list(costs.index) == ["narrow", "wide"]
    found = costs[["minutes", "peak_mb", "embedding"]].to_numpy()
    assert found.tolist() == [[3, 300, 64], [1, 100, 128]]
    assert costs["device"].unique() == ["a processor"]
    assert costs.loc["wide", "mflop_per_patch"] > 3 * costs.loc["narrow", "mflop_per_patch"]
