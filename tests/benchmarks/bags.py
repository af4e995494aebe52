"""Peak memory on a bag of features as large as the largest slide's: 250 000 x 2048.

    python -m tests.benchmarks.bags [--rows 250000] [--features 2048] [--memory-size 5000]

Every number is the peak resident set of a process of its own, which classifies the bag or makes
one training step on it: iterative selection with M = I = 5000 over a projection of the features
(layer norm, linear, batch norm, ReLU), cross-attention pooling of the kept ones, two classes.
`shuffle` classifies too, visiting the patches in random order: each row is then read by itself.
`imports` is a process that builds the network and stops.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 3000
ACTIONS = ("imports", "classify", "shuffle", "train")
DIM, N_HEADS = 512, 8


class Case(NamedTuple):
    """What a process does."""

    action: str
    path: str
    memory_size: int
    n_features: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--memory-size", type=int, default=5000, help="M = I")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Case(*json.loads(arguments.measure)))))
        return 0
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bag.h5")
        write_bag(path, arguments.rows, arguments.features)
        print(f"bag: {arguments.rows} x {arguments.features}, {path.stat().st_size / 1e6:.0f} MB")
        for action in ACTIONS:
            found = run(Case(action, str(path), arguments.memory_size, arguments.features))
            peaks.append(found["peak_mb"])
            print(
                f"{action:<10} {found['peak_mb']:>8.0f} MB {found['seconds']:>7.1f} s", flush=True
            )
    is_small = max(peaks) < LIMIT_MB
    print(f"bar: {LIMIT_MB} MB, {'met' if is_small else 'missed'}")
    return int(not is_small)


def run(case: Case) -> dict:
    """Measure one case in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.bags", "--measure", json.dumps(case)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(case: Case) -> dict:
    """Peak resident set of this process, in MB, and the seconds that the action took."""
    import torch

    from ipslib.study.memory import peak_memory_mb

    torch.manual_seed(0)
    network = Network(case.n_features)
    start = time.perf_counter()
    if case.action != "imports":
        step(network.parts, case)
    return {"peak_mb": peak_memory_mb("cpu"), "seconds": time.perf_counter() - start}


class Network:
    """The projection of features, the pooling and the head."""

    def __init__(self, n_features: int):
        from torch import nn

        from ipslib.model.pooling import CrossAttentionPool

        encoder = nn.Sequential(
            nn.LayerNorm(n_features, elementwise_affine=False),
            nn.Linear(n_features, DIM),
            nn.BatchNorm1d(DIM),
            nn.ReLU(),
        )
        pool = CrossAttentionPool(DIM, 1, N_HEADS, dropout=0.1, attn_dropout=0.1)
        self.parts = nn.ModuleDict({"encoder": encoder, "pool": pool, "head": nn.Linear(DIM, 2)})


def step(parts, case: Case) -> None:
    import torch

    from ipslib.selection import select_patches
    from ipslib.slides.bags import BagDataset, SlideBag

    dataset = BagDataset({"bag": SlideBag(case.path)}, {"bag": 1})
    whole = dataset.batch([0])
    [batch] = whole.parts
    parts.eval()
    score_map = parts["pool"].score_map().detach()
    kept = select_patches(
        batch,
        parts["encoder"],
        lambda embeddings, index: embeddings @ score_map,
        memory_size=case.memory_size,
        iter_size=case.memory_size,
        order=torch.randperm(batch.n_patches) if case.action == "shuffle" else None,
    ).indices
    parts.train(case.action == "train")
    with torch.set_grad_enabled(case.action == "train"):
        rows = batch.read(torch.zeros_like(kept[0]), kept[0])
        tokens = parts["pool"](parts["encoder"](rows)[None]).tokens[:, 0]
        labels = whole.labels[dataset.task]
        loss = torch.nn.functional.cross_entropy(parts["head"](tokens), labels)
    if case.action == "train":
        loss.backward()
        torch.optim.AdamW(parts.parameters()).step()


def write_bag(path: Path, n_rows: int, n_features: int) -> None:
    import h5py

    random = np.random.Generator(np.random.PCG64(0))
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("features", (n_rows, n_features), np.float32)
        for start in range(0, n_rows, 5000):
            stop = min(start + 5000, n_rows)
            rows[start:stop] = random.standard_normal((stop - start, n_features), np.float32)


if __name__ == "__main__":
    sys.exit(main())
