"""What a run survives: kills, torn and foreign files, a full disk, no memory, another process."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock

from ipslib import training
from ipslib.errors import IpslibError
from ipslib.runs import one_run, records
from ipslib.runs.executors import processes
from ipslib.runs.one_run import RunFailed, train_and_record
from ipslib.runs.records import RecordStore, Run
from tests import tiny
from tests.tiny import lasting, names

ROOT = Path(__file__).resolve().parents[2]
TINY = tiny.TINY.replace(epochs=3)
DONE = [f"{TINY.id}.json", f"{TINY.id}.pt"]
CHECKPOINT = f"{TINY.id}.checkpoint.pt"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The record of a run that nothing stopped, but for provenance and timing."""
    return lasting(train_and_record(TINY, RecordStore(tmp_path_factory.mktemp("whole"))))


@pytest.fixture
def stopped(store):
    """A store with the checkpoint of a run that was stopped after its first epoch."""
    with pytest.raises(RunFailed) as error:
        train_and_record(TINY, store, deadline=0.0)
    assert error.value.reason == "out of time" and names(store) == [CHECKPOINT]
    return store


def epochs_of(store, **arguments):
    """Train, and return the epochs that were trained and the record."""
    seen = []
    record = train_and_record(TINY, store, report=lambda e: seen.append(e["epoch"]), **arguments)
    return seen, record


def one_sentence(error):
    said = str(error.value)
    assert "\n" not in said and said.endswith(".") and "results_28" in said
    return said


class TestStops:
    def test_killed_at_random_moments_it_ends_bitwise_the_same(self):
        """The script's small version; 20 of 20 is its default."""
        command = [sys.executable, "-m", "tests.stress_kills", "--runs", "1", "--kills", "3"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 of 1 runs right after" in done.stdout

    @pytest.mark.parametrize(
        ("chosen", "n_saved"),
        [("", 1), ("3600", 1), ("0", 2)],  # after the first epoch, to tell a full disk at once
    )
    def test_checkpoints_keep_their_interval(self, store, monkeypatch, chosen, n_saved):
        saved = []
        monkeypatch.setenv(one_run.CHECKPOINT_VARIABLE, chosen)
        monkeypatch.setattr(Run, "save_checkpoint", lambda *content: saved.append(content))
        train_and_record(TINY, store)
        assert len(saved) == n_saved

    def test_weights_that_a_record_came_without_are_trained_on_from_the_checkpoint(self, stopped):
        checkpoint = (stopped.folder / CHECKPOINT).read_bytes()
        _, whole = epochs_of(stopped)
        (stopped.folder / f"{TINY.id}.pt").unlink()
        assert epochs_of(stopped) == ([], whole)  # nobody asked for them
        (stopped.folder / CHECKPOINT).write_bytes(checkpoint)
        seen, record = epochs_of(stopped, with_weights=True)
        assert seen == [2, 3] and lasting(record) == lasting(whole)
        assert names(stopped) == DONE

    def test_an_interval_that_is_no_number_is_refused_before_any_work(self, store, monkeypatch):
        monkeypatch.setenv(one_run.CHECKPOINT_VARIABLE, "often")
        with pytest.raises(IpslibError, match=one_run.CHECKPOINT_VARIABLE):
            train_and_record(TINY, store)
        assert not store.folder.exists()


class TestFiles:
    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda content: b"PK\x03\x04 torn", "not readable"),
            (lambda content: content | {"id": "0123456789ab"}, "id 0123456789ab"),
            (lambda content: content | {"snapshot": {}}, "network"),
        ],
        ids=["torn", "other run's", "other network"],
    )
    def test_a_checkpoint_not_to_be_trusted_is_set_aside(
        self, stopped, expected, capsys, spoil, reason
    ):
        path = stopped.folder / CHECKPOINT
        spoilt = spoil(torch.load(path, weights_only=True))
        path.write_bytes(spoilt) if isinstance(spoilt, bytes) else torch.save(spoilt, path)
        content = path.read_bytes()
        seen, record = epochs_of(stopped)
        assert seen == [1, 2, 3]
        assert lasting(record) == expected
        said = capsys.readouterr().err
        assert reason in said and said.count("\n") == 1
        aside = f"{TINY.id}.checkpoint.1.set_aside"
        assert names(stopped) == sorted([*DONE, aside])
        assert (stopped.folder / aside).read_bytes() == content

    @pytest.mark.parametrize("moment", ["checkpoint", "weights", "record"])
    @pytest.mark.parametrize(
        ("code", "reason"), [(errno.ENOSPC, "disk full"), (errno.EROFS, "not writable")]
    )
    def test_a_disk_that_takes_no_more_loses_nothing(
        self, stopped, expected, monkeypatch, moment, code, reason
    ):
        last = {"checkpoint": "checkpoint.pt", "weights": f"{TINY.id}.pt", "record": ".json"}
        write = records.write_atomically

        def refuse(path, data):
            if path.name.endswith(last[moment]):
                raise OSError(code, os.strerror(code))
            return write(path, data)

        monkeypatch.setattr(records, "write_atomically", refuse)
        with pytest.raises(RunFailed, match=os.strerror(code)) as error:
            train_and_record(TINY, stopped)
        assert error.value.reason == reason
        one_sentence(error)
        assert stopped.find(TINY) is None
        monkeypatch.undo()
        seen, record = epochs_of(stopped)
        assert seen == ([2, 3] if moment == "checkpoint" else [3])
        assert lasting(record) == expected and len(record["timing"]["epoch_seconds"]) == 3
        assert names(stopped) == DONE


class TestFailures:
    def test_a_run_that_diverges_says_where(self, store):
        wild = TINY.replace(lr=10.0, weight_decay=10.0, warmup_epochs=0, epochs=30, eval_every=30)
        with pytest.raises(RunFailed, match=r"epoch \d+, step [12] of 2") as error:
            train_and_record(wild, store)
        assert error.value.reason == "diverged"
        one_sentence(error)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 B"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            RuntimeError("could not create a primitive"),
            torch.cuda.OutOfMemoryError("CUDA out of memory."),
        ],
        ids=["python", "cpu", "cublas", "onednn", "torch"],
    )
    def test_out_of_memory_says_what_to_lower(self, store, monkeypatch, error):
        monkeypatch.setattr(training, "forward_step", Mock(side_effect=error))
        with pytest.raises(RunFailed) as failure:
            train_and_record(TINY, store)
        assert failure.value.reason == "out of memory"
        said = one_sentence(failure)
        assert all(part in said for part in ("batch_size 4", "memory_size 3", "iter_size 3", "12"))

    @pytest.mark.parametrize(
        "error",
        [RuntimeError("shapes do not match"), FileNotFoundError(errno.ENOENT, "No file", "digits")],
        ids=["shapes", "another file than the disk's"],
    )
    def test_any_other_error_stays_what_it_is(self, store, monkeypatch, error):
        monkeypatch.setattr(training, "forward_step", Mock(side_effect=error))
        with pytest.raises(type(error)) as raised:
            train_and_record(TINY, store)
        assert raised.value is error


def train_in(folder, report):
    return lasting(train_and_record(TINY, RecordStore(folder), report=report))


def test_two_processes_train_the_same_run_once(store, expected):
    events, tasks = [], iter([store.folder, store.folder])
    done = processes(2)(train_in, lambda: next(tasks, None), events.append)
    assert [result for _, result in done] == [expected, expected]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2, 3]
    assert names(store) == DONE


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_waited_for_without_a_deadline_and_free_when_its_owner_is_killed(store):
    path, events = store.run(TINY).lock().lock_file, []
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(RunFailed) as error:
            train_and_record(TINY, store, deadline=time.monotonic() + 60)
        assert error.value.reason == "held"

        def hear(event):
            events.append(event["event"])
            owner.kill()

        train_and_record(TINY, store, report=hear)
    assert events == ["wait", "epoch", "epoch", "epoch"]
    with FileLock(path, timeout=0):
        pass
