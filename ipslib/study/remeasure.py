"""Trained networks measured again, without training: a test-time experiment on records' weights.

Selection has no weights of its own, so a network can be asked what it answers when patches are
selected otherwise than in its training.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError, did_you_mean
from ipslib.model.ips import IPSNet
from ipslib.runs.provenance import run_name
from ipslib.runs.records import RecordStore
from ipslib.training import evaluate

SELECTION_FIELDS = (
    "memory_size",
    "iter_size",
    "shuffle",
    "mask_k",
    "mask_p",
    "mask_variant",
    "mask_in_eval",
)


class TrainedRun(NamedTuple):
    """A record with what it vouches for."""

    record: dict
    network: IPSNet  # in evaluation mode, on the GPU where there is one
    test_set: MegapixelMNIST

    @property
    def batch_size(self) -> int:
        return self.record["config"]["batch_size"]


def trained_runs(store: RecordStore, records: Iterable[Mapping]) -> Iterator[TrainedRun]:
    """The runs whose weights are here; a record that came without them is left out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    test_sets: dict[MegapixelMNISTConfig, MegapixelMNIST] = {}
    for record in records:
        if store.weights_path(record).is_file():
            data = run_config(record["config"]).data
            test_set = test_sets.setdefault(data, MegapixelMNIST(data, "test"))
            yield TrainedRun(record, store.load_network(record).to(device), test_set)


def evaluate_again(
    store: RecordStore, records: Iterable[Mapping], **selection: object
) -> list[dict]:
    """Evaluate trained networks with another selection of patches.

    Args:
        store: where the weights lie.
        records: trained runs. One whose selection is the wanted one already is given back as it
            is; of the others those without weights are left out.
        **selection: fields of RunConfig by which selection alone changes, such as
            `mask_in_eval=True`.

    Returns:
        Records as tables read them, with the changed configuration and what was measured now.
        Their history is that of the training, without its evaluations; they have no best epoch,
        and an id of their own: no run was made.

    Raises:
        IpslibError: for a field that the network's weights depend on, or a bad value.
    """
    for name in selection:
        if name not in SELECTION_FIELDS:
            hint = did_you_mean(name, SELECTION_FIELDS)
            raise IpslibError(f"{name!r} cannot be changed after training{hint}.")
    records, wanted = list(records), {}
    for record in records:
        own = run_config(record["config"])
        config = own.replace(**selection)
        if config != own:
            wanted[record["id"]] = config
    runs = trained_runs(store, [record for record in records if record["id"] in wanted])
    measured = {run.record["id"]: _measured(run, wanted[run.record["id"]]) for run in runs}
    as_wanted = {record["id"]: record for record in records if record["id"] not in wanted}
    found = measured | as_wanted
    return [found[record["id"]] for record in records if record["id"] in found]


def _measured(run: TrainedRun, config: RunConfig) -> dict:
    run.network.config = config.model
    test = evaluate(run.network, run.test_set, run.batch_size)
    result = {
        "accuracy": test.accuracy,
        "best_accuracy": {},
        "attention": test.localisation and test.localisation._asdict(),
    }
    return {
        **run.record,
        "id": f"{run.record['id']} as {config.id}",
        "name": run_name(config),
        "config": config.flat(),
        "history": [row | {"test": None} for row in run.record["history"]],
        "result": run.record["result"] | result,
    }
