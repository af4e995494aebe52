"""Where the progress of runs is told: a file that the notebooks' runner follows, a bar in a
terminal or JupyterLab, a line an epoch elsewhere."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from ipslib.config import RunConfig

PROGRESS_VARIABLE = "IPSLIB_PROGRESS"
Report = Callable[[dict], None]


def reporter(n_runs: int, n_reused: int, waiting: Sequence[RunConfig]) -> Report:
    """What takes the events of these runs: begun, an epoch done, a run ended, all ended."""
    total = sum(config.training.epochs for config in waiting)
    sink = _sink(n_runs, n_reused, total)
    sink({"event": "start", "runs": n_runs, "reused": n_reused})
    done: dict[str, int] = {}

    def report(event: dict) -> None:
        if event["event"] == "epoch":
            done[event["id"]] = event["epoch"]
            event = event | {"done_epochs": sum(done.values()), "total_epochs": total}
        sink(event)

    return report


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
        if event["event"] == "epoch":
            bar.n = event["done_epochs"]
            bar.refresh()
        elif event["event"] == "end":
            bar.close()

    return sink


def _lines() -> Report:
    start = time.monotonic()

    def sink(event: dict) -> None:
        if event["event"] == "epoch":
            spent = time.monotonic() - start
            left = spent * (event["total_epochs"] / event["done_epochs"] - 1) / 60
            epoch = f"epoch {event['epoch']} of {event['epochs']}"
            print(f"{event['run']}: {epoch}, {left:.1f} min left", file=sys.stderr, flush=True)

    return sink
