"""The published runs as a queue: the most valuable missing ones first, for the minutes there are.

The order is that of `published_configs`; what has been begun is finished before anything new, and
what failed is tried again after all others.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from filelock import Timeout

from ipslib.arithmetic import CURRENT, VERSIONS, version_of
from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs.events import reporter
from ipslib.runs.files import Layout
from ipslib.runs.one_run import OutOfTime, RunFailed, failure_record, train_and_record
from ipslib.runs.pool import threads_of
from ipslib.runs.precision import in_found_precision
from ipslib.runs.provenance import provenance
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import ATTEMPTS
from ipslib.study.published_configs import PublishedRun, published_runs

_STARTING_SECONDS = 20.0  # a run's digits, noise and network before its first step


def list_queue(profile: str, overrides: Mapping[str, object] | None = None) -> int:
    """Print the queue in its order: which runs have a record, and by which version of the
    arithmetic where it is not today's."""
    store = RecordStore(Layout.of(profile).records)
    earlier_versions = set()
    for run in _runs(profile, overrides, store, "cpu"):
        state, earlier = "done" if store.find(run.config) else "", store.find_earlier(run.config)
        if earlier and not state:
            version = version_of(earlier)
            earlier_versions.add(version)
            state = f"by arithmetic {version}"
        print(f"{state:<15} {run.category:<34} {run.name:<52} {run.note}".rstrip())
    for version in sorted(earlier_versions):
        print(f"arithmetic {version}: {VERSIONS[version]}; made again by {CURRENT}.")
    return 0


def work_queue(profile: str, minutes: float, overrides: Mapping[str, object] | None = None) -> int:
    """Train missing published runs until the minutes are over; return 1 where one failed.

    A run that learned run times say will not fit is passed over for a later one that does; where
    none fits, the first is begun and checkpointed, to be gone on with next time.

    Raises:
        IpslibError: no MNIST, a wrong field, or a disk that takes no more files.
    """
    if not minutes > 0:
        raise IpslibError(f"minutes: wanted more than 0, got {minutes:g}.")
    deadline = time.monotonic() + 60 * minutes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = RecordStore(Layout.of(profile).records)
    runs = _runs(profile, overrides, store, device)
    # What is missing is said once, not by every run.
    load_digits(runs[0].config.data.digits, "train")
    processor = provenance(runs[0].config, device)["device"]
    failed: Counter = Counter()
    while True:
        missing = [run for run in runs if not store.find(run.config)]
        print(f"published runs regenerated: {len(runs) - len(missing)} of {len(runs)}", flush=True)
        times = [
            record
            for record in store.all()
            if record["provenance"]["device"] == processor and "dataset" not in record["config"]
        ]
        waiting = [run for run in missing if failed[run.config.id] < ATTEMPTS]
        run = next_run(waiting, store, times, deadline - time.monotonic())
        if run is None:
            if waiting:
                print("no run has an epoch that fits the time left.", flush=True)
            break
        try:
            print(_told(run, _train(run, store, device, deadline)), flush=True)
        except OutOfTime as pause:
            print(pause, flush=True)
            break
        except RunFailed as failure:
            failed[run.config.id] += 1
            store.save_failure(failure_record(run.config, failure))
            if failure.reason in ("disk full", "not writable"):
                raise  # as every other run would
            print(f"{run.name}: {failure.reason}: {failure}", flush=True)
    return int(any(run.config.id in failed for run in missing))


def _runs(
    profile: str, overrides: Mapping[str, object] | None, store: RecordStore, device: str
) -> list[PublishedRun]:
    """The queue, each run in the precision that it has been made in or will be."""
    runs = published_runs(profile, overrides)
    if "precision" in (overrides or {}):
        return runs
    return [
        run._replace(config=in_found_precision(run.config, store, device=device)) for run in runs
    ]


def next_run(
    missing: Sequence[PublishedRun], store: RecordStore, times: Sequence[dict], seconds: float
) -> PublishedRun | None:
    """The run to train in the seconds left, or None where not one epoch fits.

    Args:
        missing: runs without a record, in the queue's order.
        store: where checkpoints and failures lie, and which runs other processes are at.
        times: records of this device, to learn from.
        seconds: left.
    """
    failed = {each["id"] for each in store.failures()}
    begun, fitting, partly = [], [], []
    for run in sorted(missing, key=lambda run: run.config.id in failed):
        checkpoint, epochs = store.load_checkpoint(run.config), run.config.training.epochs
        whole = expected_seconds(run.config, times)
        epoch = max(checkpoint["epoch_seconds"]) if checkpoint else (whole or 0) / epochs
        if seconds <= 0 or epoch > seconds:
            continue
        if checkpoint and run.config.id not in failed:
            begun.append(run)
        else:
            (fitting if (whole or 0) <= seconds else partly).append(run)
    return next((run for run in begun + fitting + partly if not _is_taken(run, store)), None)


def expected_seconds(config: RunConfig, times: Sequence[dict]) -> float | None:
    """How long a run may take, from the record most like it; None where there is no record.

    Time is taken as proportional to the images that training and evaluation see, and to the
    pixels of the patches visited for an image: the N that selection visits and the M that are
    encoded again, which cost three times as much where they are learned from.
    """
    if not times:
        return None
    nearest = min(times, key=lambda record: _unlike(config, record["config"]))
    trained = _work_of_training(run_config(nearest["config"]))
    work = _work_of_training(config) + _work_of_evaluation(config)
    return _STARTING_SECONDS + work / trained * nearest["timing"]["training_seconds"]


def _train(run: PublishedRun, store: RecordStore, device: str, deadline: float) -> dict:
    report = reporter([], [run.config])
    try:
        with threads_of(run.config, device):
            return train_and_record(
                run.config, store, device=device, deadline=deadline, report=report
            )
    except (OutOfTime, RunFailed):
        raise
    except Exception as error:  # such as weights that cannot be downloaded
        raise RunFailed("error", f"{type(error).__name__}: {error}") from error
    finally:
        report({"event": "end"})


def _told(run: PublishedRun, record: dict) -> str:
    accuracy = record["result"]["accuracy"].items()
    shown = ", ".join(f"{task} {100 * value:.1f} %" for task, value in accuracy)
    return f"{run.category}: {run.name}: {shown}"


def _is_taken(run: PublishedRun, store: RecordStore) -> bool:
    """Whether another process is at this run."""
    try:
        with store.lock(run.config).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # training says what is wrong with the folder
        return False


def _work_of_training(config: RunConfig) -> float:
    n, m = _patches(config)
    images = config.data.n_train * config.training.epochs
    return images * (n + 3 * m) * config.data.patch_size**2


def _work_of_evaluation(config: RunConfig) -> float:
    n, m = _patches(config)
    images = config.data.n_test * -(-config.training.epochs // config.training.eval_every)
    return images * (n + m) * config.data.patch_size**2


def _patches(config: RunConfig) -> tuple[int, int]:
    n = config.data.grid.n_patches
    return n, min(config.model.memory_size, n)


def _unlike(config: RunConfig, other: dict) -> int:
    return sum(config.flat()[name] != value for name, value in other.items())
