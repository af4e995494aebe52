"""Notebooks executed side by side, each in a process of its own.

Each has a share of the cores: while one imports, draws figures or ends with a single run, the
others go on.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ipslib.commands.notebooks import Execution, execute, read_source, title_of
from ipslib.runs.files import Layout
from ipslib.runs.workers import Tell, Worker, WorkerDied

Task = tuple[Path, dict[str, Any]]  # a notebook and its parameters


def executed(
    tasks: Sequence[Task], layout: Layout, *, lanes: int, begun: Callable[[Path], None]
) -> Iterator[tuple[Path, Execution]]:
    """Execute notebooks, at most `lanes` at a time, and yield each as it ends.

    One whose process is killed has failed; the others go on. However this ends, by Ctrl-C too,
    the processes end with it.

    Args:
        tasks: in the order in which they are begun.
        layout: where results go.
        lanes: with 1 they are executed by this process.
        begun: called with each notebook as it is begun.
    """
    if min(lanes, len(tasks)) <= 1:
        for path, values in tasks:
            begun(path)
            yield path, execute(path, values, layout)
        return
    waiting, workers = deque(tasks), []
    share = max(1, (os.cpu_count() or 1) // lanes)
    try:
        while waiting or workers:
            while waiting and len(workers) < lanes:
                workers.append(Worker(_execute, layout, share))
                _begin(workers[-1], waiting.popleft(), begun)
            ready = wait([worker.connection for worker in workers])
            for worker in [each for each in workers if each.connection in ready]:
                path = worker.task[0]
                try:
                    ended = worker.hear()
                except WorkerDied as death:
                    ended = Execution(
                        title_of(read_source(path)), 0, 0, 0, minutes=0.0, error=str(death)
                    )
                if worker.dead or not waiting:
                    worker.stop()
                    workers.remove(worker)
                else:
                    _begin(worker, waiting.popleft(), begun)
                yield path, ended
    finally:
        for worker in workers:
            worker.stop()


def _begin(worker: Worker, task: Task, begun: Callable[[Path], None]) -> None:
    begun(task[0])
    worker.begin(task)


def _execute(layout: Layout, share: int, _: Tell, task: Task) -> Execution:
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # its kernel ends, too
    try:
        return execute(*task, layout, share=share)
    finally:
        signal.signal(signal.SIGINT, ignored)
