"""Runs of a study: each configuration is trained once, looked up ever after."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import NamedTuple

import torch

from ipslib import runs
from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.patches import SPLITS
from ipslib.runs import Report, reporting, start_event
from ipslib.runs.executors import Executor, WorkerDied, here, processes
from ipslib.runs.one_run import (
    HELD,
    OUT_OF_TIME,
    REFUSED,
    RunFailed,
    from_environment,
    train_and_record,
)
from ipslib.runs.records import RecordStore, Run
from ipslib.runtime import chosen_device, is_accelerator

JOBS_VARIABLE = "IPSLIB_JOBS"
Choose = Callable[[Sequence[Run]], Run | None]


class Outcome(NamedTuple):
    """How a run ended: `status` is made, reused, failed or out of time."""

    config: RunConfig
    status: str
    record: dict | None
    failure: RunFailed | None

    def __str__(self) -> str:
        """What came out, or why nothing did."""
        if self.failure:
            return f"{self.failure.reason}: {self.failure}"
        accuracy = self.record["result"]["accuracy"].items()
        return ", ".join(f"{task} {100 * value:.1f} %" for task, value in accuracy)


def run_all(
    configs: Iterable[RunConfig], store: RecordStore, *, jobs: int | None = None
) -> list[dict]:
    """The records of the configurations, in their order; what has none yet is trained, see
    `run_outcomes`. IpslibError when a run failed twice; the others have been finished by then."""
    configs = list(configs)
    ended = {each.config.id: each for each in run_outcomes(configs, store, jobs=jobs)}
    failed = [each for each in ended.values() if each.failure]
    if failed:
        more = f" ({len(failed)} runs failed)" if len(failed) > 1 else ""
        raise IpslibError(f"{failed[0].failure}{more}")
    return [ended[config.id].record for config in configs]


def longest_first(waiting: Sequence[Run]) -> Run | None:
    """So that no long run is left alone at the end; last what other processes are at."""

    def key(run: Run) -> tuple[bool, int]:
        # Where only reading tells how many images there are, by epochs alone.
        n_images = getattr(run.config.data, "n_train", 1)
        return not run.is_held(), n_images * run.config.training.epochs

    return max(waiting, key=key, default=None)


def run_outcomes(
    configs: Iterable[RunConfig],
    store: RecordStore,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    choose: Choose = longest_first,
    deadline: float = float("inf"),
) -> Iterator[Outcome]:
    """How each run ended, as it ends: a record that is there, made now, or why there is none.

    A run that fails is tried once more, from its last checkpoint, after the others; what failed
    twice is written beside the records. What `choose` never takes has no outcome.

    Args:
        configs: runs; the same run named twice is trained once.
        store: where records are looked up and written.
        jobs: processes side by side on this machine, where no executor is given; if None, 1 on a
            GPU, else $IPSLIB_JOBS or the number of cores.
        executor: where runs are made; on this machine if None.
        device: where networks live; a GPU if None and there is one where the run is made.
        choose: the run to begin next among those that wait, or None for none of them now.
        deadline: as in `train_and_record`; what another process has is then left to it.

    Raises:
        RunFailed: when the disk takes no more files, as every other run would.
        IpslibError: when jobs is no number of runs, or data cannot be read.
    """
    distinct = [store.run(config) for config in {each.id: each for each in configs}.values()]
    found = {run.id: record for run in distinct if (record := run.record())}
    waiting = [run for run in distinct if run.id not in found]
    for run in distinct:
        if run.id in found:
            with suppress(OSError):  # a folder that cannot be written can still be read
                run.tidy()
            yield Outcome(run.config, "reused", found[run.id], None)
    all_at_once = deadline == float("inf")
    work = partial(_attempt, device=device, deadline=deadline)
    failed: dict[str, RunFailed] = {}  # first attempts
    with reporting(list(found), [run.config for run in waiting if all_at_once]) as report:

        def next_run() -> Run | None:
            if run := choose(waiting):
                waiting.remove(run)
                if not all_at_once:
                    report(start_event([], [run.config]))
            return run

        executor, again = executor or _local_executor(waiting, jobs, device), waiting
        while again:
            again = []
            with closing(executor(work, next_run, report)) as results:
                for run, ended in results:
                    if isinstance(ended, WorkerDied):
                        ended = RunFailed("killed", f"{run.name}: {ended}.")
                    reason = "" if isinstance(ended, dict) else ended.reason
                    if reason in REFUSED:
                        raise ended
                    if reason == HELD:
                        waiting.append(run)
                    elif reason in ("", OUT_OF_TIME) or run.id in failed:
                        yield _settle(run, ended, report)
                    else:
                        failed[run.id] = ended
                        again.append(run)
            waiting += again
        for run in waiting:
            if run.id in failed:  # for which no time was left
                yield _settle(run, failed[run.id], report)


def _settle(run: Run, ended: dict | RunFailed, report: Report) -> Outcome:
    """Report and keep how a run ended for good."""
    if isinstance(ended, dict):
        outcome = Outcome(run.config, "made", ended, None)
    elif ended.reason == OUT_OF_TIME:
        outcome = Outcome(run.config, OUT_OF_TIME, None, ended)
    else:
        run.save_failure(ended.reason, str(ended))
        outcome = Outcome(run.config, "failed", None, ended)
    report({"event": "run", "id": run.id, "status": outcome.status})
    return outcome


def _attempt(run: Run, report: Report, *, device: str | None, deadline: float) -> dict | RunFailed:
    """Train one run; what goes wrong comes back as a RunFailed.

    On the CPU a narrow network gains little by more than one thread; alone, a network of full
    width has all cores. A CPU gives a run the same bits whenever it has as many threads.
    """
    device, threads = chosen_device(device), torch.get_num_threads()
    if device == "cpu" and run.config.model.width < 1:
        torch.set_num_threads(1)
    try:
        return train_and_record(
            run.config, RecordStore(run.folder), device=device, report=report, deadline=deadline
        )
    except RunFailed as failure:
        # A new one: the traceback of this would keep the network in memory for the next run.
        return RunFailed(failure.reason, str(failure))
    except Exception as error:
        return RunFailed("error", f"{run.name}: {type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)


def _local_executor(waiting: Sequence[Run], jobs: int | None, device: str | None) -> Executor:
    """This machine: a GPU takes one run after the other; a CPU as many as the environment or a
    notebook's runner says, else one a core."""
    if not jobs:
        on_cpu, n_cores = not is_accelerator(chosen_device(device)), os.cpu_count() or 1
        default = runs.KERNEL.jobs or n_cores
        jobs = from_environment(JOBS_VARIABLE, int, default, at_least=1) if on_cpu else 1
    for run in waiting:
        for split in SPLITS:  # what cannot be read is an error before any run begins
            run.config.data.open_split(split).provenance  # noqa: B018
    return processes(jobs) if min(jobs, len(waiting)) > 1 else here
