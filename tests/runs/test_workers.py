"""Processes of the package's own: their answers, their deaths, and that none is left over."""

import multiprocessing
import os
import signal
import time

import pytest

from ipslib.runs.workers import Worker, WorkerDied


def echo(prefix, tell, task):
    tell(f"{prefix} hears {task}")
    return task * 2


def die(tell, task):
    os.kill(os.getpid(), task)


def leave(tell, task):
    os._exit(task)


def sleep_and_note(folder, tell, task):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:  # from before the word: the interrupt may come while it is being sent
        tell("begun")
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
    return "late"


def test_tasks_are_answered_one_after_the_other_with_messages_between():
    worker = Worker(echo, "it")
    for task in (1, 2):
        worker.begin(task)
        assert [worker.hear(), worker.hear()] == [f"it hears {task}", 2 * task]
    worker.end()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("work", "task", "said"),
    [
        (die, signal.SIGKILL, "was killed by signal 9; a system short of memory does this"),
        (die, signal.SIGTERM, "was killed by signal 15"),
        (leave, 3, "ended with exit status 3"),
    ],
)
def test_how_a_process_died_is_told(work, task, said):
    worker = Worker(work)
    worker.begin(task)
    with pytest.raises(WorkerDied, match=f"its process {said}$"):
        worker.hear()
    assert worker.dead and worker.task == task
    worker.begin("more")  # nobody is there: that is told by `hear`, too
    with pytest.raises(WorkerDied):
        worker.hear()


def test_a_stopped_task_is_interrupted_and_its_process_ends(tmp_path):
    worker = Worker(sleep_and_note, tmp_path)
    worker.begin(None)
    assert worker.hear() == "begun"
    start = time.monotonic()
    worker.stop()
    assert time.monotonic() - start < 9
    assert (tmp_path / "interrupted").exists()
    assert worker.process.exitcode == 0  # it ended by itself
    assert multiprocessing.active_children() == []
