"""Kill a small run at random moments until it is done, many times over, and compare the records.

    python tests/stress_kills.py [--runs 20] [--kills 10] [--seed 0]

Every attempt is a process of its own that is killed with SIGKILL after a random time; some see
several epochs, some see none. After `--kills` of them a run is left to end. Its checkpoints are
written after every epoch. It is right when its record is bitwise that of a run that nobody killed
(all but `provenance` and `timing`), its weights too, and its folder holds the two files of a
record and the locks, nothing else. The exit status is 0 when every run is right.
"""

import argparse
import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from ipslib.datasets.registry import run_config
from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore

CONFIG = run_config(
    {
        "digits": "embedded",
        "canvas": 84,
        "patch_size": 28,
        "n_noise": 3,
        "n_train": 12,
        "n_test": 6,
        "width": 0.125,
        "n_heads": 4,
        "memory_size": 3,
        "iter_size": 2,
        "mask_k": 2,
        "mask_p": 0.5,
        "semantic_weight": 1.0,
        "diversity_weight": 2.0,
        "epochs": 10,
        "batch_size": 4,
        "warmup_epochs": 2,
    }
)


def train_in(folder: Path) -> None:
    torch.set_num_threads(1)
    train_and_record(CONFIG, RecordStore(folder), checkpoint_seconds=0)


def attempt(folder: Path, seconds: float | None) -> bool:
    """Train in a process; whether it ended by itself before it was killed."""
    # Forked from a process that has imported everything and trained nothing: starts at once.
    process = multiprocessing.get_context("fork").Process(target=train_in, args=(folder,))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        sys.exit(f"an attempt ended with exit status {process.exitcode}")
    return process.exitcode == 0


def outcome(folder: Path) -> tuple[str, dict]:
    """What must be the same: the record as text but for two parts, and the weights."""
    record = json.loads((folder / f"{CONFIG.id}.json").read_text())
    del record["provenance"], record["timing"]
    return json.dumps(record), torch.load(folder / f"{CONFIG.id}.pt", weights_only=True)


def same(one: tuple[str, dict], other: tuple[str, dict]) -> bool:
    (text, weights), (other_text, others) = one, other
    equal = all(torch.equal(value, others[name]) for name, value in weights.items())
    return text == other_text and weights.keys() == others.keys() and equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10, help="of one run, at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as home:
        start = time.perf_counter()
        attempt(Path(home, "whole"), None)
        seconds, expected = time.perf_counter() - start, outcome(Path(home, "whole"))
        print(f"uninterrupted: {seconds:.2f} s, {CONFIG.training.epochs} epochs", flush=True)
        right, kills = 0, 0
        for n in range(1, arguments.runs + 1):
            folder, killed, torn = Path(home, str(n)), 0, 0
            while not attempt(
                folder, moments.uniform(0, 0.7) * seconds if killed < arguments.kills else None
            ):
                killed += 1
                torn += len(list(folder.glob(".*.tmp")))
            files = sorted(path.name for path in folder.iterdir())
            clean = files == [".locks", f"{CONFIG.id}.json", f"{CONFIG.id}.pt"]
            good = same(outcome(folder), expected) and clean
            right, kills = right + good, kills + killed
            met = f"{torn} half-written files met on the way"
            print(f"run {n}: {killed} kills, {met}, {'right' if good else files}", flush=True)
    print(f"{right} of {arguments.runs} runs right after {kills} kills")
    return int(right != arguments.runs)


if __name__ == "__main__":
    sys.exit(main())
