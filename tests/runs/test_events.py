import json
import sys
import time

import pytest

from ipslib.datasets.registry import run_config
from ipslib.runs.events import PROGRESS_VARIABLE, reporter

ONE = run_config({"epochs": 10, "warmup_epochs": 1})
OTHER = ONE.replace(seed=1)
END = {"event": "end"}


def epoch(config, number, resumed_at=0):
    event = {"event": "epoch", "run": f"run {config.training.seed}", "id": config.id}
    return event | {"epoch": number, "epochs": 10, "resumed_at": resumed_at}


def ended(config, status="made"):
    return {"event": "run", "id": config.id, "name": "run", "status": status}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


class TestFile:
    @pytest.fixture
    def read(self, monkeypatch, tmp_path):
        path = tmp_path / "events"
        monkeypatch.setenv(PROGRESS_VARIABLE, str(path))
        return lambda: [json.loads(line) for line in path.read_text().splitlines()]

    def test_every_event_is_a_line(self, read):
        report = reporter(["abc"], [ONE, OTHER])
        for event in (epoch(ONE, 1), epoch(OTHER, 1), epoch(ONE, 2), ended(ONE, "failed"), END):
            report(event)
        start, *told, end = read()
        assert (start["runs"], start["reused"], start["reused_ids"]) == (3, 1, ["abc"])
        assert start["ids"] == ["abc", ONE.id, OTHER.id]
        assert [event["done_epochs"] for event in told] == [1, 2, 3, 11]  # nothing more of ONE
        assert {event["total_epochs"] for event in told} == {20}
        assert end == END

    def test_epochs_before_a_checkpoint_are_done_but_not_worked(self, read):
        report = reporter([], [ONE, OTHER])
        report(epoch(ONE, 8, resumed_at=7))
        report(epoch(OTHER, 1))
        assert [(e["done_epochs"], e["worked_epochs"]) for e in read()[1:]] == [(8, 1), (9, 2)]

    def test_a_run_that_another_process_made_is_done(self, read):
        report = reporter([], [ONE])
        report(ended(ONE))
        assert read()[-1]["done_epochs"] == 10

    def test_a_run_tried_again_is_not_counted_twice(self, read):
        report = reporter([], [ONE])
        for event in (epoch(ONE, 1), epoch(ONE, 2), epoch(ONE, 2, resumed_at=1)):
            report(event)
        assert [event["done_epochs"] for event in read()[1:]] == [1, 2, 2]

    def test_where_nothing_can_be_written_runs_go_on_and_it_is_said_once(
        self, monkeypatch, tmp_path, capsys
    ):
        monkeypatch.setenv(PROGRESS_VARIABLE, str(tmp_path / "nowhere" / "events"))
        report = reporter([], [ONE])
        report(epoch(ONE, 1))
        assert capsys.readouterr().err.count("Progress is no longer told") == 1


class TestLines:
    @pytest.fixture(autouse=True)
    def no_file_and_no_notebook(self, monkeypatch):
        monkeypatch.delenv(PROGRESS_VARIABLE, raising=False)
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    def told(self, capsys):
        return capsys.readouterr().err.splitlines()

    def test_time_left_is_that_of_the_epochs_left(self, clock, capsys):
        report = reporter([], [ONE, OTHER])
        clock(60)
        report(epoch(ONE, 1))
        clock(60)
        report(epoch(ONE, 2))
        assert self.told(capsys) == [
            "run 0: epoch 1 of 10, 19.0 min left",
            "run 0: epoch 2 of 10, 18.0 min left",
        ]

    def test_resumed_epochs_cost_no_time(self, clock, capsys):
        report = reporter([], [ONE])
        clock(60)
        report(epoch(ONE, 8, resumed_at=7))
        assert self.told(capsys) == ["run 0: epoch 8 of 10, 2.0 min left"]

    def test_the_last_epoch_leaves_none(self, clock, capsys):
        report = reporter([], [ONE, OTHER])
        report(ended(OTHER, "failed"))
        clock(60)
        report(epoch(ONE, 10, resumed_at=9))
        report(END)
        assert self.told(capsys) == ["run 0: epoch 10 of 10, 0.0 min left"]


class TestBar:
    @pytest.fixture
    def screen(self, monkeypatch, capsys):
        """As in JupyterLab; what was drawn since the last look."""
        monkeypatch.delenv(PROGRESS_VARIABLE, raising=False)
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
        return lambda: capsys.readouterr().err

    def test_it_moves_with_epochs_and_ends_full(self, screen):
        report = reporter(["abc"], [ONE])
        report(epoch(ONE, 5))
        assert "5/10" in screen()
        report(ended(ONE))
        report(END)
        last = screen().split("\r")[-1]
        assert "2 runs, 1 reused: 100%" in last and "10/10" in last

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
