"""The least time that a training step can take on a device: its arithmetic, and its memory traffic.

Operations are those of the encoder's convolutions: once for every patch with ink that selection
visits, three times for a kept one (forward, and two products backward). Bytes are the maps between
the convolutions, each written once and read once, as often. Rates are measured: a large product,
and a large copy counted as read and written.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ipslib.commands.gpu import now
from ipslib.model.ips import IPSNet
from ipslib.patches import PatchBatch
from ipslib.runtime import is_accelerator

_TRIES = 10


class Roofline(NamedTuple):
    """Seconds of a step at the measured rates, and the rates."""

    arithmetic: float
    traffic: float
    operations_a_second: float
    bytes_a_second: float

    def __str__(self) -> str:
        return (
            f"floor of a step {1e3 * max(self.arithmetic, self.traffic):.2f} ms: "
            f"{1e3 * self.arithmetic:.2f} ms of arithmetic at "
            f"{self.operations_a_second / 1e12:.3g} TFLOP/s, {1e3 * self.traffic:.2f} ms of memory "
            f"at {self.bytes_a_second / 1e9:.3g} GB/s"
        )


def roofline(network: IPSNet, batch: PatchBatch, precision: str) -> Roofline:
    """Of a training step on a batch of images of square patches."""
    device = network.device
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    image, patch = (~batch.blank).nonzero(as_tuple=True)
    inked = [batch.read(*each).flatten(1).any(dim=1).sum()
             for each in zip(image.split(4096), patch.split(4096), strict=True)]  # fmt: skip
    n_kept = batch.batch_size * min(network.config.memory_size, batch.n_patches)
    times = int(sum(inked)) + 1 + 3 * n_kept
    operations, values = _of_one_patch(network, batch.read(patch[:1] * 0, patch[:1])[:1])
    rate, bandwidth = _matrix_rate(device, dtype), _copy_rate(device)
    traffic = times * values * dtype.itemsize
    return Roofline(times * operations / rate, traffic / bandwidth, rate, bandwidth)


def _of_one_patch(network: IPSNet, patch: Tensor) -> tuple[int, int]:
    """Operations, and values that convolutions read and write."""
    values = []
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output: values.append(inputs[0].numel() + output.numel())
        )
        for module in network.encoder.modules()
        if isinstance(module, nn.Conv2d)
    ]
    training = network.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encoder.eval()(patch.to(network.device).float())
    network.train(training)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops(), sum(values)


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if is_accelerator(device) else 2048
    matrix = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / _least_seconds(lambda: matrix @ matrix, device)


def _copy_rate(device: torch.device) -> float:
    n_bytes = 2**31 if is_accelerator(device) else 2**26
    source = torch.randint(256, (n_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / _least_seconds(lambda: target.copy_(source), device)


def _least_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    seconds = []
    for _ in range(_TRIES):
        start = now(device)
        work()
        seconds.append(now(device) - start)
    return min(seconds)
