"""What a result is, and what it was made with: code, versions, machine, the digits' bytes."""

import platform
import subprocess
from datetime import UTC, datetime

import numpy as np
import torch
import torchvision

import ipslib
from ipslib.config import RunConfig
from ipslib.data.digits import load_digits
from ipslib.naming import run_name
from ipslib.paths import project_root
from ipslib.training import Trained

SCHEMA = 1


def make_record(config: RunConfig, trained: Trained, timing: dict, device: str) -> dict:
    """The record of a finished run; everything but `provenance` and `timing` is the same for
    every repetition of the run."""
    last = trained.history[-1]
    tests = [row["test"]["accuracy"] for row in trained.history if row["test"]]
    return {
        "schema": SCHEMA,
        "id": config.id,
        "name": run_name(config),
        "config": config.flat(),
        "history": trained.history,
        "result": {
            "accuracy": last["test"]["accuracy"],
            "train_accuracy": last["train"]["accuracy"],
            "best_accuracy": {task: max(each[task] for each in tests) for task in tests[0]},
            "n_test": config.data.n_test,
            "attention": last["test"]["attention"],
        },
        "provenance": provenance(config, device),
        "timing": timing,
    }


def make_failure(config: RunConfig, reason: str, message: str) -> dict:
    """What is kept of a run that failed: `reason` in a word or two, `message` in a sentence."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    identity = {"schema": SCHEMA, "id": config.id, "name": run_name(config)}
    return identity | {"reason": reason, "message": message, "finished": finished}


def provenance(config: RunConfig, device: str) -> dict:
    """Versions, commit, device and the digits' checksums."""
    digits = {split: load_digits(config.data.digits, split) for split in ("train", "test")}
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "ipslib": ipslib.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if "cuda" in device else _processor(),
        "threads": torch.get_num_threads(),
        "digit_source": config.data.digits,
        "digits_sha256": {split: each.sha256 for split, each in digits.items()},
    }


def _commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(project_root()), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "CPU"
