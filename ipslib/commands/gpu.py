"""The published runs on a GPU, in one call: is it right, how fast is it, and then the queue.

On a machine with a GPU, in a checkout, with MNIST/raw in the folder `mnist`:

    IPSLIB_DATA=mnist python -m ipslib gpu --minutes 9

and again, until nothing is missing; a later call with `--skip-checks` goes straight to the runs.
It needs torch and the packages that `ipslib run` needs, neither papermill nor jupytext. Records
come to outputs/paper/records: commit the .json, and carry the .checkpoint.pt to where the next
call is made. `python -m ipslib queue --readme` then counts them in outputs/README.md.
"""

import itertools
import time
from collections.abc import Mapping
from contextlib import closing
from statistics import median
from typing import NamedTuple

import torch

from ipslib.commands.queue import check_amounts, queued_runs, work_queue
from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.runs.one_run import is_out_of_memory
from ipslib.runs.profiles import Layout, base_config
from ipslib.runs.provenance import peak_memory_mb, reset_peak_memory
from ipslib.runs.records import RecordStore
from ipslib.runtime import is_accelerator, keep_freed_memory, prefetched, prepare
from ipslib.selection import Selection
from ipslib.study.published_configs import as_markdown, regenerated
from ipslib.training import TrainingState, batch_maker, build_network, forward_step

# What is compared and timed, and of how many images on the CPU, whose part is to take seconds.
_SETTINGS = (({"canvas": 1500, "n_noise": 50}, 4), ({"canvas": 3000, "n_noise": 800}, 2))
_SMOKE = (({}, 2),)
_BATCHES = 4  # of different images, one after the other
# Relative differences that rounding explains; in a gradient, a ReLU at its kink falls either way.
TIE, LOSS, GRADIENT = 1e-4, 1e-3, 3e-2


def work_on_gpu(
    minutes: float,
    *,
    device: str = "cuda",
    smoke: bool = False,
    jobs: int = 1,
    checks: bool = True,
    overrides: Mapping[str, object] | None = None,
    category: str | None = None,
) -> int:
    """Check the device against the CPU, time a step, and train published runs for what is left of
    the minutes; return 1 where the devices disagree, and then nothing is trained, or a run failed.

    Raises:
        IpslibError: no such device, a published scale on a CPU, or what the queue raises.
    """
    deadline = time.monotonic() + 60 * minutes
    check_amounts(minutes, jobs)
    if (device == "cpu" and not smoke) or (device != "cpu" and not torch.cuda.is_available()):
        raise IpslibError(
            f"device: wanted a GPU, got {device}, of which torch {torch.__version__} "
            f"finds {torch.cuda.device_count()} here; go to a machine with one, or try it on tiny "
            "images with `--device cpu --smoke`."
        )
    profile, overrides = "smoke" if smoke else "paper", dict(overrides or {})
    store = RecordStore(Layout.of(profile).records)
    queued_runs(profile, overrides, store, category)  # what is wrong is said before time is spent
    if checks:
        settings = _SMOKE if smoke else _SETTINGS
        configs = {base_config(profile).replace(**each): n for each, n in settings}
        name = torch.cuda.get_device_name(device) if device != "cpu" else "The CPU itself"
        print(f"{name} against the CPU, fp32:", flush=True)
        agreements = []
        for config, n_images in configs.items():
            agreements.append(compare_devices(config, device, n_images=n_images))
            print(f"  {config.data.short_name}, {n_images} images: {agreements[-1]}", flush=True)
        if not all(agreement.holds for agreement in agreements):
            print("the devices disagree: no run was begun.", flush=True)
            return 1
        precision = overrides.get("precision", "bf16" if is_accelerator(device) else "fp32")
        for config in configs:
            print(time_steps(config.replace(precision=precision), device, deadline), flush=True)
    minutes = (deadline - time.monotonic()) / 60
    if minutes <= 0:
        print("no time is left for runs.", flush=True)
        return 0
    status = work_queue(profile, minutes, overrides, jobs=jobs, device=device, category=category)
    if not smoke:
        print(as_markdown(regenerated(store)), flush=True)
    return status


class TrainingStep:
    """A step of training on Megapixel MNIST, with its batches prepared ahead; called, it returns
    its seconds."""

    def __init__(self, config: RunConfig, device: str):
        keep_freed_memory()
        prepare(device)
        self.training, self.state = config.training, TrainingState(config, device=device)
        make = batch_maker(MegapixelMNIST(config.data), torch.device(device))
        size = config.training.batch_size
        images = [range(size * i, size * (i + 1)) for i in range(_BATCHES)]
        self.batches = prefetched(make, itertools.cycle(images))

    def __call__(self) -> float:
        state, start = self.state, now(self.state.network.device)
        self.batch, network = next(self.batches), state.network.train()
        self.output, losses, _ = forward_step(network, self.batch, self.training, state.generator)
        state.optimiser.zero_grad()
        losses.total.backward()
        state.optimiser.step()
        return now(network.device) - start


def time_steps(config: RunConfig, device: str, deadline: float) -> str:
    """The time and the memory of a training step in words; running out of either is no error."""
    n_steps = 30 if is_accelerator(device) else 3
    reset_peak_memory(device)
    seconds: list[float] = []
    name = f"  {config.data.short_name}, {config.training.precision}"
    try:
        step = TrainingStep(config, device)
        with closing(step.batches):
            while len(seconds) < n_steps + n_steps // 3 + 1 and time.monotonic() < deadline:
                seconds.append(step())
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return f"{name}: a step runs out of memory."
    if not seconds:
        return f"{name}: no time is left to time a step."
    milliseconds = 1e3 * median(seconds[-n_steps:])
    peak = peak_memory_mb(device)
    return f"{name}: a training step takes {milliseconds:.1f} ms, at most {peak:.0f} MB"


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Agreement(NamedTuple):
    """What two devices made of the same images and weights."""

    n_kept: int  # patches that each keeps
    n_apart: int  # of them kept by one device alone
    widest_tie: float  # relative difference of the scores that these patches had
    loss: float  # relative differences
    gradient: float  # of the norm of all gradients

    @property
    def holds(self) -> bool:
        """Whether the kept patches are the same but for ties, and the rest within rounding."""
        return self.widest_tie <= TIE and self.loss <= LOSS and self.gradient <= GRADIENT

    def __str__(self) -> str:
        same = f"{self.n_kept - self.n_apart} of {self.n_kept} kept patches the same"
        ties = f", the others within {self.widest_tie:.1e} of each other" if self.n_apart else ""
        return (
            f"{'agree' if self.holds else 'DISAGREE'}: {same}{ties}; loss differs by "
            f"{self.loss:.1e}, the gradient's norm by {self.gradient:.1e}"
        )


def compare_devices(config: RunConfig, device: str, *, n_images: int) -> Agreement:
    """One training step of a fresh network without dropout on the CPU and on a device, in full
    fp32: without TF32 in this process, until `prepare` chooses it for training."""
    config = config.replace(precision="fp32", dropout=0.0, attn_dropout=0.0)
    batch = MegapixelMNIST(config.data).batch(range(n_images))
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    here, there = (_step(config, batch, each) for each in ("cpu", device))
    n_apart, widest = differing(here[0], there[0])
    pairs = zip(here[1:], there[1:], strict=True)
    apart = [abs(one - other) / max(abs(one), 1e-12) for one, other in pairs]
    return Agreement(here[0].indices.numel(), n_apart, widest, *apart)


def differing(one: Selection, other: Selection) -> tuple[int, float]:
    """How many patches only the first keeps, and how far their scores are from those of the
    patches that the second keeps in their place: 0 for a tie, relative to the larger."""
    n_apart, widest = 0, 0.0
    rows = () if one.scores is None else zip(*one[:2], *other[:2], strict=True)
    for own, own_scores, others, other_scores in rows:
        alone, missed = (~torch.isin(*pair) for pair in ((own, others), (others, own)))
        n_apart += int(alone.sum())
        pairs = torch.stack([own_scores[alone].sort()[0], other_scores[missed].sort()[0]])
        if pairs.numel():
            gap = (pairs[0] - pairs[1]).abs() / pairs.amax(dim=0)
            widest = max(widest, gap.max().item())
    return n_apart, widest


def _step(config: RunConfig, batch, device: str) -> tuple[Selection, float, float]:
    network = build_network(config, device=device).train()
    generator = torch.Generator().manual_seed(0)
    output, losses, _ = forward_step(network, batch.on(device), config.training, generator)
    losses.total.backward()
    squares = [w.grad.square().sum() for w in network.parameters() if w.grad is not None]
    scores = output.selection.scores
    kept = Selection(output.selection.indices.cpu(), None if scores is None else scores.cpu())
    return kept, losses.total.item(), torch.stack(squares).sum().sqrt().item()
