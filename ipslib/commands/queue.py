"""The published runs as a queue: the most valuable missing ones first, for the minutes there are.

The order is that of `published_configs`; what has been begun is finished before anything new, and
what failed is tried again after all others.
"""

import time
from collections.abc import Mapping, Sequence

from ipslib.config import ARITHMETIC, ARITHMETICS, RunConfig, arithmetic_of
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.encoder import weights_file
from ipslib.paths import reachable
from ipslib.runs.profiles import AUTO, Layout, load_base
from ipslib.runs.provenance import provenance
from ipslib.runs.records import RecordStore, Run, in_found_precision
from ipslib.runs.schedule import run_outcomes
from ipslib.runtime import chosen_device
from ipslib.study.published_configs import PublishedRun, published_runs

# A narrow network on a small canvas has no room for the published masks and pretrained weights.
_IN_MINIATURE = {
    "digit_size": 28, "mask_k": 0, "mask_p": 0.0, "mask_in_eval": False,
    "encoder": "resnet18", "weights": "none", "frozen": False,
}  # fmt: skip
_STARTING_SECONDS = 20.0  # a run's digits, noise and network before its first step


def list_queue(
    profile: str, overrides: Mapping[str, object] | None = None, *, category: str | None = None
) -> int:
    """Print the queue in its order: which runs have a record, and by which version of the
    arithmetic where it is not today's."""
    store = RecordStore(Layout.of(profile).records)
    earlier_versions = set()
    for run in queued_runs(profile, overrides, store, category):
        state = "done" if store.find(run.config) else ""
        if not state and (earlier := store.find_earlier(run.config)):
            earlier_versions.add(arithmetic_of(earlier))
            state = f"by arithmetic {arithmetic_of(earlier)}"
        print(f"{state:<15} {run.category:<34} {run.name:<52} {run.note}".rstrip())
    for version in sorted(earlier_versions):
        print(f"arithmetic {version}: {ARITHMETICS[version]}; made again by {ARITHMETIC}.")
    return 0


def work_queue(
    profile: str,
    minutes: float,
    overrides: Mapping[str, object] | None = None,
    *,
    jobs: int = 1,
    device: str | None = None,
    category: str | None = None,
) -> int:
    """Train missing published runs, of one category or all, until the minutes are over; return 1
    where one failed.

    A run that learned run times say will not fit is passed over for a later one that does; where
    none fits, the first is begun and checkpointed, to be gone on with next time. Runs whose
    pretrained weights cannot be had are passed over.

    Raises:
        IpslibError: no MNIST, a wrong field, number or category, or a disk that takes no more
            files.
    """
    deadline = time.monotonic() + 60 * minutes
    check_amounts(minutes, jobs)
    device, store = chosen_device(device), RecordStore(Layout.of(profile).records)
    runs = {run.config.id: run for run in queued_runs(profile, overrides, store, category, device)}
    processor = provenance(next(iter(runs.values())).config, device)["device"]
    missing = [run for run in runs.values() if not store.find(run.config)]
    n_done, failed = len(runs) - len(missing), {each["id"] for each in store.failures()}

    def choose(waiting: Sequence[Run]) -> Run | None:
        here = (each for each in store.all() if each["provenance"]["device"] == processor)
        times = [record for record in here if "dataset" not in record["config"]]
        return next_run(waiting, failed, times, deadline - time.monotonic())

    print(f"published runs regenerated: {n_done} of {len(runs)}", flush=True)
    configs, ended = [run.config for run in _obtainable(missing)], []
    options = {"jobs": jobs, "device": device, "choose": choose, "deadline": deadline}
    for outcome in run_outcomes(configs, store, **options):
        ended.append(outcome.status)
        run = runs[outcome.config.id]
        print(f"{run.category}: {run.name}: {outcome}", flush=True)
        if outcome.record:
            n_done += 1
            print(f"published runs regenerated: {n_done} of {len(runs)}", flush=True)
    if len(ended) < len(configs) and "out of time" not in ended:
        print("no other run has an epoch that fits the time left.", flush=True)
    return int("failed" in ended)


def check_amounts(minutes: float, jobs: int) -> None:
    if not minutes > 0 or jobs < 1:
        raise IpslibError(
            f"minutes and jobs: wanted more than 0 and at least 1, got {minutes:g} and {jobs}."
        )


def next_run(
    waiting: Sequence[Run], failed: set[str], times: Sequence[dict], seconds: float
) -> Run | None:
    """The run to train in the seconds left, or None where not one epoch fits: of those waiting, in
    the queue's order, the ids that failed before last, and none that another process is at. Times
    are learned from records of this device."""
    begun, fitting, partly = [], [], []
    for run in sorted(waiting, key=lambda run: run.id in failed):
        checkpoint, epochs = run.checkpoint(), run.config.training.epochs
        whole = expected_seconds(run.config, times)
        epoch = max(checkpoint["epoch_seconds"]) if checkpoint else (whole or 0) / epochs
        if seconds <= 0 or epoch > seconds or run.is_held():
            continue
        if checkpoint and run.id not in failed:
            begun.append(run)
        else:
            (fitting if (whole or 0) <= seconds else partly).append(run)
    return next(iter(begun + fitting + partly), None)


def expected_seconds(config: RunConfig, times: Sequence[dict]) -> float | None:
    """How long a run may take, from the record most like it; None where there is no record.

    Time is taken as proportional to the images that training and evaluation see, and to the
    pixels of the patches visited for an image: the N that selection visits and the M that are
    encoded again, which cost three times as much where they are learned from.
    """
    if not times:
        return None
    flat = config.flat()
    nearest = min(times, key=lambda record: sum(flat[k] != v for k, v in record["config"].items()))
    trained, _ = _work(run_config(nearest["config"]))
    return _STARTING_SECONDS + sum(_work(config)) / trained * nearest["timing"]["training_seconds"]


def _work(config: RunConfig) -> tuple[float, float]:
    """Of training and of evaluation, in pixels."""
    data, epochs, n = config.data, config.training.epochs, config.data.grid.n_patches
    m, n_evaluations = min(config.model.memory_size, n), -(-epochs // config.training.eval_every)
    training = data.n_train * epochs * (n + 3 * m)
    evaluation = data.n_test * n_evaluations * (n + m)
    return training * data.patch_size**2, evaluation * data.patch_size**2


def queued_runs(
    profile: str,
    overrides: Mapping[str, object] | None,
    store: RecordStore,
    category: str | None = None,
    device: str = "cpu",
) -> list[PublishedRun]:
    """The queue, or a category's part of it, each run in the precision that it has been made in or
    will be. But for `paper` they are in miniature: what the profile sets holds for all of them."""
    overrides = dict(overrides or {})
    if profile != "paper":
        small = {name: value for name, value in load_base(profile).items() if value != AUTO}
        overrides = small | _IN_MINIATURE | overrides
    runs = published_runs(profile, overrides, category=category)
    if "precision" in overrides:
        return runs
    return [
        run._replace(config=in_found_precision(run.config, store, device=device)) for run in runs
    ]


def _obtainable(runs: Sequence[PublishedRun]) -> list[PublishedRun]:
    """Those whose pretrained weights, if any, are here or can be downloaded; the rest is named."""
    models = [run.config.model for run in runs]
    files = [weights_file(model.encoder, model.weights) for model in models]
    missing = {each for each in files if each and not each.path.is_file()}
    missing = {each for each in missing if not reachable(each.url)}
    for file in missing:
        print(
            f"{files.count(file)} runs are passed over: {file.path.name} is not in "
            f"{file.path.parent}, and {file.url} does not answer; bring it from there.",
            flush=True,
        )
    return [run for run, file in zip(runs, files, strict=True) if file not in missing]
