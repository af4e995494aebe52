"""Images a second of the generator, and whether preparation hides behind a training step.

    python -m tests.benchmarks.data [--rounds 15] [--threads 1]

First table: the same images, one way after the other in every round, medians over rounds.

- `as asked for`: laid out, and every patch with ink read, as many at a time as selection reads.
- `dense`: drawn whole, object by object, turned to float32 of 0..1 as published, and cut into all
  its patches; `dense, uint8` stays with bytes.
- `stored`: the positions and values of the pixels with ink, compressed, one file an image; read
  back into a whole float32 canvas and cut. The files come from the system's cache, not from a
  disk. `to store` is drawing, compressing and writing.

Second table: steps of a small network (the quick study's), with a preparation for each that weighs
as much as that of 16 images of 3000 px: their layout, which is what training prepares, or also
reading all their patches with ink. It runs between the steps (`in turn`) or in a background thread
during them (`prefetched`). `waited` is what a step stood still for its batch, `over alone` what it
took longer in all than with batches that lie ready.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST, SceneBatch
from ipslib.datasets.megapixel_mnist.digits import find_source
from ipslib.datasets.registry import run_config
from ipslib.patches import cut_image
from ipslib.runtime import keep_freed_memory, prefetched
from ipslib.training import TrainingState, forward_step

SETTINGS = ({"canvas": 1500, "n_noise": 50}, {"canvas": 3000, "n_noise": 800})
BATCH_SIZE = 16
READ_SIZE = 80  # patches of 50 px that selection reads and encodes together
STEPS = 8  # of training in a round
SMALL = {
    "canvas": 384, "patch_size": 24, "n_noise": 4, "n_patterns": 400, "width": 0.25, "n_heads": 4,
    "memory_size": 10, "iter_size": 64, "batch_size": 8, "position_encoding": False,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch, a step")
    arguments = parser.parse_args()
    keep_freed_memory()  # as in training
    torch.set_num_threads(1)
    digits = find_source()
    print(
        f"{'setting':<12} {'way':<14} {'ms/image':>9} {'images/s':>9} {'ratio':>6} {'KB/image':>9}"
    )
    for setting in SETTINGS:
        time_drawing(MegapixelMNIST(config({**setting, "digits": digits}).data), arguments.rounds)
    print(f"\n{'threads':>7} {'preparation':<20} {'ms/step':>8} {'waited':>8} {'over alone':>11}")
    for threads in arguments.threads:
        time_hiding(digits, threads=threads, rounds=arguments.rounds)


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
    image, patch = (~batch.blank).nonzero(as_tuple=True)
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


def time_hiding(digits: str, *, threads: int, rounds: int) -> None:
    """Print a row for each preparation and each way to come by it."""
    torch.set_num_threads(threads)
    run = config({**SMALL, "digits": digits})
    large = MegapixelMNIST(config({**SETTINGS[1], "digits": digits}).data)
    small, state = MegapixelMNIST(run.data), TrainingState(run)

    def small_batch(start: int) -> SceneBatch:
        return small.batch(range(start, start + run.training.batch_size))

    def after(prepare: Callable, start: int) -> SceneBatch:
        prepare(range(start, start + BATCH_SIZE))
        return small_batch(start)

    ways = {"nothing, alone": lambda starts: iter([small_batch(start) for start in starts])}
    for name, prepare in {"layout": large.batch, "all": partial(read_inked, large)}.items():
        ways[f"{name}, in turn"] = partial(map, partial(after, prepare))
        ways[f"{name}, prefetched"] = partial(prefetched, partial(after, prepare))
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    images = (STEPS + 1) * BATCH_SIZE  # a round
    for start in range(0, (rounds + 1) * images, images):
        for way, batches in ways.items():
            source = batches(range(start, start + images, BATCH_SIZE))
            found[way].append(train_on(source, state, run))
    medians = {way: 1e3 * np.median(each[1:], axis=0) for way, each in found.items()}
    for way, (step, waited) in medians.items():
        over = step - medians["nothing, alone"][0]
        print(f"{threads:>7} {way:<20} {step:>8.1f} {waited:>8.2f} {over:>11.1f}")


def train_on(
    batches: Iterator[SceneBatch], state: TrainingState, run: RunConfig
) -> tuple[float, float]:
    """Seconds from one step to the next, and of them those of waiting for the next batch; the
    wait for the first batch, which nothing can hide, is not counted."""
    batch, waited, start = next(batches), 0.0, time.perf_counter()
    for _ in range(STEPS):
        _, losses, _ = forward_step(state.network.train(), batch, run.training, state.generator)
        state.optimiser.zero_grad()
        losses.total.backward()
        state.optimiser.step()
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
    return (time.perf_counter() - start) / STEPS, waited / STEPS


if __name__ == "__main__":
    main()
