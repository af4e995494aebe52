"""Milliseconds of a training step: this path against the published algorithm written plainly.

    python -m tests.benchmarks.step [--rounds N] [--precision fp32] [--device cpu] [--weights FILE]
                                    [--smoke]

`plain` is tests/reference.py: dense images, every patch encoded, fp32 (on CUDA with TF32 in its
convolutions, torch's default). Where the allocator counts (glibc, CPU) it runs twice, as it comes
and with freed memory kept. `ours` has its batches prepared ahead as in training, and on CUDA bf16
unless told otherwise. Each way is a process of its own; in every round each makes one step, one
after the other, so that all share its moods. Medians over rounds, the first quarter left out.
`times` is plain over ours; `peak` is what a process allocated at most on CUDA, or its resident set.

The published setting: ResNet-18 of two stages, batch 16, M = I = 100, patches of 50 px. `--weights`
takes an original checkpoint or a state dict of this network, for weights that have learned;
`--smoke` times tiny images, to see that everything runs.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch

from ipslib.commands.gpu import TrainingStep, now
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.digits import find_source
from ipslib.datasets.registry import run_config
from ipslib.losses import combined_losses
from ipslib.runs.provenance import peak_memory_mb
from ipslib.runtime import is_accelerator, keep_freed_memory
from ipslib.training import TrainingState, batch_maker
from tests.benchmarks.roofline import roofline
from tests.reference import PlainIPS, dense_bag

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ({"canvas": 1500, "n_noise": 50}, {"canvas": 3000, "n_noise": 800})
SMOKE = ({"canvas": 200, "n_noise": 5, "width": 0.125, "memory_size": 4, "iter_size": 4},)
_BATCHES = 4  # of different images, one after the other


class Step:
    """One way to make a training step on one setting, timed in its parts."""

    def __init__(self, way: str, setting: dict, arguments: argparse.Namespace):
        precision = "fp32" if way.startswith("plain") else arguments.precision
        self.config = run_config(
            setting | {"digits": find_source(), "precision": precision, "n_train": 16 * _BATCHES}
        )
        self.is_ours, self.device = way.startswith("ours"), torch.device(arguments.device)
        if way != "plain" and self.device.type == "cpu":
            keep_freed_memory()
        if self.is_ours:
            self.ours = TrainingStep(self.config, arguments.device)
            self.state = self.ours.state
        else:
            self.state = TrainingState(self.config, device=arguments.device)
            self.batch = batch_maker(MegapixelMNIST(self.config.data), self.device)(range(16))
            self.bag = dense_bag(self.batch).to(self.device)
        if arguments.weights:
            weights = torch.load(arguments.weights, map_location="cpu", weights_only=True)
            self.state.network.load_state_dict(weights)
        self.plain = None if self.is_ours else PlainIPS(self.state.network).to(self.device)
        if self.plain:
            self.optimiser = torch.optim.AdamW(self.plain.parameters(), fused=True)

    def __call__(self) -> dict[str, float]:
        """Seconds of selection, of all that follows it and of both, the share of blank patches
        among those kept, and the peak memory so far."""
        network = self.state.network.train()
        with _Stopwatch(self.plain or network, "select", self.device) as selecting:
            seconds = self.ours() if self.is_ours else self._step_plainly()
        last = self.ours if self.is_ours else self
        kept = last.batch.blank.gather(1, last.output.selection.indices.cpu())
        return {
            "select": selecting.seconds,
            "train": seconds - selecting.seconds,
            "step": seconds,
            "blank_kept": kept.float().mean().item(),
            "peak_mb": peak_memory_mb(str(self.device)),
        }

    def _step_plainly(self) -> float:
        start = now(self.device)
        self.output = self.plain.train()(self.bag)
        labels = {task: label.to(self.device) for task, label in self.batch.labels.items()}
        self.optimiser.zero_grad()
        combined_losses(self.output, labels).total.backward()
        self.optimiser.step()
        return now(self.device) - start


class _Stopwatch:
    """Times one function of a module or object while it is entered; on CUDA by events, so that
    the host does not wait between the parts of a step."""

    def __init__(self, owner: object, name: str, device: torch.device):
        self.owner, self.name, self.cuda, self.marks = owner, name, device.type == "cuda", []

    def __enter__(self) -> "_Stopwatch":
        function = getattr(self.owner, self.name)

        def timed(*args, **kwargs):
            self._mark()
            result = function(*args, **kwargs)
            self._mark()
            return result

        self.former, self.owner.__dict__[self.name] = self.owner.__dict__.get(self.name), timed
        return self

    def __exit__(self, *_) -> None:
        if self.former is None:
            del self.owner.__dict__[self.name]
        else:
            self.owner.__dict__[self.name] = self.former

    def _mark(self) -> None:
        if self.cuda:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(now(torch.device("cpu")))

    @property
    def seconds(self) -> float:
        """To be asked for once the device is done."""
        start, end = self.marks
        return start.elapsed_time(end) / 1e3 if self.cuda else end - start


def serve(way: str, setting: dict, arguments: argparse.Namespace) -> None:
    """Make a step for every line that comes in."""
    step = Step(way, setting, arguments)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)
    if step.is_ours:
        step.ours.batches.close()


def compare(setting: dict, arguments: argparse.Namespace) -> None:
    """Print one setting's table."""
    ways = ["plain", "ours"]
    if not is_accelerator(arguments.device):
        ways.insert(1, "plain, memory kept")
    command = [sys.executable, "-m", "tests.benchmarks.step", *sys.argv[1:], "--serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    servers = {
        way: subprocess.Popen([*command, json.dumps([way, setting])], **pipes) for way in ways
    }
    for server in servers.values():
        server.stdout.readline()
    rounds: dict[str, list[dict]] = {way: [] for way in ways}
    for _ in range(arguments.rounds + -(-arguments.rounds // 3)):
        for way, server in servers.items():
            server.stdin.write("\n")
            server.stdin.flush()
            rounds[way].append(json.loads(server.stdout.readline()))
    for server in servers.values():
        server.communicate()
    timed = {way: each[-arguments.rounds :] for way, each in rounds.items()}
    ours = Step("ours", setting, arguments).ours
    least = roofline(ours.state.network, next(ours.batches), arguments.precision)
    ours.batches.close()
    print(
        f"\n{setting['canvas']} px, {setting['n_noise']} noise objects, ours in "
        f"{arguments.precision} on {arguments.device}; {least}"
    )
    heads = ("select ms", "train ms", "step ms", "times", "peak MB", "blank kept")
    print(f"{'':<20}" + "".join(f"{head:>12}" for head in heads))
    base = median(each["step"] for each in timed["ours"])
    for way in ways:
        part = {name: median(each[name] for each in timed[way]) for name in timed[way][0]}
        print(
            f"{way:<20}{1e3 * part['select']:>12.1f}{1e3 * part['train']:>12.1f}"
            f"{1e3 * part['step']:>12.1f}{part['step'] / base:>12.1f}{part['peak_mb']:>12.0f}"
            f"{part['blank_kept']:>12.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="timed steps of each way (3; on CUDA 30)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of ours (fp32; CUDA: bf16)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="a state dict; fresh weights without")
    parser.add_argument("--smoke", action="store_true", help="tiny images")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_accelerator = is_accelerator(arguments.device)
    arguments.rounds = arguments.rounds or (30 if on_accelerator else 3)
    arguments.precision = arguments.precision or ("bf16" if on_accelerator else "fp32")
    if arguments.serve:
        serve(*json.loads(arguments.serve), arguments)
    else:
        for setting in SMOKE if arguments.smoke else SETTINGS:
            compare(setting, arguments)


if __name__ == "__main__":
    main()
