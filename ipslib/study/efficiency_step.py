"""One measurement, inside a process of its own: the seconds, the peak memory and the operations
of a training step, or of classifying a batch, under a memory limit and a time limit.
"""

import itertools
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ipslib.config import RunConfig
from ipslib.fields import choice, integer
from ipslib.runs.one_run import is_out_of_memory
from ipslib.runs.progress import Report
from ipslib.runs.provenance import peak_memory_mb, reset_peak_memory
from ipslib.runtime import keep_freed_memory
from ipslib.study.efficiency_ways import WAYS, build_way

STEPS = ("classify", "train")
DONE, OUT_OF_MEMORY, OUT_OF_TIME, ERROR = "done", "out of memory", "out of time", "error"
_ENOUGH_SECONDS = 2.0  # of timed steps: a long step needs no second one
_RATE_SECONDS = 0.5


@attrs.frozen(kw_only=True)
class Measurement:
    """What is measured, and under which limits.

    The memory limit is on what is asked for beyond the loaded program, the digits and the
    network; on CUDA it is on all that this process holds there. Without Linux or CUDA only the
    time limit, of a single step, acts.
    """

    way: str = choice("ips", WAYS)
    step: str = choice("train", STEPS)
    config: RunConfig
    n_steps: int = integer(3)  # timed ones, after one that is not
    memory_limit_mb: int = integer(2000)
    seconds_limit: int = integer(60)
    threads: int = integer(1)
    device: str = "cpu"


def measure(measurement: Measurement, _: Report) -> dict:
    """Measure, in a process that does nothing else.

    Returns `outcome` (DONE, OUT_OF_MEMORY or ERROR, with what was `said`) and, where done, the
    numbers of `_measure`. A step, or what leads to the first, that is beyond the time limit ends
    the process by SIGALRM.
    """
    torch.set_num_threads(measurement.threads)
    keep_freed_memory()  # as training does
    signal.setitimer(signal.ITIMER_REAL, measurement.seconds_limit)
    try:
        _wake(measurement.device)
        step = _build_step(measurement)
        limit_memory(measurement.memory_limit_mb, measurement.device)
        return {"outcome": DONE} | _measure(step, measurement)
    except Exception as error:
        outcome = OUT_OF_MEMORY if is_out_of_memory(error) else ERROR
        return {"outcome": outcome, "said": f"{type(error).__name__}: {error}"}


def _build_step(measurement: Measurement) -> Callable[[], None]:
    """What takes the next batch, and classifies it or learns from it."""
    config = measurement.config
    network, loss_of = build_way(measurement.way, config, device=measurement.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.training.lr, fused=True)
    numbers = itertools.cycle(range(config.data.n_train))  # every step has images of its own
    next_batch = partial(itertools.islice, numbers, config.training.batch_size)

    def classify() -> None:
        network.eval()
        with torch.no_grad():
            loss_of(list(next_batch()))

    def train() -> None:
        network.train()
        loss = loss_of(list(next_batch()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return {"classify": classify, "train": train}[measurement.step]


def limit_memory(limit_mb: int, device: str) -> None:
    """Let this process ask for so many MB more than it holds, or hold so many on CUDA."""
    if "cuda" in device:
        total = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mb * 1e6 / total), device)
        return
    held_mb = _of_status("VmData")
    if held_mb is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int((held_mb + limit_mb) * 1e6), hard))


def measure_rates(setting: tuple[str, int, str], _: Report) -> dict[str, float]:
    """The matrix rate {kind: operations a second} of a precision, each the best of many, with so
    many threads on a device.

    `matmul` is a product of two 2048 x 2048 matrices; `conv` a 3 x 3 convolution of 128 channels
    on 16 maps of 48 x 48, which may use faster algorithms than a product (TF32, Winograd).
    """
    precision, threads, device = setting
    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(2048, 2048, device=device, dtype=dtype)
    maps = torch.randn(16, 128, 48, 48, device=device, dtype=dtype)
    kernel = torch.randn(128, 128, 3, 3, device=device, dtype=dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    kinds = {
        "matmul": lambda: matrix @ matrix,
        "conv": lambda: nn.functional.conv2d(maps, kernel, padding=1),
    }
    rates = {}
    for kind, run in kinds.items():
        operations = _count(run)
        seconds = _time(run, device, at_most=1000, enough=_RATE_SECONDS)
        rates[kind] = operations / min(seconds)
    return rates


def _measure(step: Callable[[], None], measurement: Measurement) -> dict:
    """Median seconds and number of timed steps, operations of a step, and the peak in MB: of the
    process, and beyond what it held before the first step."""
    device, seconds_limit = measurement.device, measurement.seconds_limit
    reset_peak_memory(device)
    held = _held_mb(device)
    signal.setitimer(signal.ITIMER_REAL, seconds_limit)
    operations = _count(step)
    seconds = _time(
        step, device, at_most=measurement.n_steps, enough=_ENOUGH_SECONDS, limit=seconds_limit
    )
    signal.setitimer(signal.ITIMER_REAL, 0)
    peak = peak_memory_mb(device)
    return {
        "seconds": float(np.median(seconds)),
        "n_timed": len(seconds),
        "operations": operations,
        "peak_mb": peak,
        "step_mb": max(0.0, round(peak - held, 1)),
    }


def _count(step: Callable[[], None]) -> int:
    """Operations of matrix products and convolutions; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def _time(
    step: Callable[[], None], device: str, *, at_most: int, enough: float, limit: float = 0.0
) -> list[float]:
    """Seconds of each of some steps; with a limit, one that outlasts it ends the process."""
    seconds: list[float] = []
    while len(seconds) < at_most and sum(seconds) < enough:
        if limit:
            signal.setitimer(signal.ITIMER_REAL, limit)
        _finish(device)
        start = time.perf_counter()
        step()
        _finish(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _wake(device: str) -> None:
    """Start what the first step would start: thread pools, libraries, a CUDA context."""
    layer = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 8)).to(device)
    layer(torch.randn(8, 1, 32, 32, device=device)).sum().backward()
    _finish(device)


def _finish(device: str) -> None:
    if "cuda" in device:
        torch.cuda.synchronize(device)


def _held_mb(device: str) -> float:
    if "cuda" in device:
        return torch.cuda.memory_allocated(device) / 1e6
    resident = _of_status("VmRSS")
    return peak_memory_mb(device) if resident is None else resident


def _of_status(name: str) -> float | None:
    """A size of this process in MB, from Linux."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024 / 1e6
    return None
