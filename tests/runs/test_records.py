import errno
import json
import platform
import re
import subprocess

import numpy as np
import pytest
import torch
import torchvision

import ipslib
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs import records
from ipslib.runs.provenance import SCHEMA, code_version, make_record
from ipslib.runs.records import RecordStore, in_found_precision
from ipslib.training import Trained, TrainingState, evaluate, train
from tests import tiny

TINY = tiny.TINY.replace(n_test=8, epochs=3, eval_every=2)
TIMING = {"training_seconds": 1.5, "epoch_seconds": [0.5, 0.5, 0.5], "peak_memory_mb": 100.0}


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.set_num_threads(1)
    return train(TINY)


@pytest.fixture
def record(trained):
    return make_record(TINY, trained, TIMING, "cpu")


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "records")


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_a_record_comes_back_as_it_was_saved(store, record, trained):
    assert store.find(TINY) is None and list(store.all()) == []
    store.run(TINY).save(record, trained.network)
    assert names(store) == [f"{TINY.id}.json", f"{TINY.id}.pt"]
    assert store.find(TINY) == record
    assert list(store.all()) == [record]
    assert run_config(record["config"]) == TINY
    assert store.find(TINY.replace(seed=1)) is None


def test_a_record_says_what_came_out(record, trained):
    history = trained.history
    assert record["schema"] == SCHEMA
    assert (record["id"], record["name"]) == (TINY.id, "results_28_28_84_84_1n_8d_PS_28")
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3]
    result = record["result"]
    assert result["accuracy"] == history[2]["test"]["accuracy"]  # of the last epoch
    assert result["train_accuracy"] == history[2]["train"]["accuracy"]
    assert result["n_test"] == 8
    assert result["attention"] == history[2]["test"]["attention"]
    for task, best in result["best_accuracy"].items():
        measured = [row["test"]["accuracy"][task] for row in history if row["test"]]
        assert len(measured) == 2
        assert best == max(measured)


def test_provenance_tells_code_versions_device_and_digits(record):
    assert record["timing"] == TIMING
    said = record["provenance"]
    assert said["ipslib"] == ipslib.__version__
    assert said["python"] == platform.python_version()
    assert said["torch"] == torch.__version__
    assert said["torchvision"] == torchvision.__version__
    assert said["numpy"] == np.__version__
    assert said["device"]
    assert said["threads"] == torch.get_num_threads()
    assert said["digit_source"] == "embedded"
    for split, digest in said["digits_sha256"].items():
        assert digest == load_digits("embedded", split).sha256
    assert said["digits_sha256"]["train"] != said["digits_sha256"]["test"]
    assert said["commit"]
    assert said["finished"].endswith("+00:00")


def commit_all(folder):
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"]):
        subprocess.run([*git, *command], check=True)


def test_the_version_of_the_code_is_its_own_commit_or_a_hash_of_it(monkeypatch, tmp_path):
    root = tmp_path / "checkout" / "copy"
    (root / "ipslib").mkdir(parents=True)
    code = root / "ipslib" / "code.py"
    code.write_text("1")
    plain = code_version(root)
    assert plain.startswith("code-")
    commit_all(root.parent)  # a checkout that the copy only lies in
    assert code_version(root) == plain
    code.write_text("2")
    assert code_version(root) != plain
    commit_all(root)
    assert re.fullmatch("[0-9a-f]{12}", code_version(root))
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert code_version(root).startswith("code-")


def test_what_a_study_writes_over_its_results_does_not_mark_the_commit(tmp_path):
    (tmp_path / "outputs").mkdir()
    files = {name: tmp_path / name for name in ("code.py", "outputs/table.csv")}
    for path in files.values():
        path.write_text("1")
    commit_all(tmp_path)
    clean = code_version(tmp_path)
    files["outputs/table.csv"].write_text("2")
    assert code_version(tmp_path) == clean
    files["code.py"].write_text("2")
    assert code_version(tmp_path) == f"{clean}-dirty"


def test_weights_come_back_and_give_the_accuracy_of_the_record(store, record, trained):
    store.run(TINY).save(record, trained.network)
    network = store.load_network(store.find(TINY))
    assert not network.training
    found = evaluate(network, MegapixelMNIST(TINY.data, "test"), TINY.training.batch_size)
    assert found.accuracy == record["result"]["accuracy"]
    assert found.localisation._asdict() == record["result"]["attention"]
    assert found.loss == record["history"][-1]["test"]["loss"]


def test_a_record_without_its_weights_is_found_and_says_so_when_they_are_wanted(
    store, record, trained
):
    store.run(TINY).save(record, trained.network)
    store.weights_path(record).unlink()
    with pytest.raises(IpslibError, match=f"weights of run {record['name']} .* are not here"):
        store.load_network(store.find(TINY))


def test_torn_weights_say_so(store, record, trained):
    store.run(TINY).save(record, trained.network)
    path = store.weights_path(record)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(IpslibError, match=f"{path.name}. could not be read .* run again") as error:
        store.load_network(record)
    assert "\n" not in str(error.value)


def whole(record):
    return json.dumps(record)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda record: whole(record)[:200], "not readable"),
        (lambda record: "", "not readable"),
        (lambda record: "[]", "not readable"),
        (lambda record: "\x00\x01", "not readable"),
        (lambda record: json.dumps({"hello": "world"}), "not readable"),
        (lambda record: whole(record | {"schema": 0}), "of schema 0"),
        (lambda record: whole(record | {"id": "0123456789ab"}), "id 0123456789ab"),
    ],
    ids=["torn", "empty", "list", "bytes", "foreign", "old schema", "other run's"],
)
def test_what_is_no_record_is_set_aside_with_a_message(store, record, spoil, reason, capsys):
    store.folder.mkdir()
    path = store.folder / f"{TINY.id}.json"
    content = spoil(record)
    path.write_text(content)
    assert store.find(TINY) is None
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    (aside,) = names(store)
    assert aside.startswith(TINY.id)
    assert aside in said
    assert (store.folder / aside).read_text() == content
    assert store.find(TINY) is None  # and it is met only once
    assert capsys.readouterr().err == ""


def test_one_spoilt_record_does_not_hide_the_others(store, record, trained, capsys):
    store.run(TINY).save(record, trained.network)
    (store.folder / "ffffffffffff.json").write_text("{")
    assert list(store.all()) == [record]


class TestCheckpoints:
    @pytest.fixture
    def snapshot(self):
        return TrainingState(TINY).snapshot()

    def test_one_comes_back_and_a_record_takes_its_place(self, store, snapshot, record, trained):
        assert store.run(TINY).checkpoint() is None
        store.run(TINY).save_checkpoint(snapshot, [0.5])
        found = store.run(TINY).checkpoint()
        assert found["epoch_seconds"] == [0.5]
        assert found["snapshot"].keys() == snapshot.keys()
        assert list(store.all()) == []
        store.run(TINY).save(record, trained.network)
        assert names(store) == [f"{TINY.id}.json", f"{TINY.id}.pt"]

    def test_code_in_a_checkpoint_is_not_executed(self, store, tmp_path, capsys):
        store.folder.mkdir()
        trap = tmp_path / "executed"

        class Trap:
            def __reduce__(self):
                return open, (str(trap), "w")

        content = {"schema": SCHEMA, "id": TINY.id, "epoch_seconds": [], "snapshot": Trap()}
        torch.save(content, store.folder / f"{TINY.id}.checkpoint.pt")
        assert store.run(TINY).checkpoint() is None
        assert not trap.exists()
        assert "UnpicklingError" in capsys.readouterr().err

    def test_a_disk_that_cannot_be_read_says_nothing_about_the_file(
        self, store, snapshot, monkeypatch
    ):
        store.run(TINY).save_checkpoint(snapshot, [])

        def fail(*_, **__):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(OSError, match="Input/output"):
            store.run(TINY).checkpoint()
        assert names(store) == [f"{TINY.id}.checkpoint.pt"]


class TestFailures:
    FAILED = ("killed", "its process was killed.")

    def test_one_is_known_until_the_run_succeeds(self, store, record, trained):
        store.run(TINY).save_failure(*self.FAILED)
        (failure,) = store.failures()
        assert (failure["id"], failure["reason"], failure["message"]) == (TINY.id, *self.FAILED)
        assert list(store.all()) == []
        store.run(TINY).save(record, trained.network)
        assert store.failures() == []
        assert f"{TINY.id}.failure" not in names(store)

    def test_one_that_is_torn_is_set_aside(self, store, capsys):
        store.run(TINY).save_failure(*self.FAILED)
        (store.folder / f"{TINY.id}.failure").write_text("{")
        assert store.failures() == []
        assert names(store) == [f"{TINY.id}.1.set_aside"]

    def test_one_that_cannot_be_written_is_told(self, store, monkeypatch, capsys):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(records, "write_atomically", full)
        store.run(TINY).save_failure(*self.FAILED)
        assert "could not be written (No space left on device)" in capsys.readouterr().err


def test_setting_aside_overwrites_nothing_when_an_earlier_number_is_free(store, capsys):
    store.folder.mkdir()
    (store.folder / f"{TINY.id}.2.set_aside").write_text("kept")
    for content in ("first", "second"):
        (store.folder / f"{TINY.id}.json").write_text(content)
        assert store.find(TINY) is None
    contents = [(store.folder / name).read_text() for name in names(store)]
    assert contents == ["first", "kept", "second"]


def test_what_cannot_be_set_aside_is_still_not_used(store, monkeypatch, capsys):
    store.folder.mkdir()
    path = store.folder / f"{TINY.id}.json"
    path.write_text("{")

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(type(path), "rename", read_only)
    assert store.find(TINY) is None
    assert "not used, and not set aside (Read-only file system)" in capsys.readouterr().err
    assert path.read_text() == "{"


def test_what_was_killed_before_it_cleared_its_way_is_tidied(store, record, trained):
    store.run(TINY).save(record, trained.network)
    for stray in (f"{TINY.id}.checkpoint.pt", f"{TINY.id}.failure", f".{TINY.id}.pt.x.tmp"):
        (store.folder / stray).write_text("")
    store.run(TINY).tidy()
    assert names(store) == [f"{TINY.id}.json", f"{TINY.id}.pt"]


class TestPrecision:
    """A GPU makes published runs in bf16, a CPU in fp32."""

    LOW = TINY.replace(precision="bf16")

    def finish(self, store, config):
        store.run(config).save({"schema": SCHEMA, "id": config.id}, TrainingState(config).network)

    def test_a_new_run_is_made_as_its_device_makes_it(self, store):
        assert in_found_precision(TINY, store) == TINY
        assert in_found_precision(TINY, store, device="cuda") == self.LOW

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    @pytest.mark.parametrize("made", [TINY, LOW], ids=["fp32", "bf16"])
    def test_a_run_is_found_in_the_precision_of_its_record(self, store, device, made):
        self.finish(store, made)
        for asked in (TINY, self.LOW):
            assert in_found_precision(asked, store, device=device) == made

    def test_a_run_goes_on_as_it_was_begun_but_a_record_counts_more(self, store):
        store.run(TINY).save_checkpoint({}, [1.0])
        assert in_found_precision(TINY, store, device="cuda") == TINY
        self.finish(store, self.LOW)
        assert in_found_precision(TINY, store) == self.LOW
