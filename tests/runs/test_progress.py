"""Events of runs: counted, shown as a bar or in lines, or appended for who follows them."""

import json
import sys
import time

import pytest

from ipslib import runs
from ipslib.datasets.registry import run_config
from ipslib.runs import Progress, followed, reporting, start_event

ONE = run_config({"epochs": 10, "warmup_epochs": 1})
OTHER = ONE.replace(seed=1)
STATUSES = ("made", "reused", "failed")


def epoch(config, number, resumed_at=0):
    event = {"event": "epoch", "run": f"run {config.training.seed}", "id": config.id}
    return event | {"epoch": number, "epochs": 10, "resumed_at": resumed_at}


def ended(config, status="made"):
    return {"event": "run", "id": config.id, "status": status}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def counted(*events) -> list[int]:
    """Runs made, reused and failed, of a notebook's runs."""
    progress = Progress("01", bar=False)
    for event in events:
        progress(event)
    return [progress.count(status) for status in STATUSES]


def test_a_run_counts_once_however_many_cells_name_it():
    first, second = start_event(["a"], [ONE]), start_event(["a", ONE.id], [OTHER])
    waited_for = {"event": "wait", "id": ONE.id, "run": "results_a"}
    assert counted(first) == [0, 1, 0]
    assert counted(first, ended(ONE), second, ended(OTHER, "failed")) == [1, 1, 1]
    assert counted(first, waited_for, ended(ONE)) == [1, 1, 0]


class TestLines:
    @pytest.fixture(autouse=True)
    def no_notebook(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    @pytest.mark.parametrize(
        ("events", "minutes"),
        [
            ([epoch(ONE, 1)], 19),  # of two runs of ten epochs each
            ([epoch(ONE, 1), epoch(ONE, 2)], 9),
            ([epoch(ONE, 8, resumed_at=7)], 12),  # those before a checkpoint cost no time now
            ([epoch(ONE, 8, resumed_at=7)] * 2, 12),  # and are counted once
            ([ended(OTHER, "failed"), epoch(ONE, 10, resumed_at=9)], 0),  # no more is to come of it
        ],
    )
    def test_time_left_is_that_of_the_epochs_left(self, clock, capsys, events, minutes):
        with reporting([], [ONE, OTHER]) as report:
            clock(60)
            for event in events:
                report(event)
        last = capsys.readouterr().err.splitlines()[-1]
        assert f"epoch {events[-1]['epoch']} of 10" in last and f" {minutes}.0 min" in last

    def test_a_run_that_begins_later_adds_its_epochs(self, clock, capsys):
        with reporting([], []) as report:
            report(start_event([], [ONE]))
            clock(60)
            for _ in range(2):
                report(epoch(ONE, 1))
                report(start_event([], [OTHER]))
        first, second = capsys.readouterr().err.splitlines()
        assert " 9.0 min" in first and " 19.0 min" in second

    def test_of_a_notebook_a_line_is_a_run(self, capsys):
        counted(start_event([], [ONE, OTHER]), *(epoch(ONE, n) for n in range(1, 11)), ended(ONE))
        lines = [line.rsplit(",", 1)[0] for line in capsys.readouterr().err.splitlines()]
        assert lines == ["01: 0 of 2 runs, 0 reused", "01: 1 of 2 runs, 0 reused"]


class TestBar:
    @pytest.fixture
    def screen(self, monkeypatch, capsys):
        """As in JupyterLab; what was drawn last since the last look."""
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
        return lambda: capsys.readouterr().err.split("\r")[-1]

    def test_it_moves_with_epochs_and_ends_full(self, screen):
        with reporting(["abc"], [ONE]) as report:
            report(epoch(ONE, 5))
            assert "5/10" in screen()
            report(ended(ONE))
        last = screen()
        assert "10/10" in last and "2 of 2 runs, 1 reused" in last

    def test_resumed_epochs_do_not_make_it_fast(self, screen, clock):
        with reporting([], [ONE]) as report:
            clock(60)
            report(epoch(ONE, 8, resumed_at=7))
            last = screen()
        assert "8/10" in last and "01:00<02:00" in last  # a minute for one epoch: two for two

    def test_nothing_to_do_is_no_bar(self, screen):
        with reporting(["abc"], []):
            pass
        assert screen() == ""


def test_what_one_process_reports_another_counts(events, tmp_path):
    path, progress = tmp_path / "events", Progress("01", bar=False)
    with followed(path, progress):
        with reporting(["abc"], [ONE, OTHER]) as report:
            for event in (epoch(ONE, 1), ended(ONE)):
                report(event)
        with path.open("a") as file:
            file.write('{"event": "ru\n{"event": "run", "id": ')
            file.flush()
            time.sleep(0.7)  # the follower looks meanwhile, and sees half a line
            file.write(json.dumps(OTHER.id) + ', "status": "failed"}\n')
    assert [progress.count(status) for status in STATUSES] == [1, 1, 1]


def test_where_nothing_can_be_written_runs_go_on_and_it_is_said_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runs, "KERNEL", runs.Kernel(events=str(tmp_path / "nowhere" / "x")))
    with reporting([], [ONE]) as report:
        report(epoch(ONE, 1))
    assert capsys.readouterr().err.count("\n") == 1
