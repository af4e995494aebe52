"""Runs on a running Dask cluster: one run a slot, dead workers replaced by the living.

Workers need this project installed and the same outputs folder. A worker that was started with
`--resources GPU=1` takes one run at a time on its GPU; dask-jobqueue starts such workers under
SLURM and other schedulers (see params/cluster_example.py).
"""

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Lock
from uuid import uuid4

import torch

from ipslib.config import RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.runs.one_run import Report, RunFailed
from ipslib.runs.pool import Ended, attempt, threads_of
from ipslib.runs.records import RecordStore
from ipslib.runs.schedule import Way

SLOT = "GPU"
_PATIENCE_S = 20
_LOOK_S = 2  # how often new workers are looked for
_one_at_a_time = Lock()  # a worker's threads share torch's random state: two runs would mix theirs


def cluster_way(address: str) -> Way:
    """Have runs done by the workers of the Dask scheduler at `address`, as in tcp://host:8786.

    Raises:
        IpslibError: where dask.distributed is not installed; on use, where no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise IpslibError(
            "--scheduler needs dask.distributed: pip install 'ipslib[cluster]'."
        ) from error

    def way(configs: Sequence[RunConfig], store: RecordStore, report: Report) -> Ended:
        for name in ("distributed", "distributed.client"):  # it tells at length what we say in one
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            client = Client(address, timeout=_PATIENCE_S)
        except (OSError, ValueError) as error:
            raise IpslibError(
                f"no Dask scheduler answers at {address} within {_PATIENCE_S} s; start one with "
                "`dask scheduler` and workers with `dask worker`."
            ) from error
        with client:
            yield from _on_cluster(client, configs, store, report)

    return way


def _on_cluster(client, configs: Sequence[RunConfig], store: RecordStore, report: Report) -> Ended:
    """As many runs at a time as there are slots: a worker that dies takes no waiting run along,
    and one that comes late finds work."""
    waiting, futures = deque(configs), {}
    topic, folder = f"ipslib-{uuid4()}", str(store.folder.resolve())
    client.subscribe_topic(topic, lambda event: report(event[1]))  # (time, what was logged)
    try:
        while waiting or futures:
            n_slots, resources = _slots(client)
            while waiting and len(futures) < n_slots:
                task = (_work, waiting[0].flat(), folder, topic)
                future = client.submit(*task, pure=False, resources=resources)
                futures[future] = waiting.popleft()
            for future in _some_done(list(futures)):
                yield futures.pop(future), _result(future)
    except (OSError, CancelledError) as error:
        raise IpslibError(
            "the Dask scheduler is gone; finished runs are kept, the same command goes on."
        ) from error
    finally:
        client.cancel(list(futures))


def _slots(client) -> tuple[int, dict | None]:
    """How many runs the workers can take, and what a run asks of its worker."""
    workers = client.scheduler_info()["workers"].values()
    on_gpus = sum(SLOT in worker["resources"] for worker in workers)
    return (on_gpus, {SLOT: 1}) if on_gpus else (len(workers), None)


def _some_done(futures: list) -> Iterable:
    from distributed import wait

    if not futures:  # no worker is there: the first may be hours in a queue
        time.sleep(_LOOK_S)
        return ()
    try:
        return wait(futures, timeout=_LOOK_S, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return ()


def _result(future) -> dict | RunFailed:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return RunFailed("killed", "every worker that took this run died, perhaps out of memory.")
    except CancelledError:
        raise
    except Exception as error:  # such as a worker without ipslib
        return RunFailed("error", f"on the worker: {type(error).__name__}: {error}")


def _work(values: dict, folder: str, topic: str) -> dict | RunFailed:
    """On a worker: train one run."""
    from distributed import get_worker

    worker, device = get_worker(), "cuda" if torch.cuda.is_available() else "cpu"
    config, store = run_config(values), RecordStore(Path(folder))
    with _one_at_a_time, threads_of(config, device):
        return attempt(config, store, device, lambda event: worker.log_event(topic, event))
