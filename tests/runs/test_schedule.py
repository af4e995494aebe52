import json
import sys

import pytest

from ipslib import training
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs import one_run, pool, schedule
from ipslib.runs.events import PROGRESS_VARIABLE
from ipslib.runs.one_run import RunFailed, train_and_record
from ipslib.runs.progress import Counts, Progress
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import run_all, run_outcomes
from ipslib.training import DivergenceError
from tests.tiny import TINY


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "records")


@pytest.fixture(autouse=True)
def events(tmp_path, monkeypatch):
    """The events that a runner would follow, read when called."""
    path = tmp_path / "events"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def here(monkeypatch):
    """Train in this process, as on a GPU, so that no process has to start; the runs tried."""
    tried = []

    def train_here(config, store, **arguments):
        tried.append(config)
        return train_and_record(config, store, **arguments)

    monkeypatch.setattr(pool, "train_and_record", train_here)
    monkeypatch.setattr(schedule, "local_way", lambda jobs: in_turn)
    return tried


def in_turn(configs, store, report):
    return pool.here(configs, store, "cpu", report)


def names(store):
    return sorted(path.name for path in store.folder.iterdir() if path.name != ".locks")


def test_records_come_in_the_order_asked_and_a_run_named_twice_is_trained_once(store, here):
    one, other = TINY, TINY.replace(seed=1)
    found = run_all([other, one, other, TINY.replace(seed=0)], store)
    assert [record["id"] for record in found] == [other.id, one.id, other.id, one.id]
    assert [config.id for config in here] == [other.id, one.id]
    assert names(store) == sorted(f"{c.id}.{kind}" for c in (one, other) for kind in ("json", "pt"))


def test_what_has_a_record_is_not_trained_again(store, here, monkeypatch):
    first = run_all([TINY], store)

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(pool, "train_and_record", fail)
    assert run_all([TINY], store) == first
    with pytest.raises(IpslibError, match="trained again"):
        run_all([TINY, TINY.replace(lr=0.1)], store)


def test_a_generator_of_configurations_is_read_once(store, here):
    assert len(run_all((TINY.replace(seed=seed) for seed in (0, 0)), store)) == 2
    assert run_all([], store) == []


def test_timing_stands_apart_from_what_came_out(store):
    rows = []
    record = train_and_record(TINY, store, report=rows.append)
    timing = record["timing"]
    assert len(timing["epoch_seconds"]) == 2
    assert timing["training_seconds"] == pytest.approx(sum(timing["epoch_seconds"]), abs=2e-3)
    assert timing["last_attempt_seconds"] >= timing["training_seconds"]
    assert 50 < timing["peak_memory_mb"] < 20_000
    assert all("seconds" not in row for row in record["history"])
    assert [(row["event"], row["id"], row["epoch"], row["epochs"]) for row in rows] == [
        ("epoch", TINY.id, 1, 2),
        ("epoch", TINY.id, 2, 2),
    ]


def test_a_runner_can_follow_the_events(store, here, events, tmp_path):
    with Progress("01", tmp_path / "events") as progress:
        run_all([TINY], store)
    assert progress.counts() == Counts(made=1, reused=0, failed=0)
    other = TINY.replace(seed=1)
    (tmp_path / "events").unlink()
    with Progress("01", tmp_path / "events") as progress:
        run_all([TINY, other, other], store)
    assert progress.counts() == Counts(made=1, reused=1, failed=0)
    start, *epochs, run, end = events()
    ids = {"ids": [TINY.id, other.id], "reused_ids": [TINY.id]}
    assert start == {"event": "start", "runs": 2, "reused": 1} | ids
    assert [(e["event"], e["done_epochs"], e["total_epochs"]) for e in epochs] == [
        ("epoch", 1, 2),
        ("epoch", 2, 2),
    ]
    named = {"id": other.id, "name": "results_28_28_84_84_1n_8d_PS_28_seed_1"}
    assert run.items() >= ({"event": "run", "status": "made"} | named).items()
    assert end == {"event": "end"}


def test_cells_that_name_the_same_runs_count_them_once(store, here, tmp_path):
    with Progress("01", tmp_path / "events") as progress:
        run_all([TINY], store)
        run_all([TINY, TINY.replace(seed=1)], store)
        run_all([TINY, TINY.replace(seed=1)], store)
    assert progress.counts() == Counts(made=2, reused=0, failed=0)
    assert progress._text() == "2 of 2 runs, 0 reused"


@pytest.fixture
def failing(monkeypatch):
    """A run that fails the first so many times, on its way to its record."""
    failures = {"left": 0}

    def train(config, **arguments):
        if config.training.seed == 1 and failures["left"]:
            failures["left"] -= 1
            raise DivergenceError("the loss is no longer finite in epoch 2, step 1 of 2.")
        return training.train(config, **arguments)

    monkeypatch.setattr(one_run, "train", train)

    def fail(n):
        failures["left"] = n

    return fail


def test_a_run_that_fails_twice_is_recorded_and_stops_no_other(store, here, events, failing):
    failing(2)
    bad, good = TINY.replace(seed=1), TINY.replace(seed=2)
    first = run_all([TINY], store)
    with pytest.raises(IpslibError, match="seed_1: the loss is .* epoch 2, step 1 of 2.$") as error:
        run_all([TINY, bad, good], store)
    assert "\n" not in str(error.value)
    assert [config.training.seed for config in here] == [0, 1, 2, 1]  # again after the others
    assert [e["status"] for e in events() if e["event"] == "run"] == ["made", "made", "failed"]
    assert events()[-1] == {"event": "end"}
    (failure,) = store.failures()
    assert (failure["id"], failure["reason"]) == (bad.id, "diverged")
    assert failure["message"] == str(error.value)
    kept = [f"{c.id}.{kind}" for c in (TINY, good) for kind in ("json", "pt")]
    assert names(store) == sorted([*kept, f"{bad.id}.failure"])
    assert store.find(TINY) == first[0]

    run_all([TINY, bad, good], store)  # and a success takes its place
    assert store.failures() == []
    assert names(store) == sorted([*kept, f"{bad.id}.json", f"{bad.id}.pt"])


def test_a_run_that_fails_once_is_made_all_the_same(store, here, failing):
    failing(1)
    outcomes = list(run_outcomes([TINY.replace(seed=1)], store, in_turn))
    assert [(each.status, each.failure) for each in outcomes] == [("made", None)]
    assert store.failures() == []


def test_several_failures_are_one_sentence_with_their_number(store, monkeypatch):
    def way(configs, store, report):
        for config in configs:
            yield config, RunFailed("killed", "its process was killed.")

    monkeypatch.setattr(schedule, "local_way", lambda jobs: way)
    with pytest.raises(IpslibError, match=r"^its process was killed. \(2 runs failed\)$"):
        run_all([TINY, TINY.replace(seed=1)], store)
    assert len(store.failures()) == 2


def test_without_anything_to_do_no_way_is_taken(store, here):
    run_all([TINY], store)
    (outcome,) = run_outcomes([TINY], store, way=None)
    assert outcome.status == "reused"


def test_a_last_run_is_not_brought_home_from_the_processes(store, monkeypatch):
    """What killed its process would kill this one."""
    ways = []
    monkeypatch.setattr(schedule, "here", lambda *_: ways.append("here") or [])
    monkeypatch.setattr(schedule, "in_processes", lambda *_: ways.append("processes") or [])
    way = schedule.local_way(2)
    for configs in ([TINY], [TINY, TINY.replace(seed=1)], [TINY]):
        way(configs, store, print)
    assert ways == ["here", "processes", "processes"]


def test_a_bar_shows_progress_where_no_runner_follows(store, here, monkeypatch, capsys):
    monkeypatch.delenv(PROGRESS_VARIABLE)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # as in JupyterLab
    run_all([TINY], store)
    assert "1 runs, 0 reused: 100%" in capsys.readouterr().err
    run_all([TINY], store)
    assert capsys.readouterr().err == ""


def test_digits_that_cannot_be_read_are_told_before_any_run(
    tmp_path, monkeypatch, shared, fresh_digits
):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (shared / "mnist" / "MNIST" / "raw").iterdir():
        (raw / path.name).write_bytes(path.read_bytes()[:1000])
    monkeypatch.setenv("IPSLIB_DATA", str(tmp_path))
    store = RecordStore(tmp_path / "records")
    with pytest.raises(IpslibError, match="truncated"):
        run_all([TINY.replace(digits="mnist")], store)
    assert not store.folder.exists()


def test_the_longest_runs_are_begun_first_whatever_the_data_are(store):
    """Kinds of data that tell their images only when read go by epochs."""
    signs = {"dataset": "traffic_signs", "signs": "standin"}
    settings = [signs | {"fraction": share, "epochs": 5} for share in (0.25, 1.0, 0.5)]
    images = {"classes": {"kind": ["a", "b"]}, "labels_sha256": "0", "patch_size": 8}
    images |= {"dataset": "own_images", "labels": "labels.csv"}
    begun = []

    def way(configs, store, report):
        begun.extend(configs)
        return (each for each in ())

    list(run_outcomes(map(run_config, settings), store, way))
    assert [config.data.fraction for config in begun] == [1.0, 0.5, 0.25]
    begun.clear()
    own = [run_config(images | {"epochs": epochs}) for epochs in (1, 3)]
    list(run_outcomes(own, store, way))
    assert [config.training.epochs for config in begun] == [3, 1]


def test_what_another_process_is_at_comes_last(store):
    configs = [TINY.replace(seed=seed) for seed in range(3)]
    begun = []

    def way(waiting, store, report):
        begun.extend(config.training.seed for config in waiting)
        return (each for each in ())

    with store.lock(configs[0]):
        list(run_outcomes(configs, store, way))
    assert begun == [1, 2, 0]
    assert not store.is_held(configs[0])


@pytest.mark.parametrize(("said", "processes"), [("1", 0), ("2", 2)])
def test_the_environment_says_how_many_runs_go_side_by_side(store, monkeypatch, said, processes):
    monkeypatch.setenv(schedule.JOBS_VARIABLE, said)
    asked = []

    def in_processes(configs, store, device, jobs, report):
        asked.append(jobs)
        return in_turn(configs, store, report)

    monkeypatch.setattr(schedule, "in_processes", in_processes)
    assert len(run_all([TINY, TINY.replace(seed=1)], store)) == 2
    assert sum(asked) == processes


@pytest.mark.parametrize("said", ["many", "0"])
def test_a_number_of_jobs_that_is_none_is_refused_before_any_run(store, monkeypatch, said):
    monkeypatch.setenv(schedule.JOBS_VARIABLE, said)
    with pytest.raises(IpslibError, match=f"IPSLIB_JOBS: wanted a number of runs.*got '{said}'"):
        run_all([TINY], store)
    assert not store.folder.exists()
