"""One run, from whatever is there to its record: locked, checkpointed, and told why it failed."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from filelock import Timeout

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.runs.events import Report
from ipslib.runs.memory import peak_memory_mb, reset_peak_memory
from ipslib.runs.naming import run_name
from ipslib.runs.provenance import make_failure, make_record
from ipslib.runs.records import RecordStore
from ipslib.runtime import chosen_device
from ipslib.training import DivergenceError, SnapshotError, TrainingState, train

CHECKPOINT_VARIABLE, CHECKPOINT_SECONDS = "IPSLIB_CHECKPOINT_SECONDS", 60.0


class RunFailed(IpslibError):
    """A run that ended without a record: `reason` in a word or two, the message in a sentence."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple:  # to pass between processes
        return type(self), (self.reason, str(self))


class OutOfTime(IpslibError):
    """A run that was checkpointed because its time was up; the next call goes on from there."""


def train_and_record(
    config: RunConfig,
    store: RecordStore,
    *,
    device: str = "cpu",
    report: Report | None = None,
    checkpoint_seconds: float | None = None,
    deadline: float = float("inf"),
) -> dict:
    """Return a run's record, training it first where there is none.

    Whoever holds the run's lock trains it; others wait and find its record. A checkpoint of an
    earlier attempt is gone on from, and the record is the same as without the stop.

    Args:
        config: the run.
        store: where its files lie.
        device: where the network lives.
        report: called with an event after every epoch, and where the run is waited for.
        checkpoint_seconds: time between checkpoints, $IPSLIB_CHECKPOINT_SECONDS or a minute if
            None; the first follows the first epoch, so that a full disk is told at once.
        deadline: `time.monotonic()` at which to stop with a checkpoint.

    Raises:
        RunFailed: diverged, out of memory, disk full, files not readable or writable.
        OutOfTime: the next epoch would end after the deadline, or another process has the run.
        IpslibError: for a device that is not there.
    """
    if checkpoint_seconds is None:
        checkpoint_seconds = _chosen_interval()
    device = chosen_device(device)
    with _failures_told(config), _locked(config, store, deadline, report):
        with _files_told(config, store):
            record = store.find(config)
            store.tidy(config)
            checkpoint = None if record else store.load_checkpoint(config)
        if record:
            return record
        after_epoch = _AfterEpoch(config, store, report, checkpoint_seconds, deadline)
        try:
            return _train_from(checkpoint, config, store, device, after_epoch)
        except SnapshotError as error:
            with _files_told(config, store):
                cause = type(error.__cause__).__name__
                store.refuse_checkpoint(config, f"of another network or version ({cause})")
        return _train_from(None, config, store, device, after_epoch)


def _chosen_interval() -> float:
    """Seconds between checkpoints, as the environment says."""
    said = os.environ.get(CHECKPOINT_VARIABLE) or CHECKPOINT_SECONDS
    try:
        return float(said)
    except ValueError:
        raise IpslibError(f"{CHECKPOINT_VARIABLE}: wanted seconds, got {said!r}.") from None


def _train_from(
    checkpoint: dict | None,
    config: RunConfig,
    store: RecordStore,
    device: str,
    after_epoch: "_AfterEpoch",
) -> dict:
    checkpoint = checkpoint or {"snapshot": None, "epoch_seconds": []}
    after_epoch.begin(checkpoint["epoch_seconds"])
    reset_peak_memory(device)
    start = time.perf_counter()
    trained = train(config, device=device, snapshot=checkpoint["snapshot"], on_epoch=after_epoch)
    timing = {
        "training_seconds": round(sum(after_epoch.epoch_seconds), 3),
        "last_attempt_seconds": round(time.perf_counter() - start, 3),
        "epoch_seconds": after_epoch.epoch_seconds,
        "peak_memory_mb": peak_memory_mb(device),
    }
    record = make_record(config, trained, timing, device)
    with _files_told(config, store):
        store.save(record, trained.network)
    return record


@attrs.define
class _AfterEpoch:
    """What is done after an epoch: tell it, checkpoint it, and stop when the time is up."""

    config: RunConfig
    store: RecordStore
    report: Report | None
    checkpoint_seconds: float
    deadline: float
    epoch_seconds: list[float] = attrs.field(init=False)
    _resumed_at: int = attrs.field(init=False)
    _saved: float = attrs.field(init=False)
    _lap: float = attrs.field(init=False)
    _longest: float = attrs.field(init=False)  # with evaluation, which epoch_seconds leave out

    def begin(self, epoch_seconds: list[float]) -> None:
        """Before the first epoch; times of epochs before a checkpoint are given."""
        self.epoch_seconds, self._resumed_at = list(epoch_seconds), len(epoch_seconds)
        self._saved, self._lap, self._longest = float("-inf"), time.monotonic(), 0.0

    def __call__(self, row: dict, state: TrainingState) -> None:
        epoch, epochs = row["epoch"], self.config.training.epochs
        self.epoch_seconds.append(row.pop("seconds"))
        if self.report:
            event = {"event": "epoch", "run": run_name(self.config), "id": self.config.id}
            numbers = {"epoch": epoch, "epochs": epochs, "resumed_at": self._resumed_at}
            self.report(event | numbers)
        now = time.monotonic()
        self._longest, self._lap = max(self._longest, now - self._lap), now
        if epoch == epochs:
            return
        out_of_time = now + self._longest > self.deadline
        if out_of_time or now - self._saved >= self.checkpoint_seconds:
            with _files_told(self.config, self.store):
                self.store.save_checkpoint(self.config, state.snapshot(), self.epoch_seconds)
            self._saved = now
        if out_of_time:
            name = run_name(self.config)
            raise OutOfTime(f"{name} stops after epoch {epoch} of {epochs}: the time is up.")


@contextmanager
def _locked(
    config: RunConfig, store: RecordStore, deadline: float, report: Report | None
) -> Iterator[None]:
    """Hold the run's lock, waiting for it until the deadline."""
    with _files_told(config, store):
        lock = store.lock(config)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if report:
                report({"event": "wait", "id": config.id, "run": run_name(config)})
            patience = -1 if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            try:
                lock.acquire(timeout=patience)
            except Timeout:
                name = run_name(config)
                raise OutOfTime(
                    f"{name} is being made by another process, and the time is up."
                ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _failures_told(config: RunConfig) -> Iterator[None]:
    """Turn what can end training into RunFailed with its reason and remedy."""
    try:
        yield
    except DivergenceError as error:
        raise RunFailed("diverged", f"{run_name(config)}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise RunFailed("out of memory", _memory_remedy(config)) from error


@contextmanager
def _files_told(config: RunConfig, store: RecordStore) -> Iterator[None]:
    """Turn what the disk refuses into RunFailed with its reason and remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "disk full" if full else "not writable"
        remedy = "free some space" if full else "make it writable or set IPSLIB_OUTPUTS"
        raise RunFailed(
            reason,
            f"{run_name(config)}: {store.folder} takes no more files ({error.strerror or error}); "
            f"{remedy}, and the same command goes on from the last checkpoint.",
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """By what is said: torch's own class has moved between versions, and CPUs have none."""
    said = str(error).lower()
    signs = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)


def _memory_remedy(config: RunConfig) -> str:
    batch, memory = config.training.batch_size, config.model.memory_size
    return (
        f"{run_name(config)}: out of memory with batch_size {batch}, memory_size {memory}, "
        f"iter_size {config.model.iter_size}; training holds batch_size x memory_size = "
        f"{batch * memory} patches at once, so lower one of these first, then iter_size."
    )


def failure_record(config: RunConfig, failure: RunFailed) -> dict:
    """What a store keeps of a failure."""
    return make_failure(config, failure.reason, str(failure))
