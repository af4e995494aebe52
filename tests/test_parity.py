"""The steps that `train` takes, beside the same steps taken plainly in float64."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ipslib import training
from ipslib.config import RunConfig
from ipslib.datasets.registry import run_config
from ipslib.losses import Losses
from ipslib.model.ips import IPSOutput
from tests.reference import PlainIPS, dense_bag, plain_losses, plain_rate

CONFIG = run_config(
    {
        "digits": "embedded", "canvas": (230, 180), "n_train": 20, "n_test": 1, "width": 0.125,
        "n_heads": 4, "memory_size": 8, "iter_size": 5, "dropout": 0.0, "attn_dropout": 0.0,
        "batch_size": 4, "epochs": 4, "warmup_epochs": 1, "eval_every": 4,
    }
)  # fmt: skip
N_STEPS, N_WARMUP = 20, 5


class Given(NamedTuple):
    """What a training step is given."""

    bag: Tensor  # (B, N, 1, P, P) uint8
    labels: dict[str, Tensor]
    order: Tensor  # (N,) in which patches are visited


class Step(NamedTuple):
    """What a training step computes, before the weights change."""

    kept: Tensor  # (B, M), sorted
    losses: dict[str, float]
    rate: float
    gradients: dict[str, Tensor]
    statistics: dict[str, Tensor]  # of batch norms


def step_of(network: nn.Module, output: IPSOutput, losses: Losses, rate: float) -> Step:
    weights = {name: w for name, w in network.named_parameters() if w.grad is not None}
    return Step(
        output.selection.indices.sort(dim=1).values,
        {part: value.item() for part, value in losses._asdict().items()},
        rate,
        {name: weight.grad.double() for name, weight in weights.items()},
        {name: buffer.double().clone() for name, buffer in network.named_buffers()},
    )


def trained(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[PlainIPS, list, list]:
    """Of `train`: the network before the first step, what each step is given, and the steps."""
    start, given, forward, steps = [], [], [], []
    forward_step = training.forward_step

    def watched(network, batch, settings, generator):
        if not network.training:
            return forward_step(network, batch, settings, generator)
        if not start:
            start.append(PlainIPS(network).double())
        order = torch.randperm(batch.n_patches, generator=generator.clone_state())
        given.append(Given(dense_bag(batch), batch.labels, order))
        output, losses, labels = forward_step(network, batch, settings, generator)
        forward.append((network, output, losses))
        return output, losses, labels

    def before_update(optimiser, *_):
        steps.append(step_of(*forward[-1], optimiser.param_groups[0]["lr"]))

    monkeypatch.setattr(training, "forward_step", watched)
    handle = register_optimizer_step_pre_hook(before_update)
    try:
        training.train(config)
    finally:
        handle.remove()
    return start[0], given, steps


def trained_plainly(network: PlainIPS, given: list[Given], config: RunConfig) -> list[Step]:
    settings, steps = config.training, []
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.1)
    for number, (bag, labels, order) in enumerate(given, start=1):
        rate = plain_rate(number, n_steps=N_STEPS, n_warmup=N_WARMUP, peak=1e-3)
        optimiser.param_groups[0]["lr"] = rate
        output = network(bag, order=order)
        losses = plain_losses(
            output,
            labels,
            semantic_weight=settings.semantic_weight,
            diversity_weight=settings.diversity_weight,
            diversity_on=settings.diversity_on,
        )
        optimiser.zero_grad()
        losses.total.backward()
        steps.append(step_of(network, output, losses, rate))
        optimiser.step()
    return steps


def share_blank(given: Given, step: Step) -> float:
    """Of the kept patches."""
    kept = given.bag[torch.arange(len(given.bag))[:, None], step.kept]
    return (kept.amax(dim=(2, 3, 4)) == 0).double().mean().item()


def gap(ours: dict[str, Tensor], plain: dict[str, Tensor], part: str) -> float:
    """Norm of the difference over the norm, of all tensors of a part of the network together."""
    assert ours.keys() == plain.keys()
    names = [name for name in plain if name.startswith(part)]
    ours, plain = (torch.cat([each[name].flatten() for name in names]) for each in (ours, plain))
    return ((ours - plain).norm() / plain.norm()).item()


# Among few noise objects more than a tenth of the kept patches are blank: they share an embedding.
@pytest.mark.parametrize(
    ("n_noise", "regularised"),
    [
        (5, {}),
        (300, {}),
        (5, {"semantic_weight": 1.0, "diversity_weight": 2.0}),
        (300, {"diversity_weight": 3.0, "diversity_on": "outputs"}),
    ],
)
def test_training_is_the_plain_one(monkeypatch, n_noise, regularised):
    config = CONFIG.replace(n_noise=n_noise, **regularised)
    network, given, ours = trained(config, monkeypatch)
    plain = trained_plainly(network, given, config)
    assert len(ours) == N_STEPS
    for each, step in zip(given, plain, strict=True):
        assert share_blank(each, step) > 0.1 if n_noise == 5 else share_blank(each, step) == 0

    assert torch.equal(ours[0].kept, plain[0].kept)
    assert ours[0].losses == pytest.approx(plain[0].losses, rel=1e-6, abs=1e-6)
    for each in ("statistics", "gradients"):
        one, other = getattr(ours[0], each), getattr(plain[0], each)
        gaps = {part: gap(one, other, part) for part in {n.split(".")[0] for n in other}}
        assert max(gaps.values()) < 1e-5, (each, gaps)
    for step, plain_step in zip(ours, plain, strict=True):
        assert step.rate == pytest.approx(plain_step.rate, rel=1e-12)
        assert step.losses == pytest.approx(plain_step.losses, rel=2e-3, abs=2e-3)
