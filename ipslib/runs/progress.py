"""Show how far a notebook's runs are, from the events that training appends to a file."""

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ipslib.runs.events import waiting_line


@dataclass(frozen=True)
class Counts:
    made: int
    reused: int
    failed: int


@dataclass
class Progress:
    """Follow the events that training appends to a file, and show them.

    Events are JSON lines: `start` (runs and reused; better ids and reused_ids), `epoch`
    (done_epochs, total_epochs) and `run` (id, or else name; status made, reused or failed). A run
    counts once, however many cells name it. In a terminal they move a bar, if there is to be
    one; else each finished run prints a line.
    """

    name: str
    file: Path
    bar: bool = True
    unnamed_runs: int = 0
    unnamed_reused: int = 0
    statuses: dict[str, str] = field(default_factory=dict)  # of each run by id; "" to begin with

    def __enter__(self) -> "Progress":
        self.file.touch()
        self._start, self._rest, self._place = time.monotonic(), b"", 0
        self._bar = tqdm(
            desc=self.name, unit="epoch", total=1, dynamic_ncols=True, leave=False,
            disable=None if self.bar else True,
            bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}{postfix}",
        )  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._read()
        self._bar.close()

    def counts(self) -> Counts:
        of = list(self.statuses.values()).count
        return Counts(of("made"), of("reused") or self.unnamed_reused, of("failed"))

    def _follow(self) -> None:
        while not self._ended.wait(0.3):
            self._read()
            self._bar.refresh()

    def _read(self) -> None:
        with open(self.file, "rb") as file:
            file.seek(self._place)
            new = file.read()
        self._place += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError):
                continue  # a line cut short by a worker that was killed

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "start":
                if "ids" in event:
                    for run in event["ids"]:
                        self.statuses.setdefault(run, "")
                    for run in event["reused_ids"]:
                        self._note(run, "reused")
                else:
                    self.unnamed_runs += event["runs"]
                    self.unnamed_reused += event["reused"]
                self._say()
            case "epoch":
                self._bar.total, self._bar.n = event["total_epochs"], event["done_epochs"]
            case "wait":
                tqdm.write(f"{self.name}: {waiting_line(event)}", file=sys.stderr)
            case "run":
                self._note(event.get("id") or event["name"], event["status"])
                if event["status"] != "reused":
                    self._say()
        self._bar.set_postfix_str(self._text(), refresh=False)

    def _note(self, run: str, status: str) -> None:
        # A run made by one cell and met again by a later one stays a run made.
        if self.statuses.get(run) != "made":
            self.statuses[run] = status

    def _text(self) -> str:
        counts = self.counts()
        finished = counts.made + counts.reused
        failed = f", {counts.failed} failed" if counts.failed else ""
        runs = self.unnamed_runs or len(self.statuses)
        return f"{finished} of {runs} runs, {counts.reused} reused{failed}"

    def _say(self) -> None:
        if self._bar.disable:
            minutes = (time.monotonic() - self._start) / 60
            line = f"{self.name}: {self._text()}, {minutes:.1f} min"
            print(line, file=sys.stderr, flush=True)
