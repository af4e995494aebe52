"""How much memory a run took at its peak."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


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
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        peak_kb = next(line.split()[1] for line in status if line.startswith("VmHWM"))
        return round(int(peak_kb) * 1024 / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
