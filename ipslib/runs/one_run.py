"""One run, from whatever is there to its record: locked, checkpointed, its failures explained."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from filelock import Timeout

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.runs import Report
from ipslib.runs.provenance import peak_memory_mb, reset_peak_memory
from ipslib.runs.records import RecordStore, Run, make_record
from ipslib.runtime import chosen_device
from ipslib.training import DivergenceError, SnapshotError, TrainingState, train

CHECKPOINT_VARIABLE = "IPSLIB_CHECKPOINT_SECONDS"
# Reasons of a RunFailed after which a run is not tried again: the time was up, and the next call
# goes on from a checkpoint; another process is making it; no run can be kept on this disk.
OUT_OF_TIME, HELD, REFUSED = "out of time", "held", ("disk full", "not writable")
# What Python, torch, the C++ library and oneDNN say when they are refused memory; torch's own
# class has moved between versions, and CPUs have none.
_MEMORY_SIGNS = re.compile("(out of|not enough) memory|alloc|memory object|create a primitive")


class RunFailed(IpslibError):
    """A run that ended without a record: `reason` in a word or two, the message in a sentence."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)  # both, to pass between processes
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


def train_and_record(
    config: RunConfig,
    store: RecordStore,
    *,
    device: str = "cpu",
    report: Report = lambda event: None,
    deadline: float = float("inf"),
    with_weights: bool = False,
) -> dict:
    """Return a run's record, training it first where there is none; asked for with its weights,
    also where a record came without them.

    Whoever holds the run's lock trains it; others wait and find its record, or, with a deadline,
    leave it. A checkpoint of an earlier attempt is gone on from, and the record is the same as
    without the stop. $IPSLIB_CHECKPOINT_SECONDS or a minute lies between checkpoints; the first
    follows the first epoch, so that a full disk is noticed at once.

    Args:
        config, store: the run, and where its files lie.
        device: where the network lives.
        report: takes an event after every epoch, and where the run is waited for.
        deadline: `time.monotonic()` of this machine at which to stop with a checkpoint.

    Raises:
        RunFailed: diverged, out of memory, a disk that is full or not writable; with a deadline
            also out of time, where the next epoch would end after it, or held by another process.
        IpslibError: for a device that is not there.
    """
    run, device = store.run(config), chosen_device(device)
    interval = from_environment(CHECKPOINT_VARIABLE, float, 60.0, at_least=0)
    attempt = partial(_train, run, device, report, interval, deadline)
    try:
        with _locked(run, report, wait=deadline == float("inf")):
            with _disk_failures(run):
                record = run.record(with_weights=with_weights)
                run.tidy()
                checkpoint = None if record else run.checkpoint()
            try:
                return record or attempt(checkpoint)
            except SnapshotError as error:
                cause = type(error.__cause__).__name__
                run.refuse_checkpoint(f"of another network or version ({cause})")
            return attempt(None)
    except DivergenceError as error:
        raise RunFailed("diverged", f"{run.name}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batch_size, model = config.training.batch_size, config.model
        raise RunFailed(
            "out of memory",
            f"{run.name}: out of memory with batch_size {batch_size}, memory_size "
            f"{model.memory_size}, iter_size {model.iter_size}; training holds batch_size x "
            f"memory_size = {batch_size * model.memory_size} patches at once, so lower one of "
            "these first, then iter_size.",
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was refused, on whatever device."""
    return isinstance(error, MemoryError) or bool(_MEMORY_SIGNS.search(str(error).lower()))


def from_environment(variable: str, kind: Callable, default: float, *, at_least: float) -> float:
    """A number, as the environment says."""
    chosen = os.environ.get(variable) or default
    try:
        if (number := kind(chosen)) >= at_least:
            return number
    except ValueError:
        pass
    raise IpslibError(f"{variable}: wanted a number of at least {at_least}, got {chosen!r}.")


def _train(
    run: Run, device: str, report: Report, interval: float, deadline: float, checkpoint: dict | None
) -> dict:
    """Train from a checkpoint or from the start, and keep the record."""
    checkpoint = checkpoint or {"snapshot": None, "epoch_seconds": []}
    epoch_seconds, epochs = list(checkpoint["epoch_seconds"]), run.config.training.epochs
    resumed_at, start = len(epoch_seconds), time.monotonic()
    lap, longest, saved = start, 0.0, float("-inf")  # `longest` with evaluation, which they are not

    def after_epoch(row: dict, state: TrainingState) -> None:
        nonlocal lap, longest, saved
        epoch_seconds.append(row.pop("seconds"))
        numbers = {"epoch": row["epoch"], "epochs": epochs, "resumed_at": resumed_at}
        report({"event": "epoch", "run": run.name, "id": run.id} | numbers)
        now = time.monotonic()
        longest, lap = max(longest, now - lap), now
        if row["epoch"] == epochs:
            return
        out_of_time = now + longest > deadline
        if out_of_time or now - saved >= interval:
            with _disk_failures(run):
                run.save_checkpoint(state.snapshot(), epoch_seconds)
            saved = now
        if out_of_time:
            stopped = f"{run.name} stops after epoch {row['epoch']} of {epochs}: the time is up."
            raise RunFailed(OUT_OF_TIME, stopped)

    reset_peak_memory(device)
    snapshot = checkpoint["snapshot"]
    trained = train(run.config, device=device, snapshot=snapshot, on_epoch=after_epoch)
    timing = {
        "training_seconds": round(sum(epoch_seconds), 3),
        "last_attempt_seconds": round(time.monotonic() - start, 3),
        "epoch_seconds": epoch_seconds,
        "peak_memory_mb": peak_memory_mb(device),
    }
    record = make_record(run.config, trained, timing, device)
    with _disk_failures(run):
        run.save(record, trained.network)
    return record


@contextmanager
def _locked(run: Run, report: Report, *, wait: bool) -> Iterator[None]:
    with _disk_failures(run):
        lock = run.lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise RunFailed(HELD, f"{run.name} is being made by another process.") from None
            report({"event": "wait", "id": run.id, "run": run.name})
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_failures(run: Run) -> Iterator[None]:
    """Turn what the disk refuses into RunFailed with its reason and remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space" if full else "make it writable or set IPSLIB_OUTPUTS"
        raise RunFailed(
            "disk full" if full else "not writable",
            f"{run.name}: {run.folder} takes no more files ({error.strerror or error}); {remedy}, "
            "and the same command goes on from the last checkpoint.",
        ) from error
