"""Events of runs: counted, shown as a bar or in lines, or appended for who follows them."""

import json
import sys
import time

import pytest

from ipslib import runs
from ipslib.datasets.registry import run_config
from ipslib.runs.progress import Progress, followed, reporter, start_event

ONE = run_config({"epochs": 10, "warmup_epochs": 1})
OTHER = ONE.replace(seed=1)
END = {"event": "end"}


def epoch(config, number, resumed_at=0):
    event = {"event": "epoch", "run": f"run {config.training.seed}", "id": config.id}
    return event | {"epoch": number, "epochs": 10, "resumed_at": resumed_at}


def ended(config, status="made"):
    return {"event": "run", "id": config.id, "status": status}


def waited_for(config):
    return {"event": "wait", "id": config.id, "run": "results_a"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def counted(*events) -> tuple[int, int, int]:
    """Runs made, reused and failed, of a notebook's runs."""
    progress = Progress("01", bar=False)
    for event in events:
        progress(event)
    return tuple(progress.count(status) for status in ("made", "reused", "failed"))


def test_a_run_counts_once_however_many_cells_name_it():
    first, second = start_event(["a"], [ONE]), start_event(["a", ONE.id], [OTHER])
    assert counted(first) == (0, 1, 0)
    assert counted(first, ended(ONE), second, ended(OTHER, "failed")) == (1, 1, 1)
    assert counted(first, waited_for(ONE), ended(ONE)) == (1, 1, 0)


class TestLines:
    @pytest.fixture(autouse=True)
    def no_notebook(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    def shown(self, capsys):
        return capsys.readouterr().err.splitlines()

    def test_time_left_is_that_of_the_epochs_left(self, clock, capsys):
        report = reporter([], [ONE, OTHER])
        for number in (1, 2):
            clock(60)
            report(epoch(ONE, number))
        first, second = self.shown(capsys)
        assert "epoch 1 of 10" in first and "19.0 min" in first
        assert "epoch 2 of 10" in second and "18.0 min" in second

    def test_epochs_before_a_checkpoint_cost_no_time_and_are_counted_once(self, clock, capsys):
        report = reporter([], [ONE])
        clock(60)
        report(epoch(ONE, 8, resumed_at=7))
        report(epoch(ONE, 8, resumed_at=7))
        assert ["2.0 min" in line for line in self.shown(capsys)] == [True, True]

    def test_of_a_failed_run_nothing_more_is_to_come(self, clock, capsys):
        report = reporter([], [ONE, OTHER])
        report(ended(OTHER, "failed"))
        clock(60)
        report(epoch(ONE, 10, resumed_at=9))
        report(END)
        assert ["0.0 min" in line for line in self.shown(capsys)] == [True]

    def test_a_run_that_begins_later_adds_its_epochs(self, clock, capsys):
        report = reporter()
        report(start_event([], [ONE]))
        clock(60)
        report(epoch(ONE, 1))
        report(start_event([], [OTHER]))
        report(epoch(ONE, 1))
        assert ["9.0 min" in self.shown(capsys)[0]] == [True]

    def test_of_a_notebook_a_line_is_a_run(self, capsys):
        counted(start_event([], [ONE, OTHER]), *(epoch(ONE, n) for n in range(1, 11)), ended(ONE))
        lines = [line.rsplit(",", 1)[0] for line in self.shown(capsys)]
        assert lines == ["01: 0 of 2 runs, 0 reused", "01: 1 of 2 runs, 0 reused"]


class TestBar:
    @pytest.fixture
    def screen(self, monkeypatch, capsys):
        """As in JupyterLab; what was drawn since the last look."""
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
        return lambda: capsys.readouterr().err

    def test_it_moves_with_epochs_and_ends_full(self, screen):
        report = reporter(["abc"], [ONE])
        report(epoch(ONE, 5))
        assert "5/10" in screen()
        report(ended(ONE))
        report(END)
        last = screen().split("\r")[-1]
        assert "10/10" in last and "2 of 2 runs, 1 reused" in last

    def test_resumed_epochs_do_not_make_it_fast(self, screen, clock):
        report = reporter([], [ONE])
        clock(60)
        report(epoch(ONE, 8, resumed_at=7))
        last = screen().split("\r")[-1]
        assert "8/10" in last and "01:00<02:00" in last  # a minute for one epoch: two for two
        report(END)

    def test_nothing_to_do_is_no_bar(self, screen):
        reporter(["abc"], [])(END)
        assert screen() == ""


class TestFile:
    def test_what_one_process_reports_another_counts(self, monkeypatch, tmp_path):
        path, progress = tmp_path / "events", Progress("01", bar=False)
        monkeypatch.setattr(runs, "KERNEL", runs.Kernel(events=str(path)))
        with followed(path, progress):
            report = reporter(["abc"], [ONE, OTHER])
            for event in (epoch(ONE, 1), ended(ONE), END):
                report(event)
            with path.open("a") as file:
                file.write('{"event": "ru\n{"event": "run", "id": ')
                file.flush()
                time.sleep(0.7)  # the follower looks meanwhile, and sees half a line
                file.write(json.dumps(OTHER.id) + ', "status": "failed"}\n')
        assert [progress.count(status) for status in ("made", "reused", "failed")] == [1, 1, 1]

    def test_where_nothing_can_be_written_runs_go_on_and_it_is_said_once(
        self, monkeypatch, tmp_path, capsys
    ):
        monkeypatch.setattr(runs, "KERNEL", runs.Kernel(events=str(tmp_path / "nowhere" / "x")))
        report = reporter([], [ONE])
        report(epoch(ONE, 1))
        assert capsys.readouterr().err.count("no longer shown") == 1
