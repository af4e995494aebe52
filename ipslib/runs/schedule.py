"""Runs of a study: each configuration is trained once, looked up ever after."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import torch

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.patches import SPLITS
from ipslib.runs.events import reporter
from ipslib.runs.naming import run_name
from ipslib.runs.one_run import Report, RunFailed, failure_record
from ipslib.runs.pool import Ended, here, in_processes
from ipslib.runs.records import RecordStore

ATTEMPTS, JOBS_VARIABLE = 2, "IPSLIB_JOBS"
Way = Callable[[Sequence[RunConfig], RecordStore, Report], Ended]


class Outcome(NamedTuple):
    """How a run ended: `status` is made, reused or failed."""

    config: RunConfig
    status: str
    record: dict | None
    failure: RunFailed | None


def run_all(
    configs: Iterable[RunConfig], store: RecordStore, *, jobs: int | None = None
) -> list[dict]:
    """The records of the configurations, in their order; what has none yet is trained.

    Args:
        configs: runs; the same run named twice is trained once.
        store: where records are looked up and written.
        jobs: processes side by side; if None, 1 on a GPU, else $IPSLIB_JOBS or the number of cores.

    Raises:
        IpslibError: when a run failed twice; the others have been finished by then.
    """
    configs = list(configs)
    ended = {each.config.id: each for each in run_outcomes(configs, store, local_way(jobs))}
    failed = [each for each in ended.values() if each.failure]
    if failed:
        more = f" ({len(failed)} runs failed)" if len(failed) > 1 else ""
        raise IpslibError(f"{failed[0].failure}{more}")
    return [ended[config.id].record for config in configs]


def run_outcomes(configs: Iterable[RunConfig], store: RecordStore, way: Way) -> Iterator[Outcome]:
    """How each run ended, as it ends: a record that is there, made now, or why there is none.

    A run that fails is tried once more, from its last checkpoint, after the others; what failed
    twice is written beside the records.
    """
    distinct = {config.id: config for config in configs}
    found = {run_id: store.find(config) for run_id, config in distinct.items()}
    for run_id, record in found.items():
        if record:
            with suppress(OSError):  # a folder that cannot be written can still be read
                store.tidy(distinct[run_id])
            yield Outcome(distinct[run_id], "reused", record, None)
    # The longest first, so that no long run is left alone at the end; last what others are at.
    waiting = [config for run_id, config in distinct.items() if not found[run_id]]
    waiting.sort(key=lambda config: (store.is_held(config), -_effort(config)))
    report = reporter([run_id for run_id, record in found.items() if record], waiting)
    n_attempts = 0
    try:
        while waiting:
            n_attempts, again = n_attempts + 1, []
            with closing(way(waiting, store, report)) as endings:
                for config, ended in endings:
                    if isinstance(ended, RunFailed) and n_attempts < ATTEMPTS:
                        again.append(config)
                    else:
                        yield _settle(config, ended, store, report)
            waiting = again
    finally:
        report({"event": "end"})


def _settle(
    config: RunConfig, ended: dict | RunFailed, store: RecordStore, report: Report
) -> Outcome:
    """Tell and keep how a run ended for good."""
    failure = ended if isinstance(ended, RunFailed) else None
    status = "failed" if failure else "made"
    if failure:
        store.save_failure(failure_record(config, failure))
    report({"event": "run", "id": config.id, "name": run_name(config), "status": status})
    return Outcome(config, status, None if failure else ended, failure)


def local_way(jobs: int | None = None) -> Way:
    """This machine: a GPU takes one run after the other, a CPU one run a core.

    Raises:
        IpslibError: when $IPSLIB_JOBS is no number of runs.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = jobs or (1 if device == "cuda" else _jobs())
    apart = False

    def way(configs: Sequence[RunConfig], store: RecordStore, report: Report) -> Ended:
        nonlocal apart
        for config in configs:
            for split in SPLITS:  # what cannot be read is told before any run is begun
                config.data.open_split(split).provenance  # noqa: B018
        # Once apart, always apart: a last run whose process was killed would kill this one.
        apart = apart or min(jobs, len(configs)) > 1
        if apart:
            return in_processes(configs, store, device, jobs, report)
        return here(configs, store, device, report)

    return way


def _jobs() -> int:
    """Runs side by side on a CPU, as the environment says; else as many as there are cores."""
    said = os.environ.get(JOBS_VARIABLE) or os.cpu_count() or 1
    try:
        jobs = int(said)
    except ValueError:
        jobs = 0
    if jobs < 1:
        raise IpslibError(f"{JOBS_VARIABLE}: wanted a number of runs, at least 1, got {said!r}.")
    return jobs


def _effort(config: RunConfig) -> int:
    """Images seen in training; where only reading tells how many there are, by epochs alone."""
    return getattr(config.data, "n_train", 1) * config.training.epochs
