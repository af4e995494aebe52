"""A real Dask cluster on this machine: a scheduler, and workers that are processes."""

import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock, Timeout

from ipslib.__main__ import main
from ipslib.commands import sweep
from ipslib.commands.sweep import Swept, read_sweep
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs import cluster
from ipslib.runs.cluster import cluster_way
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import local_way, run_outcomes

ROOT = Path(__file__).resolve().parents[2]
distributed = pytest.importorskip("distributed")

TINY = {
    "digits": "embedded", "canvas": 84, "patch_size": 28, "n_noise": 1, "n_train": 8, "n_test": 4,
    "width": 0.125, "n_heads": 4, "memory_size": 3, "iter_size": 3, "batch_size": 4,
    "epochs": 25, "eval_every": 25,
}  # fmt: skip
CONFIGS = [run_config(TINY | {"seed": seed}) for seed in range(4)]
SHORT = [config.replace(epochs=1) for config in CONFIGS]


@pytest.fixture(autouse=True)
def events(tmp_path, monkeypatch):
    path = tmp_path / "events"
    monkeypatch.setenv("IPSLIB_PROGRESS", str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def two_workers():
    """Two workers of one GPU slot and two threads each, started anew when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1",
        dashboard_address=":0", resources={"GPU": 1}, silence_logs=60,
    ) as local:  # fmt: skip
        local.wait_for_workers(2)
        yield local


def statuses(outcomes) -> list[str]:
    return sorted(f"{each.status} {each.failure or ''}".strip() for each in outcomes)


def what_came_out(store, config) -> tuple[str, dict]:
    record = store.find(config)
    lasting = {key: record[key] for key in record if key not in ("provenance", "timing")}
    weights = torch.load(store.folder / f"{config.id}.pt", weights_only=True)
    return json.dumps(lasting), {name: value.tolist() for name, value in weights.items()}


def kill_a_worker_at_a_run(client, store, killed: list[int]) -> None:
    """Kill the first worker that has checkpointed a run and is still at it."""
    pids = client.run(os.getpid)
    while not killed:
        time.sleep(0.02)
        if any(store.folder.glob("*.checkpoint.pt")):
            for address in client.call_stack():  # workers that are at something
                killed.append(pids[address])
                os.kill(pids[address], signal.SIGKILL)
                return


def test_a_sweep_survives_a_killed_worker_bit_for_bit(two_workers, tmp_path, events):
    store, killed = RecordStore(tmp_path / "cluster"), []
    with distributed.Client(two_workers.scheduler_address) as client:
        killer = threading.Thread(target=kill_a_worker_at_a_run, args=(client, store, killed))
        killer.start()
        outcomes = list(run_outcomes(CONFIGS, store, cluster_way(two_workers.scheduler_address)))
        killer.join(10)
        assert len(killed) == 1
        assert killed[0] not in client.run(os.getpid).values()
    assert statuses(outcomes) == ["made"] * 4

    serial = RecordStore(tmp_path / "serial")
    assert statuses(run_outcomes(CONFIGS, serial, local_way(1))) == ["made"] * 4
    for config in CONFIGS:
        assert what_came_out(store, config) == what_came_out(serial, config)
    names = {path.name for path in store.folder.iterdir()} - {".locks"}
    assert names == {f"{config.id}.{kind}" for config in CONFIGS for kind in ("json", "pt")}


def test_epochs_are_told_as_they_pass(two_workers, tmp_path, events):
    store = RecordStore(tmp_path / "cluster")
    list(run_outcomes(CONFIGS[:1], store, cluster_way(two_workers.scheduler_address)))
    told = [event["epoch"] for event in events() if event["event"] == "epoch"]
    assert told[:20] == list(range(1, 21))


def test_a_worker_with_a_gpu_slot_never_holds_two_runs(two_workers, tmp_path, monkeypatch):
    """Workers have two threads here, so that only the slot keeps a second run away."""
    monkeypatch.setattr(cluster, "_work", _note_who_is_here)
    store = RecordStore(tmp_path / "slots")
    outcomes = list(run_outcomes(SHORT, store, cluster_way(two_workers.scheduler_address)))
    seen = [outcome.record for outcome in outcomes]
    assert len(seen) == 4
    assert {record["alone"] for record in seen} == {True}
    assert len({record["worker"] for record in seen}) == 2


def _note_who_is_here(values: dict, folder: str, topic: str) -> dict:
    """In place of a run: whether a second one came to this worker meanwhile."""
    os.makedirs(folder, exist_ok=True)
    try:
        with FileLock(os.path.join(folder, f"{os.getpid()}.lock")).acquire(timeout=0):
            time.sleep(0.3)
            return {"alone": True, "worker": os.getpid()}
    except Timeout:
        return {"alone": False, "worker": os.getpid()}


def test_threads_of_a_worker_without_slots_train_one_run_at_a_time(tmp_path):
    """They share torch's random state: side by side, the runs would differ from serial ones."""
    store, serial = RecordStore(tmp_path / "threads"), RecordStore(tmp_path / "serial")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0",
    ) as local:  # fmt: skip
        list(run_outcomes(SHORT, store, cluster_way(local.scheduler_address)))
    list(run_outcomes(SHORT, serial, local_way(1)))
    for config in SHORT:
        assert what_came_out(store, config) == what_came_out(serial, config)


def test_a_run_that_fails_on_a_worker_says_why(two_workers, tmp_path):
    wild = {"lr": 10.0, "semantic_weight": 1e6, "diversity_weight": 1e6, "weight_decay": 10.0}
    config = CONFIGS[0].replace(warmup_epochs=0, **wild)
    store = RecordStore(tmp_path / "failing")
    [outcome] = run_outcomes([config], store, cluster_way(two_workers.scheduler_address))
    assert (outcome.status, outcome.failure.reason) == ("failed", "diverged")
    assert store.failures()[0]["id"] == config.id


def test_no_scheduler_is_one_sentence_within_the_patience(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "_PATIENCE_S", 1)
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    (tmp_path / "sweep.yaml").write_text(f"profile: smoke\nruns: [{json.dumps(TINY)}]\n")
    start = time.monotonic()
    status = main(["sweep", str(tmp_path / "sweep.yaml"), "--scheduler", "tcp://127.0.0.1:9"])
    assert status == 2
    assert time.monotonic() - start < 10
    err = capsys.readouterr().err
    assert err.startswith("ipslib: no Dask scheduler answers at tcp://127.0.0.1:9 within 1 s")
    assert err.count("\n") == 1
    with pytest.raises(IpslibError, match="no Dask scheduler answers at nonsense"):
        list(run_outcomes(SHORT, RecordStore(tmp_path), cluster_way("nonsense")))


class StandIn:
    """In place of dask-jobqueue's cluster, which needs SLURM: what it was asked for."""

    scheduler_address, asked = "tcp://127.0.0.1:1", {}

    def __init__(self, **options):
        self.asked.update(options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def adapt(self, **options):
        self.asked.update(options)


@pytest.mark.parametrize("n_failed", [0, 2])
def test_the_example_for_clusters_starts_gpu_workers_and_sweeps(monkeypatch, capsys, n_failed):
    swept = []

    def run_sweep(path, *, scheduler):
        swept.append((read_sweep(path), scheduler))
        return Swept([{"run": "a", "state": "made"}], [], n_failed)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=StandIn))
    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "params" / "cluster_example.py"), run_name="__main__")
    assert end.value.code == int(n_failed > 0)
    assert [scheduler for _, scheduler in swept] == ["tcp://127.0.0.1:1"]
    assert "made" in capsys.readouterr().out
    asked = StandIn.asked
    assert asked["worker_extra_args"] == ["--resources", f"{cluster.SLOT}=1"]
    assert (asked["processes"], asked["cores"]) == (1, 1)
    assert asked["minimum_jobs"] == asked["maximum_jobs"] > 1
