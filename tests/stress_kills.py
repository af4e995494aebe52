"""Kill a small run at random moments until it is done, many times over, and compare the records.

    python -m tests.stress_kills [--runs 20] [--kills 10] [--seed 0]

Every attempt is a process of its own that is killed with SIGKILL after a random time; some see
several epochs, some see none. After `--kills` of them a run is left to end. Its checkpoints are
written after every epoch. It is right when its record is bitwise that of a run that nobody killed
(all but `provenance` and `timing`), its weights too, and its folder holds the two files of a
record and the locks, nothing else. The exit status is 0 when every run is right.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from ipslib.runs.one_run import CHECKPOINT_VARIABLE, train_and_record
from ipslib.runs.records import RecordStore
from tests.tiny import TINY, names, what_came_out

CONFIG = TINY.replace(
    n_noise=3, n_train=12, n_test=6, iter_size=2, mask_k=2, mask_p=0.5, semantic_weight=1.0,
    diversity_weight=2.0, epochs=10, warmup_epochs=2,
)  # fmt: skip


def train_in(store: RecordStore) -> None:
    torch.set_num_threads(1)
    os.environ[CHECKPOINT_VARIABLE] = "0"
    train_and_record(CONFIG, store)


def attempt(store: RecordStore, seconds: float | None) -> bool:
    """Train in a process; whether it ended by itself before it was killed."""
    # Forked from a process that has imported everything and trained nothing: starts at once.
    process = multiprocessing.get_context("fork").Process(target=train_in, args=(store,))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        sys.exit(f"an attempt ended with exit status {process.exitcode}")
    return process.exitcode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10, help="of one run, at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as home:
        start, whole = time.perf_counter(), RecordStore(Path(home, "whole"))
        attempt(whole, None)
        seconds, expected = time.perf_counter() - start, what_came_out(whole, CONFIG)
        print(f"uninterrupted: {seconds:.2f} s, {CONFIG.training.epochs} epochs", flush=True)
        right, kills = 0, 0
        for n in range(1, arguments.runs + 1):
            store, killed, torn = RecordStore(Path(home, str(n))), 0, 0
            while not attempt(
                store, moments.uniform(0, 0.7) * seconds if killed < arguments.kills else None
            ):
                killed += 1
                torn += len(list(store.folder.glob(".*.tmp")))
            clean = names(store) == [f"{CONFIG.id}.json", f"{CONFIG.id}.pt"]
            good = clean and what_came_out(store, CONFIG) == expected
            right, kills = right + good, kills + killed
            met = f"{torn} half-written files met on the way"
            print(
                f"run {n}: {killed} kills, {met}, {'right' if good else names(store)}", flush=True
            )
    print(f"{right} of {arguments.runs} runs right after {kills} kills")
    return int(right != arguments.runs)


if __name__ == "__main__":
    sys.exit(main())
