import errno
import os
from unittest.mock import Mock

import pytest
import torch

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs import records
from ipslib.runs.records import SCHEMA, in_found_precision, make_record
from ipslib.training import Trained, TrainingState, evaluate, train
from tests import tiny
from tests.tiny import names

TINY = tiny.TINY.replace(n_test=8, epochs=3, eval_every=2)
TIMING = {"training_seconds": 1.5, "epoch_seconds": [0.5, 0.5, 0.5], "peak_memory_mb": 100.0}
FAILED = ("killed", "its process was killed.")
DONE = [f"{TINY.id}.json", f"{TINY.id}.pt"]


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(TINY)


@pytest.fixture(scope="module")
def record(trained):
    return make_record(TINY, trained, TIMING, "cpu")


@pytest.fixture
def kept(store, record, trained):
    """A store with the record and the weights."""
    store.run(TINY).save(record, trained.network)
    return store


def refusing(code):
    """Of what the disk refuses."""
    return Mock(side_effect=OSError(code, os.strerror(code)))


def test_a_record_comes_back_as_it_was_saved(kept, record):
    assert names(kept) == DONE
    assert kept.find(TINY) == record and list(kept.all()) == [record]
    assert run_config(record["config"]) == TINY
    assert kept.find(TINY.replace(seed=1)) is None


def test_a_record_says_what_came_out(record, trained):
    history, result = trained.history, record["result"]
    assert (record["id"], record["name"]) == (TINY.id, "results_28_28_84_84_1n_8d_PS_28")
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3]
    assert result["accuracy"] == history[2]["test"]["accuracy"]  # of the last epoch
    assert result["train_accuracy"] == history[2]["train"]["accuracy"]
    assert result["n_test"] == 8
    assert result["attention"] == history[2]["test"]["attention"]
    for task, best in result["best_accuracy"].items():
        measured = [row["test"]["accuracy"][task] for row in history if row["test"]]
        assert len(measured) == 2 and best == max(measured)


def test_weights_come_back_and_give_the_accuracy_of_the_record(kept, record):
    network = kept.load_network(kept.find(TINY))
    assert not network.training
    found = evaluate(network, MegapixelMNIST(TINY.data, "test"), TINY.training.batch_size)
    assert found.accuracy == record["result"]["accuracy"]
    assert found.localisation._asdict() == record["result"]["attention"]
    assert found.loss == record["history"][-1]["test"]["loss"]


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "torn"])
def test_weights_that_cannot_be_had_say_so_when_they_are_wanted(kept, record, missing):
    path = kept.weights_path(record)
    path.unlink() if missing else path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(IpslibError, match="not here" if missing else "not be read") as error:
        kept.load_network(kept.find(TINY))
    assert path.name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema": 1, "id"', "not readable"),
        ("[]", "not readable"),
        ("\x00\x01", "not readable"),
        ('{"hello": "world"}', "not readable"),
        (f'{{"schema": 0, "id": "{TINY.id}"}}', "schema 0"),
        ('{"schema": 1, "id": "0123456789ab"}', "id 0123456789ab"),
    ],
)
def test_what_is_no_record_is_set_aside_with_a_message(store, content, reason, capsys):
    store.folder.mkdir()
    (store.folder / f"{TINY.id}.json").write_text(content)
    assert store.find(TINY) is None
    said = capsys.readouterr().err
    [aside] = names(store)
    assert reason in said and aside in said and said.count("\n") == 1
    assert (store.folder / aside).read_text() == content
    assert store.find(TINY) is None  # and it is met only once
    assert capsys.readouterr().err == ""


def test_setting_aside_overwrites_nothing_and_hides_no_other_record(kept, record, capsys):
    (kept.folder / "ffffffffffff.2.set_aside").write_text("kept")
    for content in ("first", "second"):
        (kept.folder / "ffffffffffff.json").write_text(content)
        assert list(kept.all()) == [record]
    asides = sorted(kept.folder.glob("*.set_aside"))
    assert [path.read_text() for path in asides] == ["first", "kept", "second"]


def test_what_cannot_be_set_aside_is_still_not_used(store, monkeypatch, capsys):
    store.folder.mkdir()
    path = store.folder / f"{TINY.id}.json"
    path.write_text("{")
    monkeypatch.setattr(type(path), "rename", refusing(errno.EROFS))
    assert store.find(TINY) is None
    assert os.strerror(errno.EROFS) in capsys.readouterr().err
    assert path.read_text() == "{"


def test_code_in_a_checkpoint_is_not_executed(store, tmp_path, capsys):
    store.folder.mkdir()

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    content = {"schema": SCHEMA, "id": TINY.id, "epoch_seconds": [], "snapshot": Trap()}
    torch.save(content, store.folder / f"{TINY.id}.checkpoint.pt")
    assert store.run(TINY).checkpoint() is None
    assert not (tmp_path / "executed").exists()
    assert "UnpicklingError" in capsys.readouterr().err


def test_a_disk_that_cannot_be_read_says_nothing_about_the_file(store, monkeypatch):
    store.run(TINY).save_checkpoint({}, [])
    monkeypatch.setattr(torch, "load", refusing(errno.EIO))
    with pytest.raises(OSError):
        store.run(TINY).checkpoint()
    assert names(store) == [f"{TINY.id}.checkpoint.pt"]


def test_a_failure_that_cannot_be_written_is_told(store, monkeypatch, capsys):
    monkeypatch.setattr(records, "write_atomically", refusing(errno.ENOSPC))
    store.run(TINY).save_failure(*FAILED)
    assert os.strerror(errno.ENOSPC) in capsys.readouterr().err


def test_what_was_killed_before_it_cleared_its_way_is_tidied(kept):
    for stray in (f"{TINY.id}.checkpoint.pt", f"{TINY.id}.failure", f".{TINY.id}.pt.x.tmp"):
        (kept.folder / stray).write_text("")
    kept.run(TINY).tidy()
    assert names(kept) == DONE


class TestPrecision:
    """A GPU makes published runs in bf16, a CPU in fp32."""

    LOW = TINY.replace(precision="bf16")

    def finish(self, store, config):
        store.run(config).save({"schema": SCHEMA, "id": config.id}, TrainingState(config).network)

    def test_a_new_run_is_made_as_its_device_makes_it(self, store):
        assert in_found_precision(TINY, store) == TINY
        assert in_found_precision(TINY, store, device="cuda") == self.LOW

    @pytest.mark.parametrize("made", [TINY, LOW], ids=["fp32", "bf16"])
    def test_a_run_is_found_in_the_precision_of_its_record(self, store, made):
        self.finish(store, made)
        for asked in (TINY, self.LOW):
            for device in ("cpu", "cuda"):
                assert in_found_precision(asked, store, device=device) == made

    def test_a_run_goes_on_as_it_was_begun_but_a_record_counts_more(self, store):
        store.run(TINY).save_checkpoint({}, [1.0])
        assert in_found_precision(TINY, store, device="cuda") == TINY
        self.finish(store, self.LOW)
        assert in_found_precision(TINY, store) == self.LOW
