"""The steps that `train` takes, beside the same steps taken plainly in float64."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ipslib import training
from ipslib.config import RunConfig
from ipslib.losses import Losses
from ipslib.model.ips import IPSOutput
from tests.reference import PlainIPS, dense_bag, plain_losses, plain_rate
from tests.tiny import TINY

# In the first step of this seed no value comes nearer to the kink of a rectifier than 2.7e-5. Where
# rounding takes a single one to the other side, the encoder's gradient changes by up to a percent.
CONFIG = TINY.replace(
    canvas=(196, 168), n_train=20, n_test=1, width=0.0625, memory_size=8, iter_size=5, dropout=0.0,
    attn_dropout=0.0, epochs=4, eval_every=4, seed=13,
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
    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]
    statistics: dict[str, Tensor]  # of batch norms


def step_of(network: nn.Module, output: IPSOutput, losses: Losses, rate: float) -> Step:
    parts = losses._asdict()
    parts |= parts.pop("by_task")
    weights = dict(network.named_parameters())
    return Step(
        output.selection.indices.sort(dim=1).values,
        {part: value.item() for part, value in parts.items() if value is not None},
        rate,
        {name: weight.detach().double().clone() for name, weight in weights.items()},
        {name: w.grad.double() for name, w in weights.items() if w.grad is not None},
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
        losses = plain_losses(output, labels, settings)
        optimiser.zero_grad()
        losses.total.backward()
        steps.append(step_of(network, output, losses, rate))
        optimiser.step()
    return steps


def moved_plainly(steps: list[Step]) -> dict[str, Tensor]:
    """How far AdamW moves the first weights by the gradients and rates of all steps but the last,
    in float64."""
    weights = {name: nn.Parameter(weight.clone()) for name, weight in steps[0].weights.items()}
    optimiser = torch.optim.AdamW(weights.values(), weight_decay=0.1)
    for step in steps[:-1]:
        optimiser.param_groups[0]["lr"] = step.rate
        for name, gradient in step.gradients.items():
            weights[name].grad = gradient
        optimiser.step()
    return {name: weights[name].detach() - weight for name, weight in steps[0].weights.items()}


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


# Among few noise objects a tenth of the kept patches or more are blank: they share an embedding.
@pytest.mark.parametrize(
    ("n_noise", "regularised"),
    [
        (5, {}),
        (400, {}),
        (5, {"semantic_weight": 1.0, "diversity_weight": 2.0}),
        (400, {"diversity_weight": 3.0, "diversity_on": "outputs"}),
    ],
)
def test_training_is_the_plain_one(monkeypatch, n_noise, regularised):
    config = CONFIG.replace(n_noise=n_noise, **regularised)
    network, given, ours = trained(config, monkeypatch)
    plain = trained_plainly(network, given, config)
    assert len(ours) == N_STEPS
    for each, step in zip(given, plain, strict=True):
        assert (share_blank(each, step) >= 0.1) == (n_noise == 5)

    assert torch.equal(ours[0].kept, plain[0].kept)
    assert ours[0].losses == pytest.approx(plain[0].losses, rel=1e-6, abs=1e-6)
    moved = {name: weight - ours[0].weights[name] for name, weight in ours[-1].weights.items()}
    for one, other, bound in (
        (ours[0].statistics, plain[0].statistics, 1e-5),
        (ours[0].gradients, plain[0].gradients, 1e-5),
        (moved, moved_plainly(ours), 1e-4),
    ):
        gaps = {part: gap(one, other, part) for part in {name.split(".")[0] for name in other}}
        assert max(gaps.values()) < bound, gaps
    for step, plain_step in zip(ours, plain, strict=True):
        assert step.rate == pytest.approx(plain_step.rate, rel=1e-12)
        assert step.losses == pytest.approx(plain_step.losses, rel=2e-3, abs=2e-3)
