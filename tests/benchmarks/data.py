"""Images a second of the generator.

    python -m tests.benchmarks.data [--rounds 15]

The same images, one way after the other in every round, medians over rounds.

- `as asked for`: laid out, and every patch with ink read, as many at a time as selection reads.
- `dense`: drawn whole, object by object, turned to float32 of 0..1 as published, and cut into all
  its patches; `dense, uint8` stays with bytes.
- `stored`: the positions and values of the pixels with ink, compressed, one file an image; read
  back into a whole float32 canvas and cut. The files come from the system's cache, not from a
  disk. `to store` is drawing, compressing and writing.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST, SceneBatch
from ipslib.datasets.megapixel_mnist.digits import find_source
from ipslib.datasets.registry import run_config
from ipslib.patches import cut_image
from ipslib.runtime import keep_freed_memory
from tests.reference import all_known_blank

SETTINGS = ({"canvas": 1500, "n_noise": 50}, {"canvas": 3000, "n_noise": 800})
BATCH_SIZE = 16
READ_SIZE = 80  # patches of 50 px that selection reads and encodes together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    keep_freed_memory()  # as in training
    torch.set_num_threads(1)
    digits = find_source()
    print(
        f"{'setting':<12} {'way':<14} {'ms/image':>9} {'images/s':>9} {'ratio':>6} {'KB/image':>9}"
    )
    for setting in SETTINGS:
        time_drawing(MegapixelMNIST(config({**setting, "digits": digits}).data), arguments.rounds)


def config(setting: dict) -> RunConfig:
    return run_config({"n_train": 100_000, **setting})  # too many for placements to stay


def time_drawing(dataset: MegapixelMNIST, rounds: int) -> None:
    """Print a row for each way."""
    side, n_noise = dataset.config.canvas[0], dataset.config.n_noise
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "as asked for": partial(read_inked, dataset),
            "dense": partial(draw_dense, dataset, dtype=np.float32),
            "dense, uint8": partial(draw_dense, dataset, dtype=np.uint8),
            "stored": partial(load_stored, dataset, Path(folder)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ("to store", *ways)}
        for start in range(0, (rounds + 1) * BATCH_SIZE, BATCH_SIZE):
            indices = range(start, start + BATCH_SIZE)
            store = partial(store_images, dataset, Path(folder))
            for way, work in {"to store": store, **ways}.items():
                seconds[way].append(duration(work, indices))
        sizes = [file.stat().st_size for file in Path(folder).iterdir()]
    medians = {way: 1e3 * np.median(each[1:]) / BATCH_SIZE for way, each in seconds.items()}
    for way in (*ways, "to store"):
        ms = medians[way]
        kilobytes = np.mean(sizes) / 1e3 if way == "stored" else 0
        ratio = f"{ms / medians['as asked for']:.1f}"
        name = f"{side}/{n_noise}"
        print(f"{name:<12} {way:<14} {ms:>9.2f} {1e3 / ms:>9.0f} {ratio:>6} {kilobytes:>9.0f}")


def duration(work: Callable, argument) -> float:
    start = time.perf_counter()
    work(argument)
    return time.perf_counter() - start


def read_inked(dataset: MegapixelMNIST, indices: Iterable[int]) -> SceneBatch:
    batch = dataset.batch(list(indices))
    image, patch = (~all_known_blank(batch)).nonzero(as_tuple=True)
    for chunk in zip(image.split(READ_SIZE), patch.split(READ_SIZE), strict=True):
        batch.read(*chunk)
    return batch


def draw_dense(dataset: MegapixelMNIST, indices: Iterable[int], *, dtype: type) -> None:
    for index in indices:
        canvas = dataset.canvas(index)
        cut_image(canvas if dtype is np.uint8 else canvas.astype(dtype) / 255, dataset.grid)


def store_images(dataset: MegapixelMNIST, folder: Path, indices: Iterable[int]) -> None:
    for index in indices:
        pixels = dataset.canvas(index).ravel()
        inked = np.flatnonzero(pixels).astype(np.int32)
        np.savez_compressed(folder / f"{index}.npz", position=inked, value=pixels[inked])


def load_stored(dataset: MegapixelMNIST, folder: Path, indices: Iterable[int]) -> None:
    for index in indices:
        canvas = np.zeros(dataset.config.canvas, np.float32)
        with np.load(folder / f"{index}.npz") as stored:
            canvas.ravel()[stored["position"]] = stored["value"] / np.float32(255)
        cut_image(canvas, dataset.grid)


if __name__ == "__main__":
    main()
