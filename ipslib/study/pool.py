"""Ways to have many runs done: one after the other here, or side by side in processes.

Each yields (run, record or RunFailed) as runs end. Processes have one thread each: two of them
finish sooner than one of two threads. So has a narrow network that is trained alone, which gains
little by more; alone, a network of full width has all cores. A CPU gives a run the same bits
whenever it has as many threads. Every process talks to this one through a pipe of its own, so
that one that is killed tears no other's talk, and what it was at is known.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from threading import Thread

import torch

from ipslib.config import RunConfig
from ipslib.naming import run_name
from ipslib.study.one_run import Report, RunFailed, train_and_record
from ipslib.study.records import RecordStore

_PATIENCE_S = 10
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
            workers.append(_Worker(store, device))
            workers[-1].begin(waiting.popleft())
        while workers:
            ready = wait([worker.connection for worker in workers])
            for worker in [each for each in workers if each.connection in ready]:
                said = worker.hear()
                if isinstance(said, dict) and "event" in said:
                    report(said)
                    continue
                config = worker.config
                if worker.dead:
                    workers.remove(worker)
                    if waiting:
                        workers.append(worker := _Worker(store, device))
                if waiting:
                    worker.begin(waiting.popleft())
                elif not worker.dead:
                    workers.remove(worker)
                    worker.end()
                yield config, said
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that trains the runs it is given one by one, as seen from its parent."""

    def __init__(self, store: RecordStore, device: str):
        # Spawned, not forked: threads of this process (a notebook's kernel has several) stay out.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, store, device), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.config, self.dead = None, False

    def begin(self, config: RunConfig) -> None:
        self.config = config
        with suppress(OSError):  # a dead process is noticed by `hear`
            self.connection.send(config)

    def hear(self) -> dict | RunFailed:
        """An event, or how the run ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.dead = True
            self.process.join(_PATIENCE_S)  # it may be on its way out, with a status of its own
            self.end()
            code = self.process.exitcode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
            why = "; a system short of memory does this" if code == -signal.SIGKILL else ""
            return RunFailed("killed", f"{run_name(self.config)}: its process {how}{why}.")

    def end(self) -> None:
        """Nothing that a process is at is lost beyond its last checkpoint."""
        self.process.kill()
        self.connection.close()
        self.process.join()


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


def _work(connection: Connection, store: RecordStore, device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    Thread(target=_die_with_parent, daemon=True).start()
    if device == "cpu":
        torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            connection.send(attempt(connection.recv(), store, device, connection.send))


def _die_with_parent() -> None:
    """A worker whose parent was killed would train on for nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)
