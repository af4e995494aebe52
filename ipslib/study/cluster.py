"""Runs on a running Dask cluster: one run a slot, dead workers replaced by the living.

Workers need this project installed and the same outputs folder. A worker that was started with
`--resources GPU=1` takes one run at a time on its GPU; dask-jobqueue starts such workers under
SLURM and other schedulers (see params/cluster_example.py).
"""

import logging
from collections.abc import Sequence

import torch

from ipslib.config import RunConfig
from ipslib.errors import IpslibError
from ipslib.study.one_run import Report, RunFailed
from ipslib.study.pool import Ended, attempt, one_thread
from ipslib.study.records import RecordStore
from ipslib.study.runs import Way

SLOT = "GPU"
_PATIENCE_S = 20


def cluster_way(address: str) -> Way:
    """Have runs done by the workers of the Dask scheduler at `address`, as in tcp://host:8786.

    Raises:
        IpslibError: where dask.distributed is not installed or the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise IpslibError(
            "--scheduler needs dask.distributed: pip install 'ipslib[cluster]'."
        ) from error

    def way(configs: Sequence[RunConfig], store: RecordStore, report: Report) -> Ended:
        try:
            client = Client(address, timeout=_PATIENCE_S)
        except OSError as error:
            raise IpslibError(
                f"no Dask scheduler answers at {address} within {_PATIENCE_S} s; start one with "
                "`dask scheduler` and workers with `dask worker`."
            ) from error
        with client:
            yield from _on_cluster(client, configs, store, report)

    return way


def _on_cluster(client, configs: Sequence[RunConfig], store: RecordStore, report: Report) -> Ended:
    from distributed import KilledWorker, as_completed

    # Dask tells a worker's death by itself; its log lines would only repeat it.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    has_slots = any(SLOT in w["resources"] for w in client.scheduler_info()["workers"].values())
    futures = {
        client.submit(
            _work,
            config.flat(),
            str(store.folder.resolve()),
            pure=False,
            resources={SLOT: 1} if has_slots else None,
        ): config
        for config in configs
    }
    try:
        for future in as_completed(futures):
            config = futures[future]
            try:
                ended = future.result()
            except KilledWorker:
                ended = RunFailed("killed", "every worker that took this run died.")
            if isinstance(ended, dict):
                epochs = {"epoch": config.training.epochs, "epochs": config.training.epochs}
                report({"event": "epoch", "id": config.id, "run": ended["name"]} | epochs)
            yield config, ended
    finally:
        client.cancel(list(futures))


def _work(values: dict, folder: str) -> dict | RunFailed:
    from pathlib import Path

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with one_thread(device):
        config, store = RunConfig.from_flat(values), RecordStore(Path(folder))
        return attempt(config, store, device, lambda event: None)
