"""Runs: from a configuration to its record, alone, side by side or on a cluster. Here is what they
report meanwhile, and to whom: their events, counted, and shown as a bar or in lines.

Events are dictionaries: `start` (`epochs` {id: to be trained} and `reused` ids), `epoch` (`id`,
`run`, `epoch`, `epochs` and at which epoch it was `resumed_at`), `wait` (for another process),
`run` (`id` and `status`: made or failed) and `end`. In the kernel of a notebook that a runner
executes they are appended to the file that the runner follows.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import attrs
from tqdm import tqdm

from ipslib.config import RunConfig

Report = Callable[[dict], None]
_FOLLOWED_EVERY_S = 0.3


@attrs.frozen
class Kernel:
    """What the runner of a notebook tells the kernel that executes it; elsewhere nothing."""

    events: str = ""  # the file that takes the events of runs
    apart: str = ""  # the folder of a sweep in which this execution's results lie
    jobs: int = 0  # runs side by side


KERNEL = Kernel()


@contextmanager
def reporting(reused: Sequence[str], waiting: Sequence[RunConfig]) -> Iterator[Report]:
    """What takes the events of runs, beginning with the start of those that are `reused` (ids) or
    `waiting` to be made. Progress that cannot be shown (a full disk, a pipe that was closed) stops
    no run."""
    in_terminal = sys.stderr.isatty() or "ipykernel" in sys.modules
    show = _append if KERNEL.events else Progress(bar=in_terminal)

    def report(event: dict) -> None:
        nonlocal show
        try:
            show(event)
        except OSError as error:
            show = dict  # which takes any event and does nothing
            with suppress(OSError):
                print(f"Progress is no longer shown ({error}).", file=sys.stderr)

    report(start_event(reused, waiting))
    try:
        yield report
    finally:
        report({"event": "end"})


def start_event(reused: Sequence[str], waiting: Sequence[RunConfig]) -> dict:
    epochs = {config.id: config.training.epochs for config in waiting}
    return {"event": "start", "reused": list(reused), "epochs": epochs}


def _append(event: dict) -> None:
    with Path(KERNEL.events).open("a") as file:
        file.write(json.dumps(event) + "\n")


class Progress:
    """Counts runs and epochs, and shows them: as a bar, or else a line an epoch; of the runs of a
    notebook that has a name, a line a run.

    A run counts once, however many cells of a notebook name it, and whatever was tried before.
    """

    def __init__(self, name: str = "", *, bar: bool):
        self._name, self._start = f"{name}: " * bool(name), time.monotonic()
        self._statuses: dict[str, str] = {}  # of each run: "" to begin with, made, reused, failed
        self._epochs: dict[str, int] = {}  # of each run that is or was to be made
        self._done: dict[str, int] = {}  # epochs of each that need no more work
        self._worked: dict[str, int] = {}  # those of them that were trained in this session
        self._with_bar, self._bar = bar, None

    def __call__(self, event: dict) -> None:
        run, kind = event.get("id"), event["event"]
        if kind == "start":
            self._epochs |= event["epochs"]
            self._statuses = dict.fromkeys(event["epochs"], "") | self._statuses
            for each in event["reused"]:  # made by one cell and met by a later one: made
                self._statuses[each] = self._statuses.get(each) or "reused"
        elif kind == "epoch":
            self._done[run] = event["epoch"]
            self._worked[run] = event["epoch"] - event["resumed_at"]
        elif kind == "run":
            self._statuses[run], self._done[run] = event["status"], self._epochs[run]
        elif kind == "wait":
            self._say(f"{event['run']} is being made by another process; waiting.")
        if self._with_bar and self._epochs:
            self._show_bar()
            if kind == "end":
                self._bar = self._bar.close()
        elif kind == "epoch" and not self._name:
            epoch = f"epoch {event['epoch']} of {event['epochs']}"
            self._say(f"{event['run']}: {epoch}, {self._left()}")
        elif kind in ("start", "run") and self._name:
            self._say(f"{self._runs()}, {(time.monotonic() - self._start) / 60:.1f} min")

    def count(self, status: str) -> int:
        """How many runs were `made`, `reused` or `failed`."""
        return list(self._statuses.values()).count(status)

    def _show_bar(self) -> None:
        self._bar = self._bar or tqdm(desc=self._name, unit="epoch", leave=not self._name)
        self._bar.total, self._bar.n = sum(self._epochs.values()), sum(self._done.values())
        # Its time left is of what was worked.
        self._bar.initial = self._bar.n - sum(self._worked.values())
        self._bar.set_postfix_str(self._runs())

    def _left(self) -> str:
        missing = sum(self._epochs.values()) - sum(self._done.values())
        seconds = (time.monotonic() - self._start) * missing / max(1, sum(self._worked.values()))
        return f"{seconds / 60:.1f} min left"

    def _runs(self) -> str:
        failed = f", {self.count('failed')} failed" * (self.count("failed") > 0)
        finished = self.count("made") + self.count("reused")
        return f"{finished} of {len(self._statuses)} runs, {self.count('reused')} reused{failed}"

    def _say(self, line: str) -> None:
        tqdm.write(self._name + line, file=sys.stderr)


@contextmanager
def followed(file: Path, report: Report) -> Iterator[None]:
    """Report the events that another process appends to a file, and in the end its end."""
    file.touch()
    ended = Event()

    def follow() -> None:
        rest, is_last = b"", False
        with file.open("rb") as events:
            while not is_last:
                is_last = ended.wait(_FOLLOWED_EVERY_S)
                *lines, rest = (rest + events.read()).split(b"\n")
                for line in [*lines, b'{"event": "end"}'] if is_last else lines:
                    # A killed process may cut it short; or nobody reads any more.
                    with suppress(ValueError, KeyError, OSError):
                        report(json.loads(line))

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
