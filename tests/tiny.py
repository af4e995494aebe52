"""The smallest run that is a real one, for tests of what happens to runs: about a second. And
what must be the same of two that ought to be equal."""

import json
from pathlib import Path

import numpy as np
import torch

from ipslib.config import RunConfig
from ipslib.datasets.registry import run_config
from ipslib.runs.records import RecordStore

TINY = run_config(
    {
        "digits": "embedded", "canvas": 84, "patch_size": 28, "n_noise": 1, "n_train": 8,
        "n_test": 4, "width": 0.125, "n_heads": 4, "memory_size": 3, "iter_size": 3, "epochs": 2,
        "batch_size": 4, "warmup_epochs": 1,
    }
)  # fmt: skip


def names(store: RecordStore) -> list[str]:
    """The files of runs, without locks."""
    return sorted(path.name for path in store.folder.iterdir() if path.name != ".locks")


def lasting(record: dict) -> str:
    """What every repetition of a run writes into its record."""
    return json.dumps({k: v for k, v in record.items() if k not in ("provenance", "timing")})


def what_came_out(store: RecordStore, config: RunConfig) -> tuple[str, dict]:
    """Of a record and its weights, what must be the same bit for bit."""
    record = store.find(config)
    weights = torch.load(store.weights_path(record), weights_only=True)
    return lasting(record), {name: value.tolist() for name, value in weights.items()}


def write_mnist(root: Path) -> Path:
    """MNIST's four files, of 50 made-up images a split."""
    raw, labels = root / "MNIST" / "raw", np.arange(50) % 10
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28))
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind, magic, values in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *values.shape], ">i4").tobytes()
            (raw / f"{split}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    return raw
