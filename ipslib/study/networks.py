"""Networks measured beside their training: asked again with another selection of patches, and
what their encoders cost.

Selection has no weights of its own, so a network can be asked what it answers when patches are
selected otherwise than in its training.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import attrs
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ipslib.config import ModelConfig, RunConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError, did_you_mean
from ipslib.model.encoder import build_encoder, weights_file
from ipslib.model.ips import IPSNet
from ipslib.paths import reachable
from ipslib.runs.provenance import run_name
from ipslib.runs.records import RecordStore
from ipslib.training import evaluate

SELECTION_FIELDS = (
    *("memory_size", "iter_size", "shuffle"),
    *("mask_k", "mask_p", "mask_variant", "mask_in_eval"),
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
        **selection: of SELECTION_FIELDS, such as `mask_in_eval=True`; others are refused.

    Returns:
        Records as tables read them, with the changed configuration and what was measured now.
        Their history is that of the training, without its evaluations; they have no best epoch,
        and an id of their own: no run was made.
    """
    for name in selection:
        if name not in SELECTION_FIELDS:
            hint = did_you_mean(name, SELECTION_FIELDS)
            raise IpslibError(f"{name!r} cannot be changed after training{hint}.")
    records, wanted, found = list(records), {}, {}
    for record in records:
        own = run_config(record["config"])
        wanted[record["id"]] = own.replace(**selection)
        if wanted[record["id"]] == own:
            found[record["id"]] = record
    for run in trained_runs(store, [each for each in records if each["id"] not in found]):
        found[run.record["id"]] = _measured(run, wanted[run.record["id"]])
    return [found[each["id"]] for each in records if each["id"] in found]


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


def obtain_weights(model: ModelConfig) -> bool:
    """Whether an encoder's pretrained weights are here; what is not is downloaded, unless the
    network does not answer at once."""
    file = weights_file(model.encoder, model.weights)
    if file is None or file.path.is_file():
        return True
    if not reachable(file.url):
        return False
    try:
        build_encoder(model, 1)
    except (OSError, IpslibError):
        return False
    return True


def encoder_cost(config: RunConfig) -> dict[str, float]:
    """An encoder's `encoder_parameters`, those that are `trained`, and its `mflop_per_patch` (a
    multiply-add is two operations), counted without its weights."""
    size = config.data.patch_size
    with torch.device("meta"), torch.no_grad():
        encoder = build_encoder(attrs.evolve(config.model, weights="none"), in_channels=1).eval()
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(1, 1, size, size))
    weights = list(encoder.parameters())
    return {
        "encoder_parameters": sum(each.numel() for each in weights),
        "trained": sum(each.numel() for each in weights if each.requires_grad),
        "mflop_per_patch": counter.get_total_flops() / 1e6,
    }


def cost_table(frame: pd.DataFrame, records: Iterable[Mapping]) -> pd.DataFrame:
    """What each arm of a long form costs, a row an arm in their order: `embedding` D, the columns
    of `encoder_cost`, means over seeds of the `minutes` of training and of the `peak_mb` of memory
    that the runs' `records` have, and the `device`."""
    by_id, rows = {record["id"]: record for record in records}, []
    for arm, ids in frame.groupby("arm", sort=False)["id"].unique().items():
        runs = [by_id[run_id] for run_id in ids]
        config, times = run_config(runs[0]["config"]), pd.DataFrame([r["timing"] for r in runs])
        row = {"arm": arm, "embedding": config.model.embedding_dim} | encoder_cost(config)
        row["minutes"] = times["training_seconds"].mean() / 60
        row["peak_mb"] = round(times["peak_memory_mb"].mean())
        row["device"] = "; ".join(sorted({run["provenance"]["device"] for run in runs}))
        rows.append(row)
    return pd.DataFrame(rows)
