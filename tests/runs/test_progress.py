import json

from ipslib.runs.progress import Counts, Progress


def write(progress: Progress, *events: dict) -> None:
    with open(progress.file, "a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def test_runs_without_ids_count_by_name(tmp_path):
    with Progress("01", tmp_path / "events") as progress:
        write(
            progress,
            {"event": "start", "runs": 3, "reused": 1},
            {"event": "run", "name": "a", "status": "reused"},
            {"event": "run", "name": "b", "status": "made"},
            {"event": "run", "name": "c", "status": "failed"},
            {"event": "run", "name": "b", "status": "reused"},  # a later cell meets it again
        )
    assert progress.counts() == Counts(made=1, reused=1, failed=1)


def test_runs_reused_at_the_start_count_when_nothing_names_them(tmp_path):
    with Progress("01", tmp_path / "events") as progress:
        write(progress, {"event": "start", "runs": 3, "reused": 3})
    assert progress.counts() == Counts(made=0, reused=3, failed=0)


def test_a_line_in_two_halves_is_one_event_and_a_broken_line_is_none(tmp_path):
    with Progress("01", tmp_path / "events") as progress:
        for half in ('{"event": "run", "na', 'me": "a", "status": "made"}\n{"event": "ru\n'):
            with open(progress.file, "a") as file:
                file.write(half)
            progress._read()
    assert progress.counts() == Counts(made=1, reused=0, failed=0)


def test_without_a_terminal_each_finished_run_prints_one_line(tmp_path, capsys):
    with Progress("01", tmp_path / "events") as progress:
        write(
            progress,
            {"event": "start", "runs": 2, "reused": 0},
            *({"event": "epoch", "done_epochs": n, "total_epochs": 50} for n in range(50)),
            {"event": "run", "name": "a", "status": "made"},
        )
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        "01: 0 of 2 runs, 0 reused",
        "01: 1 of 2 runs, 0 reused",
    ]


def test_a_run_that_is_waited_for_is_told_and_counted_as_it_ends(tmp_path, capsys):
    with Progress("01", tmp_path / "events") as progress:
        write(
            progress,
            {"event": "start", "runs": 1, "reused": 0, "ids": ["1"], "reused_ids": []},
            {"event": "wait", "id": "1", "run": "results_a"},
            {"event": "run", "id": "1", "name": "results_a", "status": "made"},
        )
    assert "01: results_a is being made by another process; waiting." in capsys.readouterr().err
    assert progress.counts() == Counts(made=1, reused=0, failed=0)


def test_runs_count_by_id_however_many_cells_name_them_and_whatever_their_names(tmp_path):
    first = {"event": "start", "runs": 2, "reused": 1, "ids": ["1", "2"], "reused_ids": ["1"]}
    second = {"event": "start", "runs": 3, "reused": 2, "ids": ["1", "2", "3"],
              "reused_ids": ["1", "2"]}  # fmt: skip
    with Progress("01", tmp_path / "events") as progress:
        write(
            progress,
            first,
            {"event": "run", "id": "2", "name": "same", "status": "made"},
            second,
            {"event": "run", "id": "3", "name": "same", "status": "failed"},
        )
    assert progress.counts() == Counts(made=1, reused=1, failed=1)
    assert progress._text() == "2 of 3 runs, 1 reused, 1 failed"
