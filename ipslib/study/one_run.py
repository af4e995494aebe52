"""One run, from whatever is there to its record: locked, checkpointed, and told why it failed."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.naming import run_name
from ipslib.study.memory import peak_memory_mb, reset_peak_memory
from ipslib.study.provenance import make_failure, make_record
from ipslib.study.records import RecordStore
from ipslib.training import DivergenceError, TrainingState, train

CHECKPOINT_SECONDS = 60.0
Report = Callable[[dict], None]


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
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    deadline: float = float("inf"),
) -> dict:
    """Return a run's record, training it first where there is none.

    Whoever holds the run's lock trains it; others wait and find its record. A checkpoint of an
    earlier attempt is gone on from, and the record is the same as without the stop.

    Args:
        config: the run.
        store: where its files lie.
        device: where the network lives.
        report: called with an event after every epoch.
        checkpoint_seconds: time between checkpoints; the first follows the first epoch, so that
            a full disk is told at once.
        deadline: `time.monotonic()` at which to stop with a checkpoint.

    Raises:
        RunFailed: diverged, out of memory, disk full, not writable.
        OutOfTime: the next epoch would end after the deadline.
    """
    with _failures_told(config, store), store.lock(config):
        record = store.find(config)
        if record:
            return record
        store.tidy(config)
        reset_peak_memory(device)
        checkpoint = store.load_checkpoint(config) or {"snapshot": None, "epoch_seconds": []}
        epoch_seconds, saved = checkpoint["epoch_seconds"], float("-inf")

        def after_epoch(row: dict, state: TrainingState) -> None:
            nonlocal saved
            epoch_seconds.append(row.pop("seconds"))
            if report:
                event = {"event": "epoch", "run": run_name(config), "id": config.id}
                report(event | {"epoch": row["epoch"], "epochs": config.training.epochs})
            now = time.monotonic()
            out_of_time = now + max(epoch_seconds) > deadline
            if row["epoch"] == config.training.epochs:
                return
            if out_of_time or now - saved >= checkpoint_seconds:
                store.save_checkpoint(config, state.snapshot(), epoch_seconds)
                saved = now
            if out_of_time:
                raise OutOfTime(
                    f"{run_name(config)} stops after epoch {row['epoch']} of "
                    f"{config.training.epochs}: the time is up."
                )

        start = time.perf_counter()
        trained = train(
            config, device=device, snapshot=checkpoint["snapshot"], on_epoch=after_epoch
        )
        timing = {
            "training_seconds": round(sum(epoch_seconds), 3),
            "last_attempt_seconds": round(time.perf_counter() - start, 3),
            "epoch_seconds": epoch_seconds,
            "peak_memory_mb": peak_memory_mb(device),
        }
        record = make_record(config, trained, timing, device)
        store.save(record, trained.network)
        return record


@contextmanager
def _failures_told(config: RunConfig, store: RecordStore) -> Iterator[None]:
    """Turn what can end a run into RunFailed with its reason and remedy."""
    try:
        yield
    except (RunFailed, OutOfTime):
        raise
    except DivergenceError as error:
        raise RunFailed("diverged", f"{run_name(config)}: {error}") from error
    except OSError as error:
        raise _disk_failure(config, store, error) from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise RunFailed("out of memory", _memory_remedy(config)) from error


def _disk_failure(config: RunConfig, store: RecordStore, error: OSError) -> RunFailed:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "disk full" if full else "not writable"
    remedy = "free some space" if full else "make it writable or set IPSLIB_OUTPUTS"
    return RunFailed(
        reason,
        f"{run_name(config)}: {store.folder} takes no more files ({error.strerror}); {remedy}, "
        "and the same command goes on from the last checkpoint.",
    )


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "allocate memory" in text


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
