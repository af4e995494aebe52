"""What an encoder needs, and what it costs."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import attrs
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ipslib.config import ModelConfig, RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.encoder import build_encoder, weights_file
from ipslib.paths import reachable


class EncoderCost(NamedTuple):
    """What an encoder weighs, and what one patch costs it (a multiply-add is two operations)."""

    parameters: int
    trained: int
    mflop: float


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


def encoder_cost(config: RunConfig) -> EncoderCost:
    """Count the encoder's parameters, and its operations for one patch, without its weights."""
    blueprint = attrs.evolve(config.model, weights="none")
    size = config.data.patch_size
    with torch.device("meta"), torch.no_grad():
        encoder = build_encoder(blueprint, in_channels=1).eval()
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(1, 1, size, size))
    weights = list(encoder.parameters())
    return EncoderCost(
        parameters=sum(each.numel() for each in weights),
        trained=sum(each.numel() for each in weights if each.requires_grad),
        mflop=counter.get_total_flops() / 1e6,
    )


def cost_table(frame: pd.DataFrame, records: Iterable[Mapping]) -> pd.DataFrame:
    """What each arm costs, in the order of the arms.

    Args:
        frame: a long form of runs with a column `arm`.
        records: of the same runs.

    Returns:
        A row an arm: `embedding` D, `encoder_parameters`, `trained` of them, `mflop_per_patch`,
        means over seeds of the `minutes` of training and of the `peak_mb` of memory that the
        runs' records have, and the `device`.
    """
    by_id = {record["id"]: record for record in records}
    rows = []
    for arm, ids in frame.groupby("arm", sort=False)["id"].unique().items():
        runs = [by_id[run_id] for run_id in ids]
        config = run_config(runs[0]["config"])
        cost, times = encoder_cost(config), pd.DataFrame([run["timing"] for run in runs])
        rows.append(
            {
                "arm": arm,
                "embedding": config.model.embedding_dim,
                "encoder_parameters": cost.parameters,
                "trained": cost.trained,
                "mflop_per_patch": cost.mflop,
                "minutes": times["training_seconds"].mean() / 60,
                "peak_mb": round(times["peak_memory_mb"].mean()),
                "device": "; ".join(sorted({run["provenance"]["device"] for run in runs})),
            }
        )
    return pd.DataFrame(rows)
