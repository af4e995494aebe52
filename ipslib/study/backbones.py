"""Backbones: which can be built here, what each of them costs, and how the published ones did."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import attrs
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ipslib.config import ModelConfig, RunConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.encoder import WeightsFile, build_encoder, weights_file
from ipslib.paths import reachable
from ipslib.study.comparisons import Arms
from ipslib.study.published import published_accuracy
from ipslib.study.session import Study


class Obtainable(NamedTuple):
    """The comparisons that can be made here, and one sentence on what was left out, or ''."""

    comparisons: dict[str, Arms]
    left_out: str


class EncoderCost(NamedTuple):
    """What an encoder weighs, and what one patch costs it (a multiply-add is two operations)."""

    parameters: int
    trained: int
    mflop: float


def obtainable(
    study: Study,
    comparisons: Mapping[str, Arms],
    seeds: Sequence[int],
    *,
    pretrained: bool,
    arm_seeds: Mapping[str, Sequence[int]] | None = None,
) -> Obtainable:
    """Leave out the arms whose pretrained weights are not wanted or cannot be had.

    Args:
        study, comparisons, seeds, arm_seeds: as `run_comparisons` takes them. An arm whose runs
            have all been recorded needs no weights; a comparison that has no arm left is dropped.
        pretrained: whether weights are wanted; what is not here is downloaded, and where the
            network does not answer at once the arm is left out.
    """
    had: dict[WeightsFile, bool] = {}
    kept, missing, files = {}, [], []
    for title, arms in comparisons.items():
        there = {}
        for label, fields in arms.items():
            file = weights_file(fields.get("encoder", "resnet18"), fields.get("weights", "none"))
            runs = [study.config(**fields, seed=s) for s in (arm_seeds or {}).get(label, seeds)]
            if file is None or all(study.store.find(run) for run in runs):
                there[label] = fields
                continue
            if file not in had:
                had[file] = pretrained and _obtain(file, fields)
            if had[file]:
                there[label] = fields
            else:
                missing.append(label)
                files.append(file)
        if there:
            kept[title] = there
    return Obtainable(kept, _told(missing, files) if missing else "")


def _obtain(file: WeightsFile, fields: Mapping) -> bool:
    if file.path.is_file():
        return True
    if not reachable(file.url):
        return False
    try:
        build_encoder(ModelConfig(encoder=fields["encoder"], weights=fields["weights"]), 1)
    except (OSError, IpslibError):
        return False
    return True


def _told(labels: Iterable[str], files: Iterable[WeightsFile]) -> str:
    labels, files = list(dict.fromkeys(labels)), list(dict.fromkeys(files))
    folder, source = files[0].path.parent, files[0].url.rsplit("/", 1)[0]
    if folder.is_relative_to(Path.home()):
        folder = Path("~", folder.relative_to(Path.home()))
    return (
        f"Left out for want of ImageNet weights: {'; '.join(labels)} (to have them, set "
        f"`pretrained = True`, which downloads {' and '.join(f.path.name for f in files)} where "
        f"there is a network; without one, first bring that from {source} to {folder})."
    )


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


def published_backbones() -> pd.DataFrame:
    """The published runs of the category, and of the ResNet-18 that every other category used.

    Returns:
        Long form, sorted by `digit_size` and `n_train`, incomplete runs too, with `backbone` in
        words and `effect`: the difference to that ResNet-18, which began with random weights, at
        the same digit size and number of images. Epochs and noise count need not be the same.
    """
    category = published_accuracy("Backbones", incomplete=True)
    cells = {name: category[name].unique().tolist() for name in ("canvas", "digit_size", "n_train")}
    usual = published_accuracy("O2I_datasize", **cells)
    runs = pd.concat([usual, category], ignore_index=True)
    weights = (
        runs["weights"].str.replace("imagenet_v", "ImageNet V").replace("none", "random start")
    )
    frozen = runs["encoder"].map({"resnet18": "", "resnet50": ", frozen"})
    runs["backbone"] = runs["encoder"].str.replace("resnet", "ResNet-") + ", " + weights + frozen
    on = ["digit_size", "n_train", "task"]
    reference = usual.groupby(on, as_index=False)["accuracy"].mean()
    runs = runs.merge(reference.rename(columns={"accuracy": "reference"}), on=on)
    runs["effect"] = (runs["accuracy"] - runs.pop("reference")).mask(runs["weights"] == "none")
    return runs.sort_values(on[:2], kind="stable", ignore_index=True)
