"""Seconds of a training step: this path against the published algorithm written plainly.

    python -m tests.benchmarks.step [--rounds 3] [--precision fp32] [--device cpu] [--weights FILE]

`plain` is tests/reference.py: dense images, every patch encoded, fp32. Where the allocator counts
(glibc, CPU) it runs twice, as it comes and with freed memory kept. Each way is a process of its
own; in every round each makes one step, one after the other, so that all share its moods.
Medians over rounds, the first round left out. `times` is plain over ours. `limit` is the time that
the encoder's operations of our selection take at the rate of a large matrix product.

The published setting: ResNet-18 of two stages, batch 16, M = I = 100, patches of 50 px. `--weights`
takes an original checkpoint or a state dict of this network, for weights that have learned.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ipslib.allocator import keep_freed_memory
from ipslib.config import RunConfig
from ipslib.data.digits import find_source
from ipslib.data.megapixel_mnist import MegapixelMNIST
from ipslib.losses import combined_losses
from ipslib.training import TrainingState
from tests import reference

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ({"canvas": 1500, "n_noise": 50}, {"canvas": 3000, "n_noise": 800})


class Step:
    """One way to make a training step on one setting, timed in its parts."""

    def __init__(self, way: str, setting: dict, arguments: argparse.Namespace):
        precision = arguments.precision if way == "ours" else "fp32"
        self.config = RunConfig.from_flat(
            setting | {"digits": find_source(), "precision": precision, "n_train": 16}
        )
        self.way, self.device = way, torch.device(arguments.device)
        if way != "plain" and self.device.type == "cpu":
            keep_freed_memory()
        self.state = TrainingState(self.config, device=arguments.device)
        if arguments.weights:
            weights = torch.load(arguments.weights, map_location="cpu", weights_only=True)
            self.state.network.load_state_dict(weights)
        self.batch = MegapixelMNIST(self.config.data).batch(range(16))
        self.bag = None if way == "ours" else reference.dense_bag(self.batch).to(self.device)
        self.labels = {t: label.to(self.device) for t, label in self.batch.labels.items()}

    def __call__(self) -> dict[str, float]:
        """Seconds of selection and of all that follows it, and the peak memory so far."""
        network = self.state.network.train()
        selecting = _Stopwatch(network if self.way == "ours" else reference, "select", self.device)
        start = _now(self.device)
        with selecting:
            if self.way == "ours":
                output = network(self.batch, generator=self.state.generator)
            else:
                output = reference.forward(network, self.bag)
            self.state.optimiser.zero_grad()
            combined_losses(output, self.labels).total.backward()
            self.state.optimiser.step()
        seconds = _now(self.device) - start
        kept = self.batch.blank.gather(1, output.selection.indices.cpu())
        return {
            "select": selecting.seconds,
            "train": seconds - selecting.seconds,
            "step": seconds,
            "blank_kept": kept.float().mean().item(),
        }


class _Stopwatch:
    """Times one function of a module or object while it is entered."""

    def __init__(self, owner: object, name: str, device: torch.device):
        self.owner, self.name, self.device, self.seconds = owner, name, device, 0.0

    def __enter__(self) -> "_Stopwatch":
        function = getattr(self.owner, self.name)

        def timed(*args, **kwargs):
            start = _now(self.device)
            result = function(*args, **kwargs)
            self.seconds = _now(self.device) - start
            return result

        self.former, self.owner.__dict__[self.name] = self.owner.__dict__.get(self.name), timed
        return self

    def __exit__(self, *_) -> None:
        if self.former is None:
            del self.owner.__dict__[self.name]
        else:
            self.owner.__dict__[self.name] = self.former


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def limit(setting: dict, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds that our selection's operations need at the matrix rate, and that rate in GFLOP/s."""
    step = Step("ours", setting, arguments)
    batch, network = step.batch, step.state.network
    image, patch = (~batch.blank).nonzero(as_tuple=True)
    n_inked = int(batch.read(image, patch).flatten(1).any(dim=1).sum()) + 1
    side = step.config.data.patch_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encoder.eval()(torch.zeros(1, 1, side, side, device=step.device))
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    matrix, times = torch.randn(2048, 2048, device=step.device).to(dtype), []
    for _ in range(10):
        start = _now(step.device)
        nn.functional.linear(matrix, matrix)
        times.append(_now(step.device) - start)
    rate = 2 * 2048**3 / min(times)
    return counter.get_total_flops() * n_inked / rate, rate / 1e9


def serve(way: str, setting: dict, arguments: argparse.Namespace) -> None:
    """Make a step for every line that comes in."""
    step = Step(way, setting, arguments)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)


def compare(setting: dict, arguments: argparse.Namespace) -> None:
    """Print one setting's table."""
    ways = ["plain", "plain, memory kept", "ours"]
    if arguments.device != "cpu":
        ways.remove("plain, memory kept")
    command = [sys.executable, "-m", "tests.benchmarks.step", *sys.argv[1:], "--serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    servers = {
        way: subprocess.Popen([*command, json.dumps([way, setting])], **pipes) for way in ways
    }
    for server in servers.values():
        server.stdout.readline()
    rounds = []
    for _ in range(arguments.rounds + 1):
        rounds.append({})
        for way, server in servers.items():
            server.stdin.write("\n")
            server.stdin.flush()
            rounds[-1][way] = json.loads(server.stdout.readline())
    for server in servers.values():
        server.communicate()
    least, rate = limit(setting, arguments)
    print(
        f"\n{setting['canvas']} px, {setting['n_noise']} noise objects, ours in "
        f"{arguments.precision}; limit of selection {least:.2f} s at {rate:.0f} GFLOP/s"
    )
    print(f"{'':<20}{'select s':>10}{'train s':>10}{'step s':>10}{'times':>8}{'blank kept':>12}")
    ours = median(r["ours"]["step"] for r in rounds[1:])
    for way in ways:
        part = {k: median(r[way][k] for r in rounds[1:]) for k in rounds[0][way]}
        print(
            f"{way:<20}{part['select']:>10.3f}{part['train']:>10.3f}{part['step']:>10.3f}"
            f"{part['step'] / ours:>8.1f}{part['blank_kept']:>12.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="steps of each way (default 3)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of ours")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="a state dict; fresh weights without")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve), arguments)
    else:
        for setting in SETTINGS:
            compare(setting, arguments)


if __name__ == "__main__":
    main()
