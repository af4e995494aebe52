"""The published runs as a queue: the most valuable missing ones first, for the minutes there are.

Order: the 16 runs of the O2I figure, then one run of every published setting category by
category, then the further seeds.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch

from ipslib.config import RunConfig
from ipslib.study.layout import Layout
from ipslib.study.one_run import OutOfTime, RunFailed, failure_record, train_and_record
from ipslib.study.pool import one_thread
from ipslib.study.profiles import base_config
from ipslib.study.published import load_published
from ipslib.study.records import RecordStore

CATEGORIES = (
    "O2I_datasize",
    "Semantic_Diversity_Regularisation",
    "Attention_Masking",
    "Dataset_Size",
    "Noise_Size",
    "Digit_Thickness",
    "Backbones",
    "Patch_Size",
    "Noise_Generator",
)
_STARTING_SECONDS = 20.0  # a run's digits, noise and network before its first step


class PublishedRun(NamedTuple):
    """A published run of the study's naming as one of ours."""

    category: str
    name: str
    config: RunConfig


def published_runs(profile: str = "paper") -> list[PublishedRun]:
    """The queue: every published Megapixel MNIST run, each setting and seed once, in order."""
    table = load_published()
    rows = [row for category in CATEGORIES for _, row in _of(table, category).iterrows()]
    distinct: dict[str, PublishedRun] = {}
    for row in rows:
        config = base_config(profile, _fields(row))
        distinct.setdefault(config.id, PublishedRun(row["category"], row["name"], config))
    runs = list(distinct.values())
    figure = [run for run in runs if _in_o2i_figure(run)]
    rest = [run for run in runs if run not in figure]
    first, further, seen = [], [], set()
    for run in rest:
        setting = run.config.replace(seed=0).id
        (further if setting in seen else first).append(run)
        seen.add(setting)
    return figure + first + further


def list_queue(profile: str) -> int:
    """Print the queue in its order, and which runs have a record."""
    store = RecordStore(Layout.of(profile).records)
    for run in published_runs(profile):
        state = "done" if store.find(run.config) else "    "
        print(f"{state} {run.category:<34} {run.name}")
    return 0


def work_queue(profile: str, minutes: float) -> int:
    """Train missing published runs until the minutes are over; return the exit status.

    A run that learned run times say will not fit is passed over for a later one that does; where
    none fits, the first is begun and checkpointed, to be gone on with next time.
    """
    deadline = time.monotonic() + 60 * minutes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = RecordStore(Layout.of(profile).records)
    runs, failed = published_runs(profile), set()
    while time.monotonic() < deadline:
        missing = [r for r in runs if r.config.id not in failed and not store.find(r.config)]
        print(f"published runs regenerated: {len(runs) - len(missing)} of {len(runs)}", flush=True)
        if not missing:
            break
        run = _next(missing, store, deadline - time.monotonic())
        try:
            with one_thread(device):
                record = train_and_record(run.config, store, device=device, deadline=deadline)
            accuracy = 100 * record["result"]["accuracy"]["majority"]
            print(f"{run.category}: {run.name}: majority {accuracy:.1f} %", flush=True)
        except OutOfTime as pause:
            print(pause, flush=True)
            break
        except RunFailed as failure:
            failed.add(run.config.id)
            store.save_failure(failure_record(run.config, failure))
            print(f"{run.name}: {failure.reason}: {failure}", flush=True)
    return int(bool(failed))


def expected_seconds(config: RunConfig, records: Sequence[dict]) -> float | None:
    """How long a run may take, from the record most like it; None where there is no record.

    Time is taken as proportional to epochs, to training images, and to the patches of a step:
    the N that selection visits and the M that are trained, which cost three times as much.
    """
    if not records:
        return None
    nearest = min(records, key=lambda record: _unlike(config, record["config"]))
    then = RunConfig.from_flat(nearest["config"])
    ratio = _work_of(config) / _work_of(then)
    return _STARTING_SECONDS + ratio * nearest["timing"]["training_seconds"]


def _next(missing: Sequence[PublishedRun], store: RecordStore, seconds: float) -> PublishedRun:
    records = list(store.all())
    for run in missing:
        expected = expected_seconds(run.config, records)
        if store.load_checkpoint(run.config) or expected is None or expected <= seconds:
            return run
    return missing[0]


def _work_of(config: RunConfig) -> float:
    data, model = config.data, config.model
    patches = data.grid.n_patches + 3 * min(model.memory_size, data.grid.n_patches)
    return data.n_train * config.training.epochs * patches * data.patch_size**2


def _unlike(config: RunConfig, other: dict) -> int:
    return sum(config.flat()[name] != value for name, value in other.items())


def _in_o2i_figure(run: PublishedRun) -> bool:
    return run.category == "O2I_datasize" and run.config.data.canvas == (3000, 3000)


def _of(table: pd.DataFrame, category: str) -> pd.DataFrame:
    rows = table[(table["category"] == category) & table["digit_size"].notna()]
    if category == "O2I_datasize":  # the figure's canvas first
        rows = rows.sort_values("canvas", ascending=False, kind="stable")
    return rows[rows["n_train"].notna()]


def _fields(row: pd.Series) -> dict[str, object]:
    """A published row's settings; what it does not state is as in the study's description."""
    stated = {
        name: row[name]
        for name in ("digit_size", "canvas", "n_train", "patch_size", "memory_size", "mask_k")
        if pd.notna(row[name])
    }
    fields: dict[str, object] = {name: int(value) for name, value in stated.items()}
    fields["n_noise"] = int(row["n_noise"]) if pd.notna(row["n_noise"]) else 50
    fields |= {"mask_p": float(row["mask_p"]), "seed": int(row["seed"]) if row["seed"] > 0 else 0}
    fields["mask_in_eval"] = fields.get("mask_k", 0) > 0  # as published
    if row["noise"] == "line":
        fields["noise"] = "line"
    if pd.notna(row["stroke_width"]):
        fields["stroke_width"] = float(row["stroke_width"])
    if row["diversity_weight"] > 0:
        fields |= {"semantic_weight": 1.0, "diversity_weight": float(row["diversity_weight"])}
        fields["diversity_on"] = "outputs"  # as published
    oldest = row["category"] in ("Attention_Masking", "O2I_datasize") and row["n_train"] == 5000
    if row["category"] == "Digit_Thickness":
        fields["epochs"] = 50
    elif oldest and row["canvas"] == 1500:
        fields["epochs"] = 150
    if row["encoder"] == "resnet50" or row["weights"] != "none":
        fields |= {"encoder": row["encoder"], "weights": row["weights"]}
        fields["frozen"] = row["encoder"] == "resnet50"
    return fields

