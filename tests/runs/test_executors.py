"""Work in processes and on a real Dask cluster: what one of them suffers, and that none is left."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from filelock import FileLock, Timeout

from ipslib.__main__ import main
from ipslib.commands import sweep
from ipslib.commands.sweep import SweepResult, read_sweep
from ipslib.runs import executors
from ipslib.runs.executors import WorkerDied, dask_cluster, do_alone, here, processes
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import run_outcomes
from tests.tiny import TINY, names, what_came_out

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("events")


def give(*tasks):
    return partial(next, iter(tasks), None)


def assert_as_one_after_the_other(store, folder, configs):
    """In this process, the same bits come out."""
    serial = RecordStore(folder)
    assert {each.status for each in run_outcomes(configs, serial, jobs=1)} == {"made"}
    for config in configs:
        assert what_came_out(store, config) == what_came_out(serial, config)


# --- any work ---------------------------------------------------------------------------------


def echo(task, report):
    report(f"begun {task}")
    return os.environ["ECHO"], 2 * task


def die(signal_number, report):
    os.kill(os.getpid(), signal_number)


def leave(status, report):
    os._exit(status)


def note_an_interruption(folder, report):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:  # from before the word: the interrupt may come while it is being sent
        report("begun")
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5 * float(folder.name))
        (folder / "interrupted").touch()


@pytest.mark.parametrize("executor", [here, processes(1), processes(2)])
def test_every_task_ends_with_its_result_and_its_events_are_heard(executor, monkeypatch):
    monkeypatch.setenv("ECHO", "said")  # a process has the environment of when it is begun
    heard = []
    done = dict(executor(echo, give(1, 2, 3), heard.append))
    assert done == {task: ("said", 2 * task) for task in (1, 2, 3)}
    assert sorted(heard) == ["begun 1", "begun 2", "begun 3"]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("work", "task", "exitcode"),
    [(die, signal.SIGKILL, -9), (die, signal.SIGTERM, -15), (leave, 3, 3)],
)
def test_how_a_process_died_is_told_and_the_next_task_has_another(work, task, exitcode):
    death = do_alone(work, task)
    assert isinstance(death, WorkerDied) and death.exitcode == exitcode
    assert str(abs(exitcode)) in str(death)
    assert ("memory" in str(death)) == (task == signal.SIGKILL)


def test_tasks_can_end_by_themselves_when_their_processes_are_asked_to(tmp_path):
    """However long each takes, asked once."""
    begun, folders = [], [tmp_path / name for name in ("0", "1", "2")]

    def interrupt(event):
        begun.append(event)
        if len(begun) == len(folders):
            raise KeyboardInterrupt

    for folder in folders:
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        list(processes(3)(note_an_interruption, give(*folders), interrupt))
    assert all((folder / "interrupted").exists() for folder in folders)
    assert multiprocessing.active_children() == []


# --- runs in processes ------------------------------------------------------------------------


def test_a_killed_process_costs_the_others_nothing_and_its_run_goes_on(
    store, tmp_path, monkeypatch, capfd
):
    long, short = TINY.replace(epochs=30, eval_every=30), TINY.replace(seed=1)
    tried, epochs, pids, submit = [], [], {}, executors._Worker.submit

    def note(worker, run):
        pids[run.id] = worker.process.pid
        tried.append(run.id)
        submit(worker, run)

    def executor(work, next_task, report):
        def hear(event):
            if event["id"] == long.id:
                epochs.append((event["epoch"], event["resumed_at"]))
                if epochs == [(1, 0), (2, 0)]:
                    os.kill(pids[long.id], signal.SIGKILL)

        return processes(2)(work, next_task, hear)

    monkeypatch.setattr(executors._Worker, "submit", note)
    outcomes = list(run_outcomes([short, long], store, executor=executor))
    assert "Traceback" not in capfd.readouterr().err
    assert tried == [long.id, short.id, long.id]
    assert [each.status for each in outcomes] == ["made", "made"]
    assert next(each for each in epochs if each[1]) == (2, 1)  # from its first checkpoint
    assert multiprocessing.active_children() == []
    for config in (long, short):
        assert store.find(config)["provenance"]["threads"] == 1
    assert_as_one_after_the_other(store, tmp_path / "serial", [long, short])


PARENT = """
import multiprocessing, time
from ipslib.runs.executors import processes

def work(task, report):
    report("begun")
    time.sleep(120)

def tell(event):
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)

if __name__ == "__main__":
    tasks = iter([1])
    list(processes(1)(work, lambda: next(tasks, None), tell))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_processes_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
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


# --- on a cluster -----------------------------------------------------------------------------

distributed = pytest.importorskip("distributed")
CONFIGS = [TINY.replace(seed=seed, epochs=15, eval_every=15) for seed in range(3)]
SHORT = [config.replace(epochs=1, warmup_epochs=0) for config in CONFIGS]


@pytest.fixture(scope="module")
def two_workers():
    """Two workers of one GPU slot and two threads each, started anew when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1",
        dashboard_address=":0", resources={"GPU": 1}, silence_logs=60,
    ) as local:  # fmt: skip
        local.wait_for_workers(2)
        yield local


def on_cluster(configs, store, cluster) -> list:
    executor = dask_cluster(cluster.scheduler_address)
    return list(run_outcomes(configs, store, executor=executor))


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


def test_a_sweep_survives_a_killed_worker_bit_for_bit(two_workers, store, tmp_path, events):
    killed = []
    with distributed.Client(two_workers.scheduler_address) as client:
        killer = threading.Thread(target=kill_a_worker_at_a_run, args=(client, store, killed))
        killer.start()
        outcomes = on_cluster(CONFIGS, store, two_workers)
        killer.join(10)
        assert len(killed) == 1
        assert killed[0] not in client.run(os.getpid).values()
    assert [each.status for each in outcomes] == ["made"] * 3
    told = {event["id"] for event in events() if event["event"] == "epoch"}
    assert told == {config.id for config in CONFIGS}
    assert names(store) == sorted(f"{each.id}.{end}" for each in CONFIGS for end in ("json", "pt"))
    assert_as_one_after_the_other(store, tmp_path / "serial", CONFIGS)


def test_a_worker_with_a_gpu_slot_never_holds_two_tasks(two_workers, tmp_path, monkeypatch):
    """Workers have two threads here, so that only the slot keeps a second one away."""
    monkeypatch.setattr(executors, "_on_worker", _note_who_is_here)
    executor = dask_cluster(two_workers.scheduler_address)
    seen = dict(executor(None, give(*[tmp_path / name for name in "abcd"]), print)).values()
    assert len(seen) == 4
    assert {alone for alone, _ in seen} == {True}
    assert len({worker for _, worker in seen}) == 2


def _note_who_is_here(work, task: Path, topic: str) -> tuple[bool, int]:
    """In place of any work: whether a second task came to this worker meanwhile."""
    try:
        with FileLock(task.parent / f"{os.getpid()}.lock").acquire(timeout=0):
            time.sleep(0.3)
            return True, os.getpid()
    except Timeout:
        return False, os.getpid()


def test_threads_of_a_worker_without_slots_train_one_run_at_a_time(store, tmp_path):
    """They share torch's random state: side by side, the runs would differ from serial ones."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0",
    ) as local:  # fmt: skip
        on_cluster(SHORT, store, local)
    assert_as_one_after_the_other(store, tmp_path / "serial", SHORT)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_no_scheduler_is_one_sentence(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(executors, "_PATIENCE_S", 1)
    monkeypatch.setenv("IPSLIB_OUTPUTS", str(tmp_path))
    (tmp_path / "sweep.yaml").write_text("profile: smoke\nruns: [{digits: embedded}]\n")
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "--scheduler", address]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ipslib: ") and address in err and err.count("\n") == 1


def test_the_example_for_clusters_starts_gpu_workers_and_sweeps(monkeypatch, capsys):
    """With a stand-in for dask-jobqueue's cluster, which needs SLURM."""
    slurm = MagicMock()
    cluster = slurm.return_value.__enter__.return_value

    def run_sweep(path, *, scheduler):
        assert read_sweep(path).settings and scheduler is cluster.scheduler_address
        return SweepResult([{"run": "a", "state": "made"}], [], 2)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=slurm))
    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "params" / "cluster_example.py"), run_name="__main__")
    assert end.value.code == 1 and "made" in capsys.readouterr().out
    assert slurm.call_args.kwargs["worker_extra_args"] == ["--resources", f"{executors.SLOT}=1"]
    assert slurm.call_args.kwargs["cores"] == slurm.call_args.kwargs["processes"] == 1
    jobs = cluster.adapt.call_args.kwargs
    assert jobs["minimum_jobs"] == jobs["maximum_jobs"] > 1
