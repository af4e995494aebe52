"""What one step costs, measured inside a process of its own: the seconds, the peak memory and the
operations of training on a batch, or of classifying it, under a memory limit and a time limit.

Three variants of reading a large image share one encoder. `ips` keeps M patches of the image.
`all` keeps every patch (M = N), so that nothing is selected. `whole` is a plain network: the
encoder's ResNet-18 trunk over the undivided canvas, global average pooling, and one linear head a
task.
"""

import itertools
import resource
import signal
import time
from collections.abc import Callable

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.fields import choice, integer
from ipslib.losses import task_loss
from ipslib.model.encoder import as_encoder_input, build_encoder
from ipslib.runs import Report
from ipslib.runs.one_run import is_out_of_memory
from ipslib.runs.provenance import peak_memory_mb, process_mb, reset_peak_memory
from ipslib.runtime import keep_freed_memory
from ipslib.training import batch_maker, build_network, forward_step

VARIANTS = ("ips", "all", "whole")
STEPS = ("classify", "train")
DONE, OUT_OF_MEMORY, OUT_OF_TIME, ERROR = "done", "out of memory", "out of time", "error"
_ENOUGH_SECONDS = 2.0  # of timed steps: a long step needs no second one
_WARM_SECONDS = 1.5  # of steps before them: libraries keep memory for every size that they meet
_RATE_SECONDS = 0.5


@attrs.frozen(kw_only=True)
class Measurement:
    """What is measured, and under which limits.

    The memory limit is on what is asked for beyond the loaded program, the digits and the
    network; on CUDA it is on all that this process holds there. Without Linux or CUDA only the
    time limit, of a single step, acts.
    """

    variant: str = choice("ips", VARIANTS)
    step: str = choice("train", STEPS)
    config: RunConfig
    n_steps: int = integer(3)  # timed ones, after some that are not
    memory_limit_mb: int = integer(2000)
    seconds_limit: int = integer(60)
    threads: int = integer(1)
    device: str = "cpu"


class WholeImageNet(nn.Module):
    """The plain network: a patch encoder's trunk over a whole canvas, and linear heads."""

    def __init__(self, config: RunConfig):
        super().__init__()
        encoder = build_encoder(config.model, 1)
        # With channels last, fewer than 16 channels and wide maps, oneDNN writes out of bounds in
        # the weight gradient of a 1 x 1 convolution of stride 2 (seen with torch 2.15).
        narrow = encoder[0].out_channels < 16
        self.memory_format = torch.contiguous_format if narrow else torch.channels_last
        self.encoder = encoder.to(memory_format=self.memory_format)
        dim = config.model.embedding_dim
        n_classes = config.data.n_classes
        self.heads = nn.ModuleDict({task: nn.Linear(dim, n) for task, n in n_classes.items()})
        self.low_precision = config.training.precision == "bf16"

    def forward(self, canvases: Tensor) -> dict[str, Tensor]:
        """Canvases (B, 1, H, W), uint8 or float in 0..1, to logits {task: (B, C)}."""
        device = next(self.parameters()).device
        inputs = as_encoder_input(canvases.to(device))
        inputs = inputs.contiguous(memory_format=self.memory_format)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            embeddings = self.encoder(inputs).float()  # (B, D)
        return {task: head(embeddings) for task, head in self.heads.items()}


def build_variant(
    variant: str, config: RunConfig, *, device: str = "cpu"
) -> tuple[nn.Module, Callable[[list[int]], Tensor]]:
    """The network of one of VARIANTS, and what takes indices of training images to their loss.

    Images are laid out and drawn within the call, as in training.
    """
    data = MegapixelMNIST(config.data, "train")
    data.batch([0])  # loads the digits and draws the noise patterns, which no image side changes
    if variant == "all":
        config = config.replace(memory_size=config.data.grid.n_patches)
    whole = variant == "whole"
    network = WholeImageNet(config).to(device) if whole else build_network(config, device=device)
    generator = torch.Generator().manual_seed(config.training.seed)
    make = batch_maker(data, device)

    def loss_of(indices: list[int]) -> Tensor:
        if not whole:
            return forward_step(network, make(indices), config.training, generator)[1].total
        canvases = torch.from_numpy(np.stack([data.canvas(index) for index in indices]))
        labels = data.batch(indices).labels
        labels = {task: label.to(device) for task, label in labels.items()}
        return task_loss(network(canvases[:, None]), labels)

    return network, loss_of


def measure(measurement: Measurement, _: Report) -> dict:
    """Measure a step, in a process that does nothing else.

    A step, or what leads to the first, that is beyond the time limit ends the process by SIGALRM.

    Returns:
        `outcome` (DONE, OUT_OF_MEMORY or ERROR, with what was `said`), and where it is DONE the
        median `seconds` of `n_timed` steps, the `operations` of one, and the peak in MB: of the
        process (`peak_mb`), and beyond what it held before the first step (`step_mb`).
    """
    device, seconds_limit = measurement.device, measurement.seconds_limit
    torch.set_num_threads(measurement.threads)
    signal.setitimer(signal.ITIMER_REAL, seconds_limit)
    try:
        _wake(device)
        step = _build_step(measurement)
        keep_freed_memory()  # as training does; before, a step would hide in what loading had freed
        limit_memory(measurement.memory_limit_mb, device)
        reset_peak_memory(device)
        held = _held_mb(device)
        signal.setitimer(signal.ITIMER_REAL, seconds_limit)
        start = time.perf_counter()
        operations = _count(step)
        warm = _WARM_SECONDS - (time.perf_counter() - start)
        _time(step, device, at_most=1000, enough=warm, limit=seconds_limit)
        limits = {"at_most": measurement.n_steps, "enough": _ENOUGH_SECONDS}
        seconds = _time(step, device, limit=seconds_limit, **limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        peak = peak_memory_mb(device)
    except Exception as error:
        outcome = OUT_OF_MEMORY if is_out_of_memory(error) else ERROR
        return {"outcome": outcome, "said": f"{type(error).__name__}: {error}"}
    return {
        "outcome": DONE,
        "seconds": float(np.median(seconds)),
        "n_timed": len(seconds),
        "operations": operations,
        "peak_mb": peak,
        "step_mb": max(0.0, round(peak - held, 1)),
    }


def measure_rates(setting: tuple[str, int, str], _: Report) -> dict[str, float]:
    """The matrix rate {kind: operations a second} of a precision, each the best of many, with so
    many threads on a device.

    `matmul` is a product of two 2048 x 2048 matrices; `conv` a 3 x 3 convolution of 128 channels
    on 16 maps of 48 x 48, which may use faster algorithms than a product (TF32, Winograd).
    """
    precision, threads, device = setting
    torch.set_num_threads(threads)
    kind = {"device": device, "dtype": torch.bfloat16 if precision == "bf16" else torch.float32}
    matrix, kernel = torch.randn(2048, 2048, **kind), torch.randn(128, 128, 3, 3, **kind)
    maps = torch.randn(16, 128, 48, 48, **kind).contiguous(memory_format=torch.channels_last)
    work = {
        "matmul": lambda: matrix @ matrix,
        "conv": lambda: nn.functional.conv2d(maps, kernel, padding=1),
    }
    return {
        name: _count(run) / min(_time(run, device, at_most=1000, enough=_RATE_SECONDS))
        for name, run in work.items()
    }


def limit_memory(limit_mb: int, device: str) -> None:
    """Let this process ask for so many MB more than it holds, or hold so many on CUDA."""
    if "cuda" in device:
        total = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mb * 1e6 / total), device)
        return
    held_mb = process_mb("VmData")
    if held_mb is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int((held_mb + limit_mb) * 1e6), hard))


def _build_step(measurement: Measurement) -> Callable[[], None]:
    """What takes the next batch, and classifies it or learns from it."""
    config, is_training = measurement.config, measurement.step == "train"
    network, loss_of = build_variant(measurement.variant, config, device=measurement.device)
    network.train(is_training)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.training.lr, fused=True)
    numbers = itertools.cycle(range(config.data.n_train))  # every step has images of its own

    def step() -> None:
        with torch.set_grad_enabled(is_training):
            loss = loss_of(list(itertools.islice(numbers, config.training.batch_size)))
        if is_training:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return step


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
    resident = process_mb("VmRSS")
    return peak_memory_mb(device) if resident is None else resident
