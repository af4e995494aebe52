"""One run, from whatever is there to its record: locked, checkpointed, its failures explained."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import torch

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.runs.progress import Report
from ipslib.runs.provenance import make_record, peak_memory_mb, reset_peak_memory
from ipslib.runs.records import RecordStore, Run
from ipslib.runtime import chosen_device
from ipslib.training import DivergenceError, SnapshotError, TrainingState, train

CHECKPOINT_VARIABLE, CHECKPOINT_SECONDS = "IPSLIB_CHECKPOINT_SECONDS", 60.0
# What Python, torch, the C++ library and oneDNN say when they are refused memory; torch's own
# class has moved between versions, and CPUs have none.
_MEMORY_SIGNS = (
    "out of memory",
    "not enough memory",
    "alloc",
    "memory object",
    "create a primitive",
)


class RunFailed(IpslibError):
    """A run that ended without a record: `reason` in a word or two, the message in a sentence."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple:  # to pass between processes
        return type(self), (self.reason, str(self))


class DiskRefuses(RunFailed):
    """A folder of records that takes no more files, from this run or any other."""


class OutOfTime(RunFailed):
    """A run that was checkpointed because its time was up; the next call goes on from there."""


class HeldElsewhere(RunFailed):
    """A run that another process is making."""


def train_and_record(
    config: RunConfig,
    store: RecordStore,
    *,
    device: str = "cpu",
    report: Report = lambda event: None,
    checkpoint_seconds: float | None = None,
    deadline: float = float("inf"),
) -> dict:
    """Return a run's record, training it first where there is none.

    Whoever holds the run's lock trains it; others wait and find its record, or, with a deadline,
    leave it. A checkpoint of an earlier attempt is gone on from, and the record is the same as
    without the stop.

    Args:
        config: the run.
        store: where its files lie.
        device: where the network lives.
        report: takes an event after every epoch, and where the run is waited for.
        checkpoint_seconds: time between checkpoints, $IPSLIB_CHECKPOINT_SECONDS or a minute if
            None; the first follows the first epoch, so that a full disk is noticed at once.
        deadline: `time.monotonic()` of this machine at which to stop with a checkpoint.

    Raises:
        RunFailed: diverged, out of memory, disk full, files not readable or writable.
        OutOfTime: the next epoch would end after the deadline.
        HeldElsewhere: another process has the run, and there is a deadline.
        IpslibError: for a device that is not there.
    """
    run, device = store.run(config), chosen_device(device)
    if checkpoint_seconds is None:
        checkpoint_seconds = _chosen_interval()
    with _as_failures(run), _locked(run, report, wait=deadline == float("inf")):
        with _disk_failures(run):
            record = run.record()
            run.tidy()
            checkpoint = None if record else run.checkpoint()
        if record:
            return record
        attempt = _Attempt(run, device, report, checkpoint_seconds, deadline)
        try:
            return attempt.train(checkpoint)
        except SnapshotError as error:
            cause = type(error.__cause__).__name__
            run.refuse_checkpoint(f"of another network or version ({cause})")
        return attempt.train(None)


@contextmanager
def threads_of(config: RunConfig, device: str) -> Iterator[None]:
    """The torch threads that a run has on the CPU, for a while.

    A narrow network gains little by more than one thread; alone, a network of full width has all
    cores. A CPU gives a run the same bits whenever it has as many threads.
    """
    before = torch.get_num_threads()
    if device == "cpu" and config.model.width < 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was refused, on whatever device."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in message for sign in _MEMORY_SIGNS)


def _chosen_interval() -> float:
    """Seconds between checkpoints, as the environment says."""
    chosen = os.environ.get(CHECKPOINT_VARIABLE) or CHECKPOINT_SECONDS
    try:
        return float(chosen)
    except ValueError:
        raise IpslibError(f"{CHECKPOINT_VARIABLE}: wanted seconds, got {chosen!r}.") from None


@attrs.define
class _Attempt:
    """Training from a checkpoint or from the start. After an epoch it is reported and, when it is
    time, checkpointed; when the time is up training stops."""

    run: Run
    device: str
    report: Report
    checkpoint_seconds: float
    deadline: float
    _epoch_seconds: list[float] = attrs.field(init=False)
    _resumed_at: int = attrs.field(init=False)
    _saved: float = attrs.field(init=False, default=float("-inf"))
    _lap: float = attrs.field(init=False)
    _longest: float = attrs.field(init=False, default=0.0)  # with evaluation, unlike epoch_seconds

    def train(self, checkpoint: dict | None) -> dict:
        checkpoint = checkpoint or {"snapshot": None, "epoch_seconds": []}
        self._epoch_seconds = list(checkpoint["epoch_seconds"])
        self._resumed_at, self._lap = len(self._epoch_seconds), time.monotonic()
        reset_peak_memory(self.device)
        start, config = time.perf_counter(), self.run.config
        trained = train(
            config, device=self.device, snapshot=checkpoint["snapshot"], on_epoch=self._after_epoch
        )
        timing = {
            "training_seconds": round(sum(self._epoch_seconds), 3),
            "last_attempt_seconds": round(time.perf_counter() - start, 3),
            "epoch_seconds": self._epoch_seconds,
            "peak_memory_mb": peak_memory_mb(self.device),
        }
        record = make_record(config, trained, timing, self.device)
        with _disk_failures(self.run):
            self.run.save(record, trained.network)
        return record

    def _after_epoch(self, row: dict, state: TrainingState) -> None:
        run, epoch, epochs = self.run, row["epoch"], self.run.config.training.epochs
        self._epoch_seconds.append(row.pop("seconds"))
        numbers = {"epoch": epoch, "epochs": epochs, "resumed_at": self._resumed_at}
        self.report({"event": "epoch", "run": run.name, "id": run.id} | numbers)
        now = time.monotonic()
        self._longest, self._lap = max(self._longest, now - self._lap), now
        if epoch == epochs:
            return
        out_of_time = now + self._longest > self.deadline
        if out_of_time or now - self._saved >= self.checkpoint_seconds:
            with _disk_failures(run):
                run.save_checkpoint(state.snapshot(), self._epoch_seconds)
            self._saved = now
        if out_of_time:
            stopped = f"{run.name} stops after epoch {epoch} of {epochs}: the time is up."
            raise OutOfTime("out of time", stopped)


@contextmanager
def _locked(run: Run, report: Report, *, wait: bool) -> Iterator[None]:
    with _disk_failures(run):
        lock = run.acquire(wait=False)
        if lock is None and not wait:
            raise HeldElsewhere("held", f"{run.name} is being made by another process.")
        if lock is None:
            report({"event": "wait", "id": run.id, "run": run.name})
            lock = run.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _as_failures(run: Run) -> Iterator[None]:
    """Turn what can end training into RunFailed with its reason and remedy."""
    try:
        yield
    except DivergenceError as error:
        raise RunFailed("diverged", f"{run.name}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batch_size, model = run.config.training.batch_size, run.config.model
        raise RunFailed(
            "out of memory",
            f"{run.name}: out of memory with batch_size {batch_size}, memory_size "
            f"{model.memory_size}, iter_size {model.iter_size}; training holds batch_size x "
            f"memory_size = {batch_size * model.memory_size} patches at once, so lower one of "
            "these first, then iter_size.",
        ) from error


@contextmanager
def _disk_failures(run: Run) -> Iterator[None]:
    """Turn what the disk refuses into RunFailed with its reason and remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space" if full else "make it writable or set IPSLIB_OUTPUTS"
        raise DiskRefuses(
            "disk full" if full else "not writable",
            f"{run.name}: {run.folder} takes no more files ({error.strerror or error}); {remedy}, "
            "and the same command goes on from the last checkpoint.",
        ) from error
