"""How work runs on a machine: on a processor or an accelerator, in memory that is kept, and with
the next batch prepared meanwhile.

An accelerator is kept busy by a host that runs ahead of it. What makes the host wait for a result
(a value read back, a shape that depends on data) costs more than some needless arithmetic: there
shapes are fixed beforehand and copies go one way, up.
"""

import ctypes
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from ipslib.errors import IpslibError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = 2**31 - 1

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_accelerator(device: torch.device | str) -> bool:
    """Whether work on the device is queued, so that the host must not ask for its results."""
    return torch.device(device).type != "cpu"


def chosen_device(device: torch.device | str | None = None) -> str:
    """The device asked for; if none is, a GPU where there is one, else the CPU. IpslibError for a
    device that torch does not know or does not find."""
    has_gpu = torch.cuda.is_available()
    if device is None:
        return "cuda" if has_gpu else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        here = "cpu or cuda" if has_gpu else "cpu: torch finds no GPU"
        raise IpslibError(
            f"device: wanted one of this machine ({here}), got {str(device)!r}; choose another, or "
            "a machine that has it."
        ) from error
    return str(device)


def prepare(device: torch.device | str) -> None:
    """Choose the arithmetic of float32 on a CUDA device, for the whole process: products and
    convolutions in TF32, which keeps 10 bits of the mantissa. Nothing changes on a CPU."""
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; on the way up the host does not wait for the copy."""
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")


def uploaded(tensor: Tensor, device: torch.device | str) -> Tensor:
    """As `moved`, through pinned memory on CUDA: for a thread that prepares the next step."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return moved(tensor, device)


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed for the next step, for the whole process: else
    most of a large step's time goes to new pages, a page fault for each 4 KB. Peak memory stays
    as it is. False where the allocator is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))


def prefetched(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function(item)` of every item, in order; while the caller works on one result, a
    background thread makes the next, never two at once.

    Items are taken in the caller's thread. An error of the function comes out, with its
    traceback, where its result would have. When the caller stops early, what has not begun is
    dropped and what has begun is awaited.
    """
    ahead: Future[Result] | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as executor:
        try:
            for item in items:
                ready, ahead = ahead, executor.submit(function, item)
                if ready:
                    yield ready.result()
            if ahead:
                yield ahead.result()
        finally:
            if ahead:
                ahead.cancel()
