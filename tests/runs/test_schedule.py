import weakref

import pytest
import torch

from ipslib import runs, training
from ipslib.config import RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs import one_run, schedule
from ipslib.runs.one_run import RunFailed
from ipslib.runs.schedule import run_all, run_outcomes
from ipslib.training import DivergenceError
from tests.tiny import TINY, names, write_mnist

SECOND, THIRD = TINY.replace(seed=1), TINY.replace(seed=2)
pytestmark = pytest.mark.usefixtures("events")


@pytest.fixture
def tried(monkeypatch):
    """The runs that are trained, in their order."""
    tried, train = [], one_run.train_and_record

    def note(config, store, **options):
        tried.append(config)
        return train(config, store, **options)

    monkeypatch.setattr(schedule, "train_and_record", note)
    return tried


def by(ended):
    """An executor by which every run ends with what `ended` says of its configuration."""

    def executor(work, next_task, report):
        while run := next_task():
            yield run, ended(run.config)

    return executor


def test_records_come_in_the_order_asked_and_a_run_named_twice_is_trained_once(store, tried):
    wanted = (each for each in (SECOND, TINY, SECOND, TINY.replace(seed=0)))  # read once
    found = run_all(wanted, store)
    assert [record["id"] for record in found] == [SECOND.id, TINY.id, SECOND.id, TINY.id]
    assert tried == [SECOND, TINY]
    assert names(store) == sorted(f"{c.id}.{end}" for c in tried for end in ("json", "pt"))
    assert run_all([], store) == [] and run_all([TINY], store) == found[1:2]
    assert tried == [SECOND, TINY]  # what has a record is not trained again


def test_a_runner_can_follow_the_events(store, events):
    run_all([TINY], store)
    start, *epochs, run, end = events()
    assert start == {"event": "start", "reused": [], "epochs": {TINY.id: 2}}
    told = [(e["id"], e["epoch"], e["epochs"], e["resumed_at"]) for e in epochs]
    assert told == [(TINY.id, 1, 2, 0), (TINY.id, 2, 2, 0)]
    assert (run, end) == ({"event": "run", "id": TINY.id, "status": "made"}, {"event": "end"})
    run_all([TINY], store)
    assert events()[5:] == [{"event": "start", "reused": [TINY.id], "epochs": {}}, end]


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
    return lambda n: failures.update(left=n)


def test_a_run_that_fails_twice_is_recorded_and_stops_no_other(store, tried, events, failing):
    failing(2)
    first = run_all([TINY], store)
    with pytest.raises(IpslibError, match="seed_1.* epoch 2, step 1 of 2") as error:
        run_all([TINY, SECOND, THIRD], store)
    assert "\n" not in str(error.value)
    assert tried == [TINY, SECOND, THIRD, SECOND]  # again after the others
    assert [e["status"] for e in events() if e["event"] == "run"] == ["made", "made", "failed"]
    assert events()[-1] == {"event": "end"}
    (failure,) = store.failures()
    assert (failure["id"], failure["reason"]) == (SECOND.id, "diverged")
    assert failure["message"] == str(error.value)
    kept = [f"{config.id}.{end}" for config in (TINY, THIRD) for end in ("json", "pt")]
    assert names(store) == sorted([*kept, f"{SECOND.id}.failure"])
    assert store.find(TINY) == first[0]

    run_all([TINY, SECOND, THIRD], store)  # and a success takes its place
    assert store.failures() == []
    assert names(store) == sorted([*kept, f"{SECOND.id}.json", f"{SECOND.id}.pt"])


def test_any_error_is_a_failure_and_several_are_one_sentence_with_their_number(store, monkeypatch):
    monkeypatch.setattr(schedule, "train_and_record", None)
    with pytest.raises(IpslibError, match="not callable.*2 runs"):
        run_all([TINY, SECOND], store)
    assert [failure["reason"] for failure in store.failures()] == ["error", "error"]


def test_a_failed_run_for_which_no_time_is_left_is_no_secret(store):
    """Only the first attempt is begun before time is up."""
    failed = by(lambda config: RunFailed("diverged", "It diverged."))
    chosen = iter([True])
    outcomes = run_outcomes(
        [TINY, SECOND],
        store,
        executor=failed,
        choose=lambda waiting: next(chosen, 0) and waiting[0],
    )
    assert [(each.config, each.status) for each in outcomes] == [(TINY, "failed")]
    assert [failure["id"] for failure in store.failures()] == [TINY.id]


def test_a_run_that_another_process_began_meanwhile_is_left_for_the_next(store):
    """Between the look and the lock: the loser takes another run, and looks again."""
    ends = {TINY.id: [RunFailed("held", "Held."), {}], SECOND.id: [{}]}
    held = by(lambda config: ends[config.id].pop(0))
    outcomes = run_outcomes(
        [TINY, SECOND], store, executor=held, choose=lambda waiting: waiting and waiting[0]
    )
    assert [(each.config, each.status) for each in outcomes] == [(SECOND, "made"), (TINY, "made")]


def test_a_full_disk_stops_all_runs(store):
    full = by(lambda config: RunFailed("disk full", "Free some space."))
    with pytest.raises(RunFailed, match="space"):
        list(run_outcomes([TINY, SECOND], store, executor=full))


def test_a_failure_keeps_no_network_in_memory(store, monkeypatch):
    networks = []

    def train(config, **_):
        network = torch.nn.Linear(1, 1)
        networks.append(weakref.ref(network))
        raise MemoryError

    monkeypatch.setattr(one_run, "train", train)
    [outcome] = run_outcomes([TINY], store)
    assert outcome.failure.reason == "out of memory"
    assert [network() for network in networks] == [None, None]


@pytest.mark.parametrize(("width", "n"), [(0.125, 1), (1.0, 2)])
def test_a_narrow_network_has_one_thread_and_a_wide_one_all(store, monkeypatch, width, n):
    before, seen = torch.get_num_threads(), []
    note = lambda *_, **__: {"threads": seen.append(torch.get_num_threads())}  # noqa: E731
    monkeypatch.setattr(schedule, "train_and_record", note)
    torch.set_num_threads(2)
    try:
        list(run_outcomes([TINY.replace(width=width)], store))
        assert (seen, torch.get_num_threads()) == ([n], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("environment", "runner", "asked", "n_runs", "n_processes"),
    [
        ("1", 0, None, 2, 0),
        ("2", 0, None, 2, 2),
        ("2", 1, None, 2, 2),  # a user's word counts more than a runner's
        ("", 2, None, 2, 2),
        ("2", 0, 3, 4, 3),
        ("2", 0, None, 1, 0),
    ],
)
def test_how_many_runs_go_side_by_side(
    store, monkeypatch, environment, runner, asked, n_runs, n_processes
):
    monkeypatch.setenv(schedule.JOBS_VARIABLE, environment)
    monkeypatch.setattr(runs, "KERNEL", runs.Kernel(events=runs.KERNEL.events, jobs=runner))
    made, jobs = by(lambda config: {"id": config.id}), []
    monkeypatch.setattr(schedule, "here", made)
    monkeypatch.setattr(schedule, "processes", lambda n: jobs.append(n) or made)
    assert len(run_all([TINY.replace(seed=i) for i in range(n_runs)], store, jobs=asked)) == n_runs
    assert sum(jobs) == n_processes


@pytest.mark.parametrize("jobs", ["many", "0"])
def test_a_number_of_jobs_that_is_none_is_refused_before_any_run(store, monkeypatch, jobs):
    monkeypatch.setenv(schedule.JOBS_VARIABLE, jobs)
    with pytest.raises(IpslibError, match=f"IPSLIB_JOBS.*'{jobs}'"):
        run_all([TINY], store)
    assert not store.folder.exists()


def test_digits_that_cannot_be_read_are_told_before_any_run(
    tmp_path, monkeypatch, fresh_digits, store
):
    for file in write_mnist(tmp_path).iterdir():
        file.write_bytes(file.read_bytes()[:8])
    monkeypatch.setenv("IPSLIB_DATA", str(tmp_path))
    with pytest.raises(IpslibError, match="MNIST"):
        run_all([TINY.replace(digits="mnist")], store)
    assert not store.folder.exists()


def begun(configs, store) -> list[RunConfig]:
    order = []
    list(run_outcomes(configs, store, executor=by(lambda config: order.append(config) or {})))
    return order


def test_the_longest_runs_are_begun_first_whatever_the_data_are(store):
    """Kinds of data that tell their images only when read go by epochs."""
    signs = {"dataset": "traffic_signs", "signs": "standin", "epochs": 5}
    shares = [run_config(signs | {"fraction": share}) for share in (0.25, 1.0, 0.5)]
    assert [config.data.fraction for config in begun(shares, store)] == [1.0, 0.5, 0.25]
    images = {"classes": {"kind": ["a", "b"]}, "labels_sha256": "0", "patch_size": 8}
    images |= {"dataset": "own_images", "labels": "labels.csv"}
    own = [run_config(images | {"epochs": epochs}) for epochs in (1, 3)]
    assert [config.training.epochs for config in begun(own, store)] == [3, 1]


def test_what_another_process_is_at_comes_last(store):
    with store.run(TINY).lock():
        assert begun([TINY, SECOND, THIRD], store) == [SECOND, THIRD, TINY]
    assert not store.run(TINY).is_held()
