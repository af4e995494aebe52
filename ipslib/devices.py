"""What differs between a processor and an accelerator: where work is prepared, and its precision.

An accelerator is kept busy by a host that runs ahead of it. Whatever makes the host wait for a
result (a value read back, a shape that depends on data) costs more than some needless arithmetic,
so there shapes are fixed beforehand and copies go one way, up.
"""

import torch
from torch import Tensor


def is_accelerator(device: torch.device | str) -> bool:
    """Whether work on the device is queued, so that the host must not ask for its results."""
    return torch.device(device).type != "cpu"


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
