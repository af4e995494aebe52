"""Processes that are given one task after the other, and end with the one that made them.

Each talks through a pipe of its own, so that one that is killed tears no other's talk, and what it
was at is known. They are spawned, not forked: threads of the parent stay out.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

_PATIENCE_S = 10
Tell = Callable[[Any], None]


class WorkerDied(Exception):
    """A process that ended before its task did; the message says how."""


class Worker:
    """A process of its own, as seen from its parent.

    Args:
        work: called there with `given` and a task, for each task that `begin` sends; everything
            must be of a kind that processes can pass on. What it returns is the answer.
        given: arguments that all tasks share. `tell`, which sends a message, comes after them.
    """

    def __init__(self, work: Callable[..., Any], *given: Any):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, given), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.task, self.dead = None, False

    def begin(self, task: Any) -> None:
        """Send a task; a dead process is noticed by `hear`."""
        self.task = task
        with suppress(OSError):
            self.connection.send(task)

    def hear(self) -> Any:
        """The next message, or the answer.

        Raises:
            WorkerDied: when there will be none.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.dead = True
            self.process.join(_PATIENCE_S)  # it may be on its way out, with a status of its own
            self.end()
            code = self.process.exitcode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
            why = "; a system short of memory does this" if code == -signal.SIGKILL else ""
            raise WorkerDied(f"its process {how}{why}") from None

    def end(self) -> None:
        """End it at once, whatever it is at."""
        self.process.kill()
        self.connection.close()
        self.process.join()

    def stop(self) -> None:
        """Let it end by itself, its task interrupted as by Ctrl-C; kill it when it does not."""
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)
        self.connection.close()
        self.process.join(_PATIENCE_S)
        self.end()


def _serve(connection: Connection, work: Callable[..., Any], given: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    Thread(target=_die_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            connection.send(work(*given, connection.send, connection.recv()))


def _die_with_parent() -> None:
    """A process whose parent was killed would work on for nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)
