import json

import pytest
import torch

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.study import runs
from ipslib.study.progress import Counts, Progress
from ipslib.study.records import RecordStore
from ipslib.study.runs import PROGRESS_VARIABLE, run_all, train_and_record

TINY = RunConfig.from_flat(
    {
        "digits": "embedded",
        "canvas": 84,
        "patch_size": 28,
        "n_noise": 1,
        "n_train": 8,
        "n_test": 4,
        "width": 0.125,
        "n_heads": 4,
        "memory_size": 3,
        "iter_size": 3,
        "epochs": 2,
        "batch_size": 4,
        "warmup_epochs": 1,
    }
)


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
    """Train in this process, as on a GPU, so that no process has to start; the runs made."""
    torch.set_num_threads(1)
    made = []
    in_turn = runs._train_missing

    def train_here(config, store, *, device, report):
        made.append(config)
        return train_and_record(config, store, device="cpu", report=report)

    def one_job(missing, store, device, jobs, report):
        return in_turn(missing, store, "cuda", 1, report)

    monkeypatch.setattr(runs, "train_and_record", train_here)
    monkeypatch.setattr(runs, "_train_missing", one_job)
    return made


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


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

    monkeypatch.setattr(runs, "train", fail)
    assert run_all([TINY], store) == first
    with pytest.raises(AssertionError, match="trained again"):
        run_all([TINY, TINY.replace(lr=0.1)], store)


def test_a_generator_of_configurations_is_read_once(store, here):
    assert len(run_all((TINY.replace(seed=seed) for seed in (0, 0)), store)) == 2
    assert run_all([], store) == []


def test_timing_stands_apart_from_what_came_out(store):
    rows = []
    record = train_and_record(TINY, store, report=rows.append)
    assert len(record["timing"]["epoch_seconds"]) == 2
    assert record["timing"]["total_seconds"] >= sum(record["timing"]["epoch_seconds"])
    assert 50 < record["timing"]["peak_memory_mb"] < 20_000
    assert all("seconds" not in row for row in record["history"])
    assert [(row["event"], row["epoch"], row["epochs"]) for row in rows] == [
        ("epoch", 1, 2),
        ("epoch", 2, 2),
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
    assert start == {"event": "start", "runs": 2, "reused": 1}
    assert [(e["event"], e["done_epochs"], e["total_epochs"]) for e in epochs] == [
        ("epoch", 1, 2),
        ("epoch", 2, 2),
    ]
    assert run == {"event": "run", "name": "results_28_28_84_84_1n_8d_PS_28_seed_1",
                   "status": "made"}  # fmt: skip
    assert end == {"event": "end"}


def test_a_run_that_fails_is_reported_and_leaves_nothing(store, here, events, monkeypatch):
    def fail(config, *, device, on_epoch):
        on_epoch({"epoch": 1, "seconds": 0.1})
        raise IpslibError("The loss is no longer finite in epoch 2.")

    first = run_all([TINY], store)
    monkeypatch.setattr(runs, "train", fail)
    other = TINY.replace(seed=1)
    with pytest.raises(IpslibError, match="epoch 2"):
        run_all([TINY, other], store)
    assert events()[-1]["status"] == "failed"
    assert events()[-1]["name"].endswith("seed_1")
    assert names(store) == [f"{TINY.id}.json", f"{TINY.id}.pt"]
    monkeypatch.undo()
    assert store.find(TINY) == first[0]


def test_a_bar_shows_progress_where_no_runner_follows(store, here, monkeypatch, capsys):
    monkeypatch.delenv(PROGRESS_VARIABLE)
    run_all([TINY], store)
    assert "1 runs, 0 reused: 100%" in capsys.readouterr().err
    run_all([TINY], store)
    assert capsys.readouterr().err == ""


def truncated_mnist(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{split}-{kind}").write_bytes(b"\x00\x00\x08\x03\x00\x00\xea\x60")
    return root


def test_processes_side_by_side_make_the_records_of_this_one(
    store, tmp_path, events, monkeypatch, capfd
):
    """Two runs and one whose digits are torn: the error arrives, and what was made is kept."""
    monkeypatch.setenv("IPSLIB_DATA", str(truncated_mnist(tmp_path / "data")))
    configs = [TINY, TINY.replace(seed=1)]
    torn = TINY.replace(digits="mnist", n_train=4)  # the shortest goes last
    with pytest.raises(IpslibError, match="MNIST could not be read"):
        run_all([torn, *configs], store, jobs=2)
    assert "Traceback" not in capfd.readouterr().err
    assert names(store) == sorted(f"{c.id}.{kind}" for c in configs for kind in ("json", "pt"))
    statuses = {event["name"]: event["status"] for event in events() if event["event"] == "run"}
    assert statuses.pop("results_28_28_84_84_1n_4d_PS_28") == "failed"
    assert set(statuses.values()) <= {"made"}
    done = [event["done_epochs"] for event in events() if event["event"] == "epoch"]
    assert done == list(range(1, len(done) + 1))

    torch.set_num_threads(1)
    for config in configs:
        theirs = store.find(config)
        ours = train_and_record(config, RecordStore(tmp_path / "here"))
        for record in (theirs, ours):
            assert record.pop("provenance")["threads"] == 1
            del record["timing"]
        assert json.dumps(theirs) == json.dumps(ours)
        weights = [torch.load(s / f"{config.id}.pt") for s in (store.folder, tmp_path / "here")]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
