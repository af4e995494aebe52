"""Ways to have many runs done: one after the other here, or side by side in processes.

Each yields (run, record or RunFailed) as runs end. Processes have one thread each: two of them
finish sooner than one of two threads. So has a narrow network that is trained alone, which gains
little by more; alone, a network of full width has all cores. A CPU gives a run the same bits
whenever it has as many threads.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait

import torch

from ipslib.config import RunConfig
from ipslib.runs.naming import run_name
from ipslib.runs.one_run import Report, RunFailed, train_and_record
from ipslib.runs.records import RecordStore
from ipslib.runs.workers import Worker, WorkerDied

Ended = Iterator[tuple[RunConfig, dict | RunFailed]]


def here(configs: Sequence[RunConfig], store: RecordStore, device: str, report: Report) -> Ended:
    """One after the other, in this process."""
    for config in configs:
        with threads_of(config, device):
            ended = attempt(config, store, device, report)
        yield config, ended


def in_processes(
    configs: Sequence[RunConfig], store: RecordStore, device: str, jobs: int, report: Report
) -> Ended:
    """Side by side in `jobs` processes; one that is killed costs its run this attempt only.

    However this ends, by an error or Ctrl-C too, the processes end with it; what they were at
    goes on from its checkpoint next time.
    """
    waiting, workers = deque(configs), []
    try:
        for _ in range(min(jobs, len(waiting))):
            workers.append(Worker(_work, store, device))
            workers[-1].begin(waiting.popleft())
        while workers:
            ready = wait([worker.connection for worker in workers])
            for worker in [each for each in workers if each.connection in ready]:
                config = worker.task
                try:
                    said = worker.hear()
                except WorkerDied as death:
                    said = RunFailed("killed", f"{run_name(config)}: {death}.")
                if isinstance(said, dict) and "event" in said:
                    report(said)
                    continue
                if worker.dead:
                    workers.remove(worker)
                    if waiting:
                        workers.append(worker := Worker(_work, store, device))
                if waiting:
                    worker.begin(waiting.popleft())
                elif not worker.dead:
                    workers.remove(worker)
                    worker.end()
                yield config, said
    finally:
        for worker in workers:
            worker.end()


def attempt(config: RunConfig, store: RecordStore, device: str, report: Report) -> dict | RunFailed:
    """Train one run; what goes wrong comes back as a RunFailed."""
    try:
        return train_and_record(config, store, device=device, report=report)
    except RunFailed as failure:
        # A new one: the traceback of this would keep the network in memory for the next run.
        return RunFailed(failure.reason, str(failure))
    except Exception as error:
        return RunFailed("error", f"{run_name(config)}: {type(error).__name__}: {error}")


@contextmanager
def threads_of(config: RunConfig, device: str) -> Iterator[None]:
    """The torch threads that a run trained alone has on the CPU, for a while."""
    before = torch.get_num_threads()
    if device == "cpu" and config.model.width < 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _work(store: RecordStore, device: str, report: Report, config: RunConfig) -> dict | RunFailed:
    if device == "cpu":
        torch.set_num_threads(1)
    return attempt(config, store, device, report)
