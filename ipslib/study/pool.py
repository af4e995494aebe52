"""Ways to have many runs done: one after the other here, or side by side in processes.

Each yields (run, record or RunFailed) as runs end; None stands for a run that was not begun.
Processes have one thread each: on narrow networks two of them finish sooner than one of two
threads, and one thread keeps a run's bits the same whatever else is running.
"""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread

import torch

from ipslib.config import RunConfig
from ipslib.study.one_run import Report, RunFailed, train_and_record
from ipslib.study.records import RecordStore

Ended = Iterator[tuple[RunConfig, dict | RunFailed | None]]


def here(configs: Sequence[RunConfig], store: RecordStore, device: str, report: Report) -> Ended:
    """One after the other, in this process."""
    for config in configs:
        with one_thread(device):
            ended = attempt(config, store, device, report)
        yield config, ended


def in_processes(
    configs: Sequence[RunConfig], store: RecordStore, device: str, jobs: int, report: Report
) -> Ended:
    """Side by side in `jobs` processes; a killed process costs its run this attempt only."""
    begun: set[str] = set()

    def hear(event: dict) -> None:
        if event["event"] == "begin":
            begun.add(event["id"])
        else:
            report(event)

    # Spawned, not forked: threads of this process (a notebook's kernel has several) stay out.
    context = multiprocessing.get_context("spawn")
    with (
        _listening(context, hear) as events,
        ProcessPoolExecutor(jobs, context, _start_worker, (events, device)) as pool,
    ):
        futures = {pool.submit(_work, config, store, device): config for config in configs}
        try:
            for future in as_completed(futures):
                config = futures[future]
                try:
                    yield config, future.result()
                except BrokenProcessPool:
                    lost = RunFailed("killed", "the process was killed, by the system or a user.")
                    yield config, lost if config.id in begun else None
        except BaseException:  # Ctrl-C waits for nobody: what runs on is lost up to a checkpoint
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def attempt(config: RunConfig, store: RecordStore, device: str, report: Report) -> dict | RunFailed:
    """Train one run; what goes wrong comes back as a RunFailed."""
    try:
        return train_and_record(config, store, device=device, report=report)
    except RunFailed as failure:
        return failure
    except Exception as error:
        return RunFailed("error", f"{type(error).__name__}: {error}")


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """One torch thread for a while, on the CPU."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _listening(context: multiprocessing.context.SpawnContext, hear: Report) -> Iterator:
    """A queue whose events are heard in this process."""
    with context.Manager() as manager:
        events = manager.Queue()
        listener = Thread(target=_forward, args=(events, hear), daemon=True)
        listener.start()
        try:
            yield events
        finally:
            events.put(None)
            listener.join()


def _forward(events: SimpleQueue, hear: Report) -> None:
    while (event := events.get()) is not None:
        hear(event)


def _start_worker(events: SimpleQueue, device: str) -> None:
    global _events
    _events = events
    Thread(target=_die_with_parent, daemon=True).start()
    if device == "cpu":
        torch.set_num_threads(1)


def _die_with_parent() -> None:
    """A worker whose parent was killed would train on for nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(config: RunConfig, store: RecordStore, device: str) -> dict | RunFailed:
    _events.put({"event": "begin", "id": config.id})
    return attempt(config, store, device, _events.put)
