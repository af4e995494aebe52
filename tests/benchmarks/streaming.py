"""Peak memory against the size of an image: what a small one needs must do for one of any size.

    python -m tests.benchmarks.streaming [--kinds drawn memmap tiff bag] [--largest 30000]
                                         [--batch-size 16] [--features 512] [--encoder NAME]

Every number is the peak resident set of a process of its own, which classifies one batch or makes
one training step. Images are at the published setting (ResNet-18 or another encoder, M = I = 100,
patches of 50 px, as many noise objects a pixel as 50 on 1500 x 1500), drawn or in a file; bags
have 25 000 and 250 000 rows of features and the published network of bags (M = I = 5000). The
largest slides want `--kinds bag --features 2048`, in at most 3000 MB. `growth` is against the
smallest of the same kind and batch size. `imports` is a process that builds the network and stops.
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
SIDES = (1500, 3000, 6000, 12000)  # px, drawn, at the full batch size
ROWS = (25_000, 250_000)
KINDS = ("drawn", "memmap", "tiff", "bag")
ACTIONS = ("classify", "train")


class Case(NamedTuple):
    """One row of the table."""

    kind: str
    size: int  # side in px, or rows of a bag
    batch_size: int
    path: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--largest", type=int, default=30_000, help="side in px (default 30000)")
    parser.add_argument("--batch-size", type=int, default=16, help="of the drawn images")
    parser.add_argument("--features", type=int, default=512, help="of a row of a bag")
    parser.add_argument("--encoder", default="resnet18", help="of images, such as torchvision/NAME")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        case, action = arguments.measure
        print(json.dumps(measure(Case(*json.loads(case)), action, arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table(cases(Path(folder), arguments))


def cases(folder: Path, arguments: argparse.Namespace) -> list[Case]:
    """What is measured, in order: of every kind the smallest first. Files go into the folder."""
    kinds, largest = arguments.kinds, arguments.largest
    rows = []
    if "drawn" in kinds:
        rows += [Case("drawn", side, arguments.batch_size) for side in SIDES if side <= largest]
        rows += [Case("drawn", side, 1) for side in (SIDES[0], largest)]
        rows = list(dict.fromkeys(rows))
    for kind in {"memmap", "tiff"} & set(kinds):
        for side in (largest // 10, largest):
            path = folder / f"{side}.npy"
            write_array(path, side)
            if kind == "tiff":
                path = write_tiff(path.with_suffix(".tif"), np.load(path, mmap_mode="r"))
            rows.append(Case(kind, side, 1, str(path)))
    if "bag" in kinds:
        for n_rows in ROWS:
            path = write_bag(folder / f"{n_rows}.h5", n_rows, arguments.features)
            rows.append(Case("bag", n_rows, 1, str(path)))
    return rows


def table(rows: list[Case]) -> None:
    idle = run(Case("imports", 0, 0), "classify")
    print(f"imports: {idle['peak_mb']:.0f} MB")
    heads = (f"{action + ', MB':>14} growth      s" for action in ACTIONS)
    print(f"{'kind':<8} {'size':>8} {'batch':>6}", *heads)
    smallest: dict[tuple, float] = {}
    for row in rows:
        cells = []
        for action in ACTIONS:
            found = run(row, action)
            least = smallest.setdefault((row.kind, row.batch_size, action), found["peak_mb"])
            growth = f"{found['peak_mb'] / least - 1:+.1%}"
            cells.append(f"{found['peak_mb']:>14.0f} {growth:>6} {found['seconds']:>6.1f}")
        print(f"{row.kind:<8} {row.size:>8} {row.batch_size:>6}", *cells, flush=True)


def run(row: Case, action: str) -> dict:
    """Measure one row in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.streaming", *sys.argv[1:]]
    done = subprocess.run(
        [*command, "--measure", json.dumps(row), action],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def measure(row: Case, action: str, arguments: argparse.Namespace) -> dict:
    """Peak resident set of this process, in MB, and the seconds that the action took."""
    import torch

    from ipslib.runs.provenance import peak_memory_mb
    from ipslib.runtime import keep_freed_memory
    from ipslib.training import TrainingState, forward_step

    start = time.perf_counter()
    config, open_batch = published(row, arguments)
    state = TrainingState(config)
    if row.kind != "imports":
        if action == "train":
            keep_freed_memory()  # as `train` does
        batch = open_batch()
        network = state.network.train(action == "train")
        with torch.set_grad_enabled(network.training):
            _, losses, _ = forward_step(network, batch, config.training, state.generator)
        if network.training:
            losses.total.backward()
            state.optimiser.step()
    return {"peak_mb": peak_memory_mb("cpu"), "seconds": time.perf_counter() - start}


def published(row: Case, arguments: argparse.Namespace):
    """The published network and training settings, with noise in proportion to the area; and what
    opens the batch."""
    from ipslib.datasets.images.sources import SourceBatch, open_source
    from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
    from ipslib.datasets.megapixel_mnist.digits import find_source
    from ipslib.datasets.registry import run_config
    from ipslib.datasets.slides.bags import BagDataset, SlideBag

    if row.kind == "bag":
        sizes = {"memory_size": 5000, "iter_size": 5000, "position_encoding": False}
        made_of = {"bags": row.path, "bags_sha256": "0" * 64, "in_channels": arguments.features}
        config = run_config({"dataset": "slides", "encoder": "features"} | sizes | made_of)
        return config, lambda: BagDataset({"bag": SlideBag(row.path)}, {"bag": 1}).batch([0])
    side = row.size if row.kind == "drawn" else SIDES[0]
    n_noise = round(50 * (side / SIDES[0]) ** 2)
    setting = {"digits": find_source(), "canvas": side, "n_noise": n_noise}
    config = run_config(setting | {"encoder": arguments.encoder})
    dataset = MegapixelMNIST(config.data, "train")
    if row.kind == "drawn":
        return config, lambda: dataset.batch(range(row.batch_size))
    labels = dataset.batch([0]).labels
    return config, lambda: SourceBatch([open_source(row.path, patch_size=50)], labels=labels)


def write_array(path: Path, side: int) -> None:
    """A black image with a bright spot for every 300 x 300 px, as a sparse file."""
    random = np.random.RandomState(0)
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side))
    for top, left in random.randint(0, side - 28, ((side // 300) ** 2, 2)):
        image[top : top + 28, left : left + 28] = random.randint(0, 256, (28, 28))


def write_tiff(path: Path, image: np.ndarray) -> Path:
    """The same image in deflated tiles, every one stored."""
    import tifffile

    side, size = len(image), 256
    corners = range(0, side, size)
    tiles = (image[top : top + size, left : left + size] for top in corners for left in corners)
    padded = (np.pad(tile, [(0, size - n) for n in tile.shape]) for tile in tiles)
    options = {"tile": (size, size), "compression": "zlib", "dtype": np.uint8}
    tifffile.imwrite(path, padded, shape=image.shape, **options)
    return path


def write_bag(path: Path, n_rows: int, n_features: int) -> Path:
    import h5py

    random = np.random.Generator(np.random.PCG64(0))
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("features", (n_rows, n_features), np.float32)
        for start in range(0, n_rows, 5000):
            rows[start : start + 5000] = random.standard_normal((5000, n_features), np.float32)
    return path


if __name__ == "__main__":
    main()
