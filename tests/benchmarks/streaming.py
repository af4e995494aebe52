"""Peak memory against the size of an image: what a small one needs must do for one of any size.

    python -m tests.benchmarks.streaming [--largest 30000] [--batch-size 16]

Every number is the peak resident set of a process of its own, which classifies one batch or makes
one training step at the published setting (ResNet-18, M = I = 100, patches of 50 px, as many noise
objects a pixel as 50 on 1500 x 1500). `growth` is against the smallest image of the same kind and
batch size. `imports` is a process that builds the network and stops.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SIDES = (1500, 3000, 6000, 12000)  # px, drawn, at the full batch size
FEATURES = 512
ACTIONS = ("classify", "train")


class Case(NamedTuple):
    """One row of the table."""

    kind: str
    size: int  # side in px, or rows of a bag
    batch_size: int
    path: str = ""

    @property
    def label(self) -> str:
        extent = f"{self.size} x {FEATURES}" if self.kind == "bag" else f"{self.size} x {self.size}"
        return f"{self.kind:<8} {extent:>15} {self.batch_size:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=30_000, help="side in px (default 30000)")
    parser.add_argument("--batch-size", type=int, default=16, help="of the drawn images")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        case, action = arguments.measure
        print(json.dumps(measure(Case(*json.loads(case)), action)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table(cases(Path(folder), arguments.largest, arguments.batch_size))


def cases(folder: Path, largest: int, batch_size: int) -> list[Case]:
    """What is measured, in order: of every kind the smallest first. Files go into the folder."""
    rows = [Case("drawn", side, batch_size) for side in SIDES if side < largest]
    rows += [Case("drawn", side, 1) for side in (SIDES[0], largest)]
    for side in (largest // 10, largest):
        array, tiff = folder / f"{side}.npy", folder / f"{side}.tif"
        write_array(array, side)
        write_tiff(tiff, np.load(array, mmap_mode="r"))
        rows += [Case("memmap", side, 1, str(array)), Case("tiff", side, 1, str(tiff))]
    for n_rows in (25_000, 250_000):
        write_bag(folder / f"{n_rows}.h5", n_rows)
        rows.append(Case("bag", n_rows, 1, str(folder / f"{n_rows}.h5")))
    return sorted(rows, key=lambda row: ("drawn", "memmap", "tiff", "bag").index(row.kind))


def table(rows: list[Case]) -> None:
    idle = run(Case("imports", 0, 0), "classify")
    print(f"imports: {idle['peak_mb']:.0f} MB")
    print(f"{'image':<24} {'batch':>6}", *(f"{a + ', MB':>14} growth      s" for a in ACTIONS))
    smallest: dict[tuple, float] = {}
    for row in rows:
        cells = []
        for action in ACTIONS:
            found = run(row, action)
            least = smallest.setdefault((row.kind, row.batch_size, action), found["peak_mb"])
            growth = f"{found['peak_mb'] / least - 1:+.1%}"
            cells.append(f"{found['peak_mb']:>14.0f} {growth:>6} {found['seconds']:>6.1f}")
        print(row.label, *cells, flush=True)


def run(row: Case, action: str) -> dict:
    """Measure one row in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.streaming"]
    done = subprocess.run(
        [*command, "--measure", json.dumps(row), action],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def measure(row: Case, action: str) -> dict:
    """Peak resident set of this process, in MB, and the seconds that the action took."""
    import time

    import torch

    from ipslib.runs.provenance import peak_memory_mb

    torch.manual_seed(0)
    step = bag_step if row.kind == "bag" else image_step
    start = time.perf_counter()
    if row.kind == "imports":
        published(SIDES[0])
    else:
        step(row, action == "train")
    return {"peak_mb": peak_memory_mb("cpu"), "seconds": time.perf_counter() - start}


def published(side: int):
    """The published network and training settings, and noise in proportion to the area."""
    from ipslib.datasets.megapixel_mnist.digits import find_source
    from ipslib.datasets.registry import run_config
    from ipslib.training import TrainingState

    n_noise = round(50 * (side / SIDES[0]) ** 2)
    config = run_config({"digits": find_source(), "canvas": side, "n_noise": n_noise})
    return config, TrainingState(config)


def image_step(row: Case, train: bool) -> None:
    import torch

    from ipslib.datasets.images.sources import SourceBatch, open_source
    from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
    from ipslib.runtime import keep_freed_memory
    from ipslib.training import forward_step

    if train:
        keep_freed_memory()  # as `train` does

    config, state = published(row.size if row.kind == "drawn" else SIDES[0])
    batch = MegapixelMNIST(config.data, "train").batch(range(row.batch_size))
    if row.kind != "drawn":
        batch = SourceBatch([open_source(row.path, patch_size=50)], labels=batch.labels)
    network = state.network.train(train)
    with torch.set_grad_enabled(train):
        _, losses, _ = forward_step(network, batch, config.training, state.generator)
    if train:
        losses.total.backward()
        state.optimiser.step()


def bag_step(row: Case, train: bool) -> None:
    """Attention pooling of the 100 rows that a linear score keeps."""
    import torch

    from ipslib.datasets.images.sources import SourceBatch, open_source
    from ipslib.selection import attention_scores, select_patches

    batch = SourceBatch([open_source(row.path)])
    score, head = torch.nn.Linear(FEATURES, 8), torch.nn.Linear(FEATURES, 2)
    kept = select_patches(
        batch, lambda x: x, lambda x, index: score(x), memory_size=100, iter_size=100
    ).indices[0]
    with torch.set_grad_enabled(train):
        rows = batch.read(torch.zeros_like(kept), kept)
        weights = attention_scores(score(rows)[None])
        loss = torch.nn.functional.cross_entropy(head(weights @ rows), torch.tensor([1]))
    if train:
        loss.backward()


def write_array(path: Path, side: int) -> None:
    """A black image with a bright spot for every 300 x 300 px, as a sparse file."""
    random = np.random.RandomState(0)
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side))
    for top, left in random.randint(0, side - 28, ((side // 300) ** 2, 2)):
        image[top : top + 28, left : left + 28] = random.randint(0, 256, (28, 28))


def write_tiff(path: Path, image: np.ndarray) -> None:
    """The same image in deflated tiles, every one stored."""
    import tifffile

    side, size = len(image), 256
    corners = range(0, side, size)
    tiles = (image[top : top + size, left : left + size] for top in corners for left in corners)
    padded = (np.pad(tile, [(0, size - n) for n in tile.shape]) for tile in tiles)
    options = {"tile": (size, size), "compression": "zlib", "dtype": np.uint8}
    tifffile.imwrite(path, padded, shape=image.shape, **options)


def write_bag(path: Path, n_rows: int) -> None:
    import h5py

    random = np.random.RandomState(0)
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("features", (n_rows, FEATURES), np.float32)
        for start in range(0, n_rows, 5000):
            rows[start : start + 5000] = random.standard_normal((5000, FEATURES))


if __name__ == "__main__":
    main()
