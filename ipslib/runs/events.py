"""Where the progress of runs is told: a file that the notebooks' runner follows, a bar in a
terminal or JupyterLab, a line an epoch elsewhere."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from ipslib.config import RunConfig

PROGRESS_VARIABLE = "IPSLIB_PROGRESS"
Report = Callable[[dict], None]


def reporter(reused: Sequence[str], waiting: Sequence[RunConfig]) -> Report:
    """What takes the events of runs: one waited for, an epoch done, a run ended, all ended.

    An epoch's event says which `epoch` of `epochs` it was and, where the run goes on from a
    checkpoint, at which epoch it was `resumed_at`. Progress that cannot be told (a full disk, a
    pipe that was closed) stops no run.

    Args:
        reused: ids of the runs that have a record already.
        waiting: the runs to be made.
    """
    epochs = {config.id: config.training.epochs for config in waiting}
    sink = _telling(_sink(len(reused) + len(waiting), len(reused), sum(epochs.values())))
    start = {"event": "start", "runs": len(reused) + len(waiting), "reused": len(reused)}
    sink(start | {"ids": [*reused, *epochs], "reused_ids": list(reused)})
    done: dict[str, int] = {}  # epochs of each run that need no more work
    worked: dict[str, int] = {}  # those of them that were trained in this session

    def report(event: dict) -> None:
        if event["event"] == "epoch":
            done[event["id"]] = event["epoch"]
            worked[event["id"]] = event["epoch"] - event.get("resumed_at", 0)
        elif event["event"] == "run":
            done[event["id"]] = epochs[event["id"]]  # also of a failed run: nothing more comes
        if event["event"] != "end":
            sums = {"done_epochs": sum(done.values()), "total_epochs": sum(epochs.values())}
            event = event | sums | {"worked_epochs": sum(worked.values())}
        sink(event)

    return report


def waiting_line(event: dict) -> str:
    """What is said of a run that another process holds."""
    return f"{event['run']} is being made by another process; waiting."


def _telling(sink: Report) -> Report:
    """A sink that falls silent, and says so once, when it cannot write."""
    silent = False

    def tell(event: dict) -> None:
        nonlocal silent
        if silent:
            return
        try:
            sink(event)
        except OSError as error:
            silent = True
            with suppress(OSError):
                print(f"Progress is no longer told ({error}).", file=sys.stderr)

    return tell


def _sink(n_runs: int, n_reused: int, total: int) -> Report:
    path = os.environ.get(PROGRESS_VARIABLE)
    if path:
        return _append_to(Path(path))
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return _bar(f"{n_runs} runs, {n_reused} reused", total)
    return _lines()


def _append_to(path: Path) -> Report:
    def sink(event: dict) -> None:
        with open(path, "a") as file:
            file.write(json.dumps(event) + "\n")

    return sink


def _bar(text: str, total: int) -> Report:
    bar = tqdm(desc=text, total=total, unit="epoch", disable=not total)

    def sink(event: dict) -> None:
        if "done_epochs" in event:
            bar.n = event["done_epochs"]
            bar.initial = bar.n - event["worked_epochs"]  # its time left is of what was worked
            bar.refresh()
        if event["event"] == "wait":
            tqdm.write(waiting_line(event), file=sys.stderr)
        elif event["event"] == "end":
            bar.close()

    return sink


def _lines() -> Report:
    start = time.monotonic()

    def sink(event: dict) -> None:
        if event["event"] == "epoch":
            missing = event["total_epochs"] - event["done_epochs"]
            seconds = (time.monotonic() - start) * missing / max(1, event["worked_epochs"])
            epoch = f"epoch {event['epoch']} of {event['epochs']}"
            left = f"{seconds / 60:.1f} min left"
            print(f"{event['run']}: {epoch}, {left}", file=sys.stderr, flush=True)
        elif event["event"] == "wait":
            print(waiting_line(event), file=sys.stderr, flush=True)

    return sink
