"""What a result is, and what it was made with: code, versions, machine, memory, the data."""

import hashlib
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torchvision

import ipslib
from ipslib import arithmetic
from ipslib.config import RunConfig
from ipslib.runs.naming import run_name
from ipslib.training import Trained, kept_epoch

SCHEMA = 1


def make_record(config: RunConfig, trained: Trained, timing: dict, device: str) -> dict:
    """The record of a finished run; everything but `provenance` and `timing` is the same for
    every repetition of the run."""
    kept, test_set = kept_epoch(trained.history), config.data.open_split("test")
    tests = [row["test"]["accuracy"] for row in trained.history if row["test"]]
    of_set = {"chance": dict(test_set.chance)} if test_set.uneven else {}
    more = {"measures": kept["test"]["measures"]} if "measures" in kept["test"] else {}
    more |= {"best_epoch": kept["epoch"]} if "validation" in kept else {}
    return {
        "schema": SCHEMA,
        "arithmetic": arithmetic.CURRENT,
        "id": config.id,
        "name": run_name(config),
        "config": config.flat(),
        "history": trained.history,
        "result": {
            "accuracy": kept["test"]["accuracy"],
            "train_accuracy": kept["train"]["accuracy"],
            "best_accuracy": {task: max(each[task] for each in tests) for task in tests[0]},
            "n_test": len(test_set),
            "attention": kept["test"]["attention"],
        }
        | of_set
        | more,
        "provenance": provenance(config, device),
        "timing": timing,
    }


def make_failure(config: RunConfig, reason: str, message: str) -> dict:
    """What is kept of a run that failed: `reason` in a word or two, `message` in a sentence."""
    identity = {"schema": SCHEMA, "id": config.id, "name": run_name(config)}
    return identity | {"reason": reason, "message": message, "finished": _now()}


def provenance(config: RunConfig, device: str) -> dict:
    """Versions, commit, device and what the data are."""
    return {
        "finished": _now(),
        "ipslib": ipslib.__version__,
        "commit": code_version(Path(ipslib.__file__).parents[1]),
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


def code_version(root: Path) -> str:
    """The commit of the checkout at `root`, marked where files differ from it; of a copy that is
    no checkout itself, though it may lie in one, a hash of the library's code.

    Results that a study writes over the committed ones are not what made them.
    """
    git = ["git", "-C", str(root)]
    changes = [*git, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)outputs"]
    with suppress(OSError, subprocess.SubprocessError):
        if (root / ".git").exists():
            name = [*git, "rev-parse", "--short=12", "HEAD"]
            named = subprocess.run(name, capture_output=True, text=True, timeout=10, check=True)
            changed = subprocess.run(changes, capture_output=True, timeout=10).returncode == 1
            return named.stdout.strip() + "-dirty" * changed
    digest = hashlib.sha256()
    for path in sorted((root / "ipslib").rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return f"code-{digest.hexdigest()[:12]}"


def reset_peak_memory(device: str) -> None:
    """Start a new peak: earlier runs of this process no longer count (Linux and CUDA)."""
    if "cuda" in device:
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: str) -> float:
    """Peak of a CUDA device's allocations, or of this process's resident set, in MB."""
    if "cuda" in device:
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    peak = process_mb("VmHWM")
    if peak is not None:
        return round(peak, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def process_mb(name: str) -> float | None:
    """A size of this process in MB, such as VmRSS, where the system tells it (Linux)."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024 / 1e6
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or "CPU"
