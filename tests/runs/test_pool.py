"""Processes side by side: what one of them suffers, and that none is left over."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from ipslib.errors import IpslibError
from ipslib.runs import one_run, pool
from ipslib.runs.events import PROGRESS_VARIABLE
from ipslib.runs.one_run import RunFailed, train_and_record
from ipslib.runs.pool import here, in_processes, threads_of
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import run_outcomes
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = TINY.replace(epochs=5000, eval_every=5000)


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "records")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv(PROGRESS_VARIABLE, str(tmp_path / "events"))


def truncated_mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{split}-{kind}").write_bytes(b"\x00\x00\x08\x03\x00\x00\xea\x60")
    return root


def lasting(record):
    return json.dumps({k: v for k, v in record.items() if k not in ("provenance", "timing")})


def test_a_killed_process_and_a_failing_run_cost_the_others_nothing(
    store, tmp_path, monkeypatch, capfd
):
    """Two runs of which one loses its process after its first epoch, and one on torn digits."""
    monkeypatch.setenv("IPSLIB_DATA", str(truncated_mnist(tmp_path / "data")))
    long = TINY.replace(epochs=60, eval_every=60)
    short = TINY.replace(seed=1)
    torn = TINY.replace(digits="mnist", n_train=4)
    tried, epochs = [], []

    def way(configs, store, report):
        tried.append([config.id for config in configs])

        def hear(event):
            epochs.append((event["id"], event["epoch"], event["resumed_at"]))
            if epochs[-1] == (long.id, 2, 0):
                os.kill(pids[long.id], signal.SIGKILL)
            report(event)

        return in_processes(configs, store, "cpu", 2 if len(tried) == 1 else 1, hear)

    pids, begin = {}, pool.Worker.begin

    def note(worker, config):
        pids[config.id] = worker.process.pid
        begin(worker, config)

    monkeypatch.setattr(pool.Worker, "begin", note)
    outcomes = {each.config.id: each for each in run_outcomes([torn, long, short], store, way)}
    assert "Traceback" not in capfd.readouterr().err
    assert tried[0] == [long.id, short.id, torn.id]
    assert len(tried) == 2 and set(tried[1]) == {long.id, torn.id}
    assert outcomes[torn.id].status == "failed"
    assert outcomes[torn.id].failure.reason == "error"
    assert "MNIST could not be read" in str(outcomes[torn.id].failure)
    assert isinstance(outcomes[torn.id].failure, IpslibError)
    assert [failure["id"] for failure in store.failures()] == [torn.id]
    resumed = [(epoch, at) for run, epoch, at in epochs if run == long.id and at]
    assert resumed[0] == (2, 1)  # from the checkpoint after the first epoch
    assert multiprocessing.active_children() == []

    with threads_of(long, "cpu"):
        for config in (long, short):
            theirs, other = store.find(config), RecordStore(tmp_path / "here")
            assert outcomes[config.id].status == "made"
            ours = train_and_record(config, other)
            assert theirs["provenance"]["threads"] == ours["provenance"]["threads"] == 1
            assert lasting(theirs) == lasting(ours)
            weights = [torch.load(s.weights_path(ours), weights_only=True) for s in (store, other)]
            assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_ctrl_c_or_an_error_in_the_reporter_leaves_no_process(store):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_processes([ENDLESS], store, "cpu", 2, interrupt))
    assert multiprocessing.active_children() == []


PARENT = """
import sys
from pathlib import Path
from ipslib.runs.pool import in_processes
from ipslib.runs.records import RecordStore
from tests.runs.test_pool import ENDLESS

if __name__ == "__main__":
    import multiprocessing
    def tell(event):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    list(in_processes([ENDLESS], RecordStore(Path(sys.argv[1])), "cpu", 2, tell))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_processes_end_when_their_parent_is_killed(store, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, script, store.folder], stdout=subprocess.PIPE, text=True, env=environment
    )
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 1 and alive(children[0])
    parent.kill()
    parent.communicate()
    patience = time.monotonic() + 10
    while alive(children[0]) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not alive(children[0])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class TestHere:
    def test_the_number_of_threads_is_as_before(self, store):
        threads = []
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            for _ in here([TINY], store, "cpu", lambda _: threads.append(torch.get_num_threads())):
                threads.append(torch.get_num_threads())
            with pytest.raises(KeyboardInterrupt), threads_of(TINY, "cpu"):
                raise KeyboardInterrupt
            assert torch.get_num_threads() == 2
            with threads_of(TINY, "cuda"):
                assert torch.get_num_threads() == 2
            with threads_of(TINY.replace(width=1.0), "cpu"):  # alone, a wide network has all cores
                assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert threads == [1, 1, 2]

    def test_a_failure_keeps_no_network_in_memory(self, store, monkeypatch):
        networks = []

        def train(config, **_):
            network = torch.nn.Linear(1, 1)
            networks.append(weakref.ref(network))
            raise MemoryError

        monkeypatch.setattr(one_run, "train", train)
        ((_, failure),) = here([TINY], store, "cpu", print)
        assert isinstance(failure, RunFailed) and failure.reason == "out of memory"
        assert networks[0]() is None

    def test_ctrl_c_goes_through(self, store):
        def interrupt(event):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(here([TINY, TINY.replace(seed=1)], store, "cpu", interrupt))
