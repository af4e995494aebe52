"""Peak memory on a bag of features as large as the largest slide's: 250 000 x 2048.

    python -m tests.benchmarks.bags [--rows 250000] [--features 2048] [--memory-size 5000]

Every number is the peak resident set of a process of its own, which classifies the bag or makes
one training step on it, with the published network of feature bags: M = I = 5000, D = 512, two
classes. `in order` visits the rows as they are stored, the others in random order, each row read
by itself. `imports` is a process that builds the network and stops.
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
ACTIONS = ("imports", "classify", "in order", "train")


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

    from ipslib.runs.provenance import peak_memory_mb

    torch.manual_seed(0)
    start = time.perf_counter()
    if case.action == "imports":
        network_of(case)
    else:
        step(case)
    return {"peak_mb": peak_memory_mb("cpu"), "seconds": time.perf_counter() - start}


def network_of(case: Case):
    from ipslib.config import ModelConfig
    from ipslib.model.ips import IPSNet

    config = ModelConfig(
        encoder="features",
        position_encoding=False,
        memory_size=case.memory_size,
        iter_size=case.memory_size,
        shuffle=case.action != "in order",
    )
    return IPSNet(config, {"tumour": 2}, in_channels=case.n_features)


def step(case: Case) -> None:
    import torch

    from ipslib.datasets.slides.bags import BagDataset, SlideBag
    from ipslib.losses import combined_losses

    network = network_of(case).train(case.action == "train")
    batch = BagDataset({"bag": SlideBag(case.path)}, {"bag": 1}).batch([0])
    with torch.set_grad_enabled(network.training):
        output = network(batch, generator=torch.Generator().manual_seed(0))
        losses = combined_losses(output, batch.labels)
    if network.training:
        losses.total.backward()
        torch.optim.AdamW(network.parameters()).step()


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
