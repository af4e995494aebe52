"""Runs of a study: each configuration is trained once, looked up ever after.

Runs go side by side in processes of one thread each: on narrow networks two such processes
finish sooner than one process of two threads, and one thread keeps a run's bits the same
whatever else is running.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import torch
from tqdm.auto import tqdm

from ipslib.config import RunConfig
from ipslib.naming import run_name
from ipslib.study.memory import peak_memory_mb, reset_peak_memory
from ipslib.study.records import RecordStore, make_record
from ipslib.training import train

PROGRESS_VARIABLE = "IPSLIB_PROGRESS"
Report = Callable[[dict], None]


def run_all(
    configs: Iterable[RunConfig], store: RecordStore, *, jobs: int | None = None
) -> list[dict]:
    """The records of the configurations, in their order; what has none yet is trained.

    Args:
        configs: runs; the same run named twice is trained once.
        store: where records are looked up and written.
        jobs: processes side by side; the number of cores if None, 1 on a GPU.
    """
    configs = list(configs)
    records = {config.id: store.find(config) for config in configs}
    missing = list({c.id: c for c in configs if records[c.id] is None}.values())
    report = _reporter(len(records), len(records) - len(missing))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = min(jobs or (1 if device == "cuda" else os.cpu_count() or 1), len(missing))
    for record in _train_missing(missing, store, device, jobs, report):
        records[record["id"]] = record
        report({"event": "run", "name": record["name"], "status": "made"})
    report({"event": "end"})
    return [records[config.id] for config in configs]


def train_and_record(
    config: RunConfig, store: RecordStore, *, device: str = "cpu", report: Report | None = None
) -> dict:
    """Train one run, write its weights and record, and return the record."""
    reset_peak_memory(device)
    start = time.perf_counter()
    epochs: list[float] = []

    def after_epoch(row: dict) -> None:
        epochs.append(row.pop("seconds"))
        if report:
            event = {"event": "epoch", "run": run_name(config), "epoch": row["epoch"]}
            report(event | {"epochs": config.training.epochs})

    trained = train(config, device=device, on_epoch=after_epoch)
    timing = {
        "total_seconds": round(time.perf_counter() - start, 3),
        "epoch_seconds": epochs,
        "peak_memory_mb": peak_memory_mb(device),
    }
    record = make_record(config, trained, timing, device)
    store.save(record, trained.network)
    return record


def _train_missing(
    missing: list[RunConfig], store: RecordStore, device: str, jobs: int, report: Report
) -> Iterable[dict]:
    """Yield records as they are finished: in this process for one job, else in a pool."""
    if not missing:
        return
    total = sum(config.training.epochs for config in missing)
    done = 0

    def count(event: dict) -> None:
        nonlocal done
        done += 1
        report(event | {"done_epochs": done, "total_epochs": total})

    if jobs == 1 and device == "cuda":
        for config in missing:
            with _reporting_failure(config, report):
                record = train_and_record(config, store, device=device, report=count)
            yield record
        return
    # Spawned, not forked: threads of this process (a notebook's kernel has several) stay out.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        events = manager.Queue()
        listener = Thread(target=_forward, args=(events, count), daemon=True)
        listener.start()
        try:
            with ProcessPoolExecutor(jobs, context, _start_worker, (events,)) as pool:
                # The longest first, so that no long run is left alone at the end.
                missing = sorted(missing, key=_effort, reverse=True)
                futures = {pool.submit(_work, config, store, device): config for config in missing}
                try:
                    for future in as_completed(futures):
                        with _reporting_failure(futures[future], report):
                            record = future.result()
                        yield record
                except BaseException as error:
                    # Where a run fails, those under way are finished and kept; Ctrl-C waits not.
                    pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
                    raise
        finally:
            events.put(None)
            listener.join()


@contextmanager
def _reporting_failure(config: RunConfig, report: Report) -> Iterator[None]:
    try:
        yield
    except Exception:
        report({"event": "run", "name": run_name(config), "status": "failed"})
        raise


def _effort(config: RunConfig) -> int:
    return config.data.n_train * config.training.epochs


def _forward(events: SimpleQueue, report: Report) -> None:
    while (event := events.get()) is not None:
        report(event)


def _start_worker(events: SimpleQueue) -> None:
    global _events
    _events = events
    torch.set_num_threads(1)


def _work(config: RunConfig, store: RecordStore, device: str) -> dict:
    return train_and_record(config, store, device=device, report=_events.put)


def _reporter(n_runs: int, n_reused: int) -> Report:
    """Where progress goes: the file a runner follows, or a bar in a terminal or notebook."""
    start = {"event": "start", "runs": n_runs, "reused": n_reused}
    path = os.environ.get(PROGRESS_VARIABLE)
    if path:
        report = _append_to(Path(path))
        report(start)
        return report
    return _bar(n_runs, n_reused)


def _append_to(path: Path) -> Report:
    def report(event: dict) -> None:
        with open(path, "a") as file:
            file.write(json.dumps(event) + "\n")

    return report


def _bar(n_runs: int, n_reused: int) -> Report:
    bar = tqdm(desc=f"{n_runs} runs, {n_reused} reused", unit="epoch", disable=n_runs == n_reused)

    def report(event: dict) -> None:
        if event["event"] == "epoch":
            bar.total, bar.n = event["total_epochs"], event["done_epochs"]
            bar.refresh()
        elif event["event"] == "end":
            bar.close()

    return report
