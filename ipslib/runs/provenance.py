"""What a result is, and what it was made with: code, versions, machine, the data's bytes."""

import platform
import subprocess
from datetime import UTC, datetime

import numpy as np
import torch
import torchvision

import ipslib
from ipslib import arithmetic
from ipslib.config import RunConfig
from ipslib.paths import project_root
from ipslib.runs.naming import run_name
from ipslib.training import Trained

SCHEMA = 1


def make_record(config: RunConfig, trained: Trained, timing: dict, device: str) -> dict:
    """The record of a finished run; everything but `provenance` and `timing` is the same for
    every repetition of the run."""
    last, test_set = trained.history[-1], config.data.open_split("test")
    tests = [row["test"]["accuracy"] for row in trained.history if row["test"]]
    of_set = {"chance": dict(test_set.chance)} if test_set.uneven else {}
    measured = {"measures": last["test"]["measures"]} if "measures" in last["test"] else {}
    return {
        "schema": SCHEMA,
        "arithmetic": arithmetic.CURRENT,
        "id": config.id,
        "name": run_name(config),
        "config": config.flat(),
        "history": trained.history,
        "result": {
            "accuracy": last["test"]["accuracy"],
            "train_accuracy": last["train"]["accuracy"],
            "best_accuracy": {task: max(each[task] for each in tests) for task in tests[0]},
            "n_test": len(test_set),
            "attention": last["test"]["attention"],
        }
        | of_set
        | measured,
        "provenance": provenance(config, device),
        "timing": timing,
    }


def make_failure(config: RunConfig, reason: str, message: str) -> dict:
    """What is kept of a run that failed: `reason` in a word or two, `message` in a sentence."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    identity = {"schema": SCHEMA, "id": config.id, "name": run_name(config)}
    return identity | {"reason": reason, "message": message, "finished": finished}


def provenance(config: RunConfig, device: str) -> dict:
    """Versions, commit, device and what the data are."""
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
        **({"tf32": torch.backends.cudnn.allow_tf32} if "cuda" in device else {}),
        **config.data.open_split("train").provenance,
    }


def _commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout.

    Results that a study writes over the committed ones are not what made them.
    """
    git = ["git", "-C", str(project_root())]
    name = [*git, "describe", "--always", "--abbrev=12", "--exclude=*"]
    changes = [*git, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)outputs"]
    try:
        named = subprocess.run(name, capture_output=True, text=True, timeout=10)
        changed = subprocess.run(changes, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit = named.stdout.strip()
    return (commit + "-dirty" * (changed.returncode == 1)) or None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "CPU"
