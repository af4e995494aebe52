import pytest
import torch

from ipslib.errors import IpslibError
from ipslib.runs.records import RecordStore, make_record
from ipslib.study.remeasure import evaluate_again, trained_runs
from ipslib.study.tables import long_form
from ipslib.training import train
from tests.tiny import TINY

MASKED = TINY.replace(mask_k=3, mask_p=1.0, mask_in_eval=True, n_test=8)
TIMING = {"training_seconds": 1.0, "epoch_seconds": [0.5, 0.5], "peak_memory_mb": 100.0}


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


def test_masking_in_evaluation_is_no_part_of_training(store, runs):
    """So that one network serves both arms, and their difference is the evaluation's alone."""
    weights = [store.load_network(record).state_dict() for record in runs.values()]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("trained_with", [True, False])
def test_a_switched_run_measures_what_its_twin_was_recorded_with(store, runs, trained_with):
    own, twin = runs[trained_with], runs[not trained_with]
    assert own["result"]["attention"] != twin["result"]["attention"]
    (switched,) = evaluate_again(store, [own], mask_in_eval=not trained_with)
    for name in ("accuracy", "attention", "train_accuracy"):
        assert switched["result"][name] == twin["result"][name]
    assert switched["config"] == twin["config"]
    assert switched["name"] == twin["name"]
    assert switched["id"] not in (own["id"], twin["id"])  # it is no run


def test_what_is_wanted_already_is_the_record_itself(store, runs, monkeypatch):
    monkeypatch.setattr(RecordStore, "load_network", lambda *_: 1 / 0)
    assert evaluate_again(store, [runs[False]], mask_in_eval=False) == [runs[False]]


def test_the_order_is_kept_and_a_record_without_weights_is_left_out(store, runs):
    absent = runs[False] | {"id": "0" * 12}
    both = evaluate_again(store, [runs[False], absent, runs[True]], mask_in_eval=True)
    assert [record["id"].split()[0] for record in both] == [runs[False]["id"], runs[True]["id"]]
    assert [run.record["id"] for run in trained_runs(store, [absent])] == []


def test_a_table_reads_it(store, runs):
    (switched,) = evaluate_again(store, [runs[False]], memory_size=5)
    frame = long_form([switched])
    assert set(frame["memory_size"]) == {5}
    assert frame["best_accuracy"].isna().all() and frame["accuracy"].notna().all()


def test_the_trained_network_comes_with_its_test_images(store, runs):
    first, second = trained_runs(store, runs.values())
    assert first.test_set is second.test_set
    assert (first.test_set.split, len(first.test_set), first.batch_size) == ("test", 8, 4)
    assert not first.network.training


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"n_heads": 2}, "'n_heads' cannot be changed after training"),
        ({"mask_q": 0.1}, "did you mean 'mask_p'"),
        ({"mask_p": 1.5}, "mask_p"),
    ],
)
def test_what_weights_depend_on_is_refused(store, runs, change, hint):
    with pytest.raises(IpslibError, match=hint):
        evaluate_again(store, [runs[True]], **change)
