"""Where work is done: in this process, in processes of this machine, or on a Dask cluster.

An executor is a function of the work, of `next_task`, which gives a task or None, and of `report`,
which takes the events of the work on its way. It yields every task with its result as it ends. A
process that dies costs its own task only, whose result is then a WorkerDied. `next_task` is asked
whenever a task could be begun; nothing is going on any more when it ends, however that comes, by
an error or Ctrl-C too.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from threading import Lock, Thread
from typing import Any
from uuid import uuid4

import torch

from ipslib.errors import IpslibError
from ipslib.runs import Report

Work = Callable[[Any, Report], Any]  # a task's; it, tasks and results pass between processes
NextTask = Callable[[], Any]
Results = Iterator[tuple[Any, Any]]
Executor = Callable[[Work, NextTask, Report], Results]

SLOT = "GPU"  # the resource of a Dask worker that takes one task at a time
_PATIENCE_S = 20  # for a scheduler to answer, and for a process to end by itself
_LOOK_S = 2  # how often new workers of a cluster are looked for
_one_at_a_time = Lock()  # threads of a worker share torch's random state: runs would mix theirs


class WorkerDied(Exception):
    """A process that ended before its task did; its `exitcode`, if known, is negative for a
    signal."""

    def __init__(self, message: str, exitcode: int | None = None):
        super().__init__(message)
        self.exitcode = exitcode


def here(work: Work, next_task: NextTask, report: Report) -> Results:
    """One task after the other, in this process."""
    while (task := next_task()) is not None:
        yield task, work(task, report)


def processes(jobs: int) -> Executor:
    """Side by side on this machine; on a CPU each process has one thread. They are forked from a
    server that has loaded the program and done nothing else, so that each begins at once and the
    same. Each has a pipe of its own: one that is killed tears no other's messages."""

    def results(work: Work, next_task: NextTask, report: Report) -> Results:
        busy, idle = {}, []
        try:
            while True:
                while len(busy) < jobs and (task := next_task()) is not None:
                    worker = idle.pop() if idle else _Worker(work)
                    busy[worker] = task
                    worker.submit(task)
                if not busy:
                    return
                ready = wait([worker.connection for worker in busy])
                for worker in [each for each in busy if each.connection in ready]:
                    try:
                        has_ended, content = worker.connection.recv()
                    except (EOFError, OSError):
                        yield busy.pop(worker), worker.death()
                        continue
                    if has_ended:
                        idle.append(worker)
                        yield busy.pop(worker), content
                    else:
                        report(content)
        finally:
            for worker in (*busy, *idle):  # all, then waited for: to leave a GPU takes seconds
                worker.process.terminate()
            for worker in (*busy, *idle):
                worker.end()

    return results


def do_alone(work: Work, task: Any) -> Any:
    """Do one task in a fresh process; the result may be a WorkerDied."""
    [(_, result)] = processes(1)(work, partial(next, iter([task]), None), lambda event: None)
    return result


class _Worker:
    """A process of its own, as seen from its parent."""

    def __init__(self, work: Work):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ipslib.runs.one_run"])
        self.connection, theirs = context.Pipe()
        arguments = (theirs, work, dict(os.environ))
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def submit(self, task: Any) -> None:
        with suppress(OSError):  # where it died meanwhile, its pipe has ended
            self.connection.send(task)

    def end(self) -> None:
        """Let it end by itself, as one does that was terminated or died, or else kill it."""
        self.connection.close()
        self.process.join(_PATIENCE_S)
        self.process.kill()
        self.process.join()

    def death(self) -> WorkerDied:
        """How it ended, once its pipe has."""
        self.process.join(_PATIENCE_S)  # it may be on its way out, with a status of its own
        self.end()
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
        why = "; a system short of memory does this" if code == -signal.SIGKILL else ""
        return WorkerDied(f"its process {how}{why}", code)


def _serve(connection: Connection, work: Work, environment: dict[str, str]) -> None:
    os.environ.clear()  # which was that of the server's start
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    Thread(target=_end_with_parent, daemon=True).start()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    # The parent is gone; or it ends this, and the work lets itself be interrupted.
    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            result = work(connection.recv(), lambda event: connection.send((False, event)))
            connection.send((True, result))


def _end_with_parent() -> None:
    """A process whose parent was killed would work on for nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)


def dask_cluster(address: str) -> Executor:
    """The workers of the Dask scheduler at `address`, as in tcp://host:8786, which share this
    project and its outputs folder.

    A worker that was started with `--resources GPU=1` takes one task at a time. As many tasks are
    under way as there are slots, so that a worker that dies takes no waiting task along and one
    that comes late finds work; the first worker may come hours later. IpslibError where
    dask.distributed is not installed and, on use, where no scheduler answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise IpslibError(
            "--scheduler needs dask.distributed: pip install 'ipslib[cluster]'."
        ) from error

    def results(work: Work, next_task: NextTask, report: Report) -> Results:
        for name in ("distributed", "distributed.client"):  # at length what we say in one sentence
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            client = distributed.Client(address, timeout=_PATIENCE_S)
        except (OSError, ValueError) as error:
            raise IpslibError(
                f"no Dask scheduler answers at {address} within {_PATIENCE_S} s; start one with "
                "`dask scheduler` and workers with `dask worker`."
            ) from error
        futures, topic = {}, f"ipslib-{uuid4()}"
        client.subscribe_topic(topic, lambda event: report(event[1]))  # (time, what was logged)
        try:
            while True:
                workers = client.scheduler_info(n_workers=-1)["workers"].values()
                n_slots = sum(SLOT in worker["resources"] for worker in workers)
                needed = {SLOT: 1} if n_slots else None
                while len(futures) < (n_slots or len(workers) or 1):
                    if (task := next_task()) is None:
                        break
                    call = (_on_worker, work, task, topic)
                    futures[client.submit(*call, pure=False, resources=needed)] = task
                if not futures:
                    return
                with suppress(TimeoutError):
                    distributed.wait(list(futures), _LOOK_S, return_when="FIRST_COMPLETED")
                for future in [each for each in futures if each.done()]:
                    yield futures.pop(future), _result(future)
        except (OSError, CancelledError) as error:
            raise IpslibError(
                "the Dask scheduler is gone; finished runs are kept, the same command goes on."
            ) from error
        finally:
            with suppress(OSError, CancelledError):
                client.cancel(list(futures))
            client.close()

    return results


def _result(future) -> Any:
    from distributed import KilledWorker

    try:
        return future.result()
    except CancelledError:
        raise
    except KilledWorker:
        return WorkerDied("every worker that took it died, perhaps out of memory")
    except Exception as error:  # such as a worker without ipslib
        return WorkerDied(f"its worker failed ({type(error).__name__}: {error})")


def _on_worker(work: Work, task: Any, topic: str) -> Any:
    """On a worker of the cluster."""
    from distributed import get_worker

    worker = get_worker()
    with _one_at_a_time:
        return work(task, lambda event: worker.log_event(topic, event))
