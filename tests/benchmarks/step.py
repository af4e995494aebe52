"""Milliseconds of a training step: this path against the published algorithm written plainly.

    python -m tests.benchmarks.step [--rounds N] [--precision fp32] [--device cpu] [--weights FILE]
                                    [--smoke]

`plain` is tests/reference.py: dense images, every patch encoded, fp32 (on CUDA with TF32, as ours).
`ours` has its batches prepared ahead as in training, and on CUDA bf16 unless told otherwise. In
every round each makes one step, one after the other, so that both share the machine's moods and
keep freed memory alike. Medians over rounds, the first left out. `times` is plain over ours.

The published setting: ResNet-18 of two stages, batch 16, M = I = 100, patches of 50 px. `--weights`
takes a state dict of this network, for weights that have learned; `--smoke` times tiny images, to
see that everything runs.
"""

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import torch

from ipslib.commands.gpu import TrainingStep, now
from ipslib.datasets.megapixel_mnist.digits import find_source
from ipslib.datasets.registry import run_config
from ipslib.losses import combined_losses
from ipslib.runtime import is_accelerator
from tests.reference import PlainIPS, dense_bag

SETTINGS = ({"canvas": 1500, "n_noise": 50}, {"canvas": 3000, "n_noise": 800})
SMOKE = ({"canvas": 200, "n_noise": 5, "width": 0.125, "memory_size": 4, "iter_size": 4},)


class PlainStep:
    """A step by the published algorithm, always on the same images."""

    def __init__(self, ours: TrainingStep):
        self.network = PlainIPS(ours.state.network).to(ours.state.network.device).train()
        batch = next(ours.batches)
        self.bag = dense_bag(batch).to(ours.state.network.device)
        self.labels = {task: label.to(self.bag.device) for task, label in batch.labels.items()}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), fused=True)

    def __call__(self) -> float:
        start = now(self.bag.device)
        losses = combined_losses(self.network(self.bag), self.labels)
        self.optimiser.zero_grad()
        losses.total.backward()
        self.optimiser.step()
        return now(self.bag.device) - start


def timed(step: Callable[[], float], owner: torch.nn.Module, device: torch.device) -> list[float]:
    """Seconds of a step's selection, of what follows it, and of both."""
    select, spent = owner.select, []

    def watched(*args, **kwargs):
        start = now(device)
        selection = select(*args, **kwargs)
        spent.append(now(device) - start)
        return selection

    owner.select = watched
    try:
        seconds = step()
    finally:
        del owner.select
    return [spent[0], seconds - spent[0], seconds]


def compare(setting: dict, arguments: argparse.Namespace) -> None:
    """Print one setting's table."""
    data = {"digits": find_source(), "n_train": 64}
    config = run_config(setting | data | {"precision": arguments.precision})
    ours, device = TrainingStep(config, arguments.device), torch.device(arguments.device)
    with closing(ours.batches):
        if arguments.weights:
            weights = torch.load(arguments.weights, map_location="cpu", weights_only=True)
            ours.state.network.load_state_dict(weights)
        plain = PlainStep(ours)
        steps = {"plain": (plain, plain.network), "ours": (ours, ours.state.network)}
        rounds = [
            {name: timed(step, owner, device) for name, (step, owner) in steps.items()}
            for _ in range(arguments.rounds + 1)
        ]
    print(f"\n{setting['canvas']} px, {setting['n_noise']} noise objects, {arguments.precision}")
    heads = ("select ms", "train ms", "step ms", "times")
    print(f"{'':<8}" + "".join(f"{head:>12}" for head in heads))
    medians = {}
    for name in steps:
        parts = zip(*(each[name] for each in rounds[1:]), strict=True)
        medians[name] = [1e3 * median(part) for part in parts]
    for name, milliseconds in medians.items():
        cells = [*milliseconds, milliseconds[2] / medians["ours"][2]]
        print(f"{name:<8}" + "".join(f"{cell:>12.1f}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="timed steps of each (3; on CUDA 30)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of ours (fp32; CUDA: bf16)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="a state dict; fresh weights without")
    parser.add_argument("--smoke", action="store_true", help="tiny images")
    arguments = parser.parse_args()
    on_accelerator = is_accelerator(arguments.device)
    arguments.rounds = arguments.rounds or (30 if on_accelerator else 3)
    arguments.precision = arguments.precision or ("bf16" if on_accelerator else "fp32")
    for setting in SMOKE if arguments.smoke else SETTINGS:
        compare(setting, arguments)


if __name__ == "__main__":
    main()
