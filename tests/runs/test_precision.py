import pytest

from ipslib.runs.precision import in_found_precision
from ipslib.runs.provenance import SCHEMA
from ipslib.runs.records import RecordStore
from ipslib.training import TrainingState
from tests.tiny import TINY


@pytest.fixture
def store(tmp_path) -> RecordStore:
    return RecordStore(tmp_path)


def finish(store: RecordStore, config) -> None:
    network = TrainingState(config).network
    store.save({"schema": SCHEMA, "id": config.id, "name": "a run"}, network)


def test_a_new_run_is_made_as_its_device_makes_it(store):
    assert in_found_precision(TINY, store).id == TINY.id
    assert in_found_precision(TINY, store, device="cuda") == TINY.replace(precision="bf16")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_is_found_in_the_precision_of_its_record(store, device, precision):
    made = TINY.replace(precision=precision)
    finish(store, made)
    assert in_found_precision(TINY, store, device=device) == made
    assert in_found_precision(made, store, device=device) == made


def test_a_run_that_was_begun_goes_on_as_it_was_begun_but_a_record_counts_more(store):
    store.save_checkpoint(TINY, {}, [1.0])
    assert in_found_precision(TINY, store, device="cuda") == TINY
    finish(store, TINY.replace(precision="bf16"))
    assert in_found_precision(TINY, store) == TINY.replace(precision="bf16")
