"""Training and evaluation: one loop, one step, the same run twice bitwise the same on a CPU."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ipslib.config import RunConfig, TrainingConfig
from ipslib.data.megapixel_mnist import N_CLASSES, MegapixelMNIST, SceneBatch
from ipslib.data.patches import PatchBatch
from ipslib.errors import IpslibError
from ipslib.localisation import Localisation, localise, mean_localisation
from ipslib.losses import Losses, combined_losses
from ipslib.model.ips import IPSNet, IPSOutput, evaluating

_EVALUATION_SEED = 0  # of the order in which evaluation visits patches: the same every time


class Trained(NamedTuple):
    """A finished run: the network, a row an epoch, and where its attention lay at the end."""

    network: IPSNet
    history: list[dict]
    localisation: Localisation


class Evaluation(NamedTuple):
    """Means over a set."""

    loss: float
    accuracy: dict[str, float]
    localisation: Localisation


def build_network(config: RunConfig, *, device: str = "cpu") -> IPSNet:
    """An untrained network of a configuration; its initial weights follow the training seed."""
    torch.manual_seed(config.training.seed)
    network = IPSNet(config.model, dict.fromkeys(config.data.tasks, N_CLASSES)).to(device)
    network.precision = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    return network


def train(
    config: RunConfig, *, device: str = "cpu", on_epoch: Callable[[dict], None] | None = None
) -> Trained:
    """Train one configuration to its last epoch and evaluate it.

    Args:
        config: the run.
        device: where the network lives.
        on_epoch: called with the row of history after every epoch.

    Raises:
        IpslibError: when the loss is no longer finite.
    """
    settings = config.training
    network = build_network(config, device=device)
    optimiser = torch.optim.AdamW(
        [weight for weight in network.parameters() if weight.requires_grad],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    train_set, test_set = MegapixelMNIST(config.data, "train"), MegapixelMNIST(config.data, "test")
    generator = torch.Generator().manual_seed(settings.seed)
    history = []
    for epoch in range(1, settings.epochs + 1):
        start = time.perf_counter()
        means = _train_epoch(network, optimiser, train_set, settings, epoch, generator)
        row = {"epoch": epoch, "train": means, "test": None}
        row["seconds"] = round(time.perf_counter() - start, 3)
        if epoch % settings.eval_every == 0 or epoch == settings.epochs:
            test = evaluate(network, test_set, settings.batch_size)
            row["test"] = {"loss": test.loss, "accuracy": test.accuracy}
        history.append(row)
        if on_epoch:
            on_epoch(row)
    return Trained(network, history, test.localisation)


def _train_epoch(
    network: IPSNet,
    optimiser: torch.optim.Optimizer,
    train_set: MegapixelMNIST,
    settings: TrainingConfig,
    epoch: int,
    generator: torch.Generator,
) -> dict:
    """One pass over the training set in a new order; the means of losses and accuracies."""
    network.train()
    tally = _Tally()
    order = torch.randperm(len(train_set), generator=generator)
    steps_per_epoch = math.ceil(len(train_set) / settings.batch_size)
    for step, indices in enumerate(order.split(settings.batch_size)):
        rate = learning_rate((epoch - 1) * steps_per_epoch + step, steps_per_epoch, settings)
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = train_set.batch(indices.tolist())
        output, losses, labels = forward_step(network, batch, settings, generator)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        tally.add(output.logits, labels, losses)
    means = tally.means()
    if not math.isfinite(means["loss"]):
        raise IpslibError(
            f"The loss is no longer finite in epoch {epoch} (lr {settings.lr:g}, precision "
            f"{settings.precision}); lower lr or the loss weights, or use precision fp32."
        )
    return means


def forward_step(
    network: IPSNet, batch: SceneBatch, settings: TrainingConfig, generator: torch.Generator
) -> tuple[IPSOutput, Losses, Mapping[str, Tensor]]:
    """The forward pass that training and evaluation share."""
    labels = {task: label.to(network.device) for task, label in batch.labels.items()}
    output = network(batch, generator=generator)
    losses = combined_losses(
        output,
        labels,
        semantic_weight=settings.semantic_weight,
        diversity_weight=settings.diversity_weight,
        diversity_on=settings.diversity_on,
    )
    return output, losses, labels


@torch.no_grad()
def evaluate(
    network: IPSNet,
    dataset: MegapixelMNIST,
    batch_size: int,
    *,
    settings: TrainingConfig | None = None,
) -> Evaluation:
    """Loss, accuracy and localisation over a data set."""
    settings = settings or TrainingConfig()
    generator = torch.Generator().manual_seed(_EVALUATION_SEED)
    tally, parts, sizes = _Tally(), [], []
    with evaluating(network.modules()):
        for batch in batches(dataset, batch_size):
            output, losses, labels = forward_step(network, batch, settings, generator)
            tally.add(output.logits, labels, losses)
            kept, weights = output.selection.indices, output.attn_weights.cpu()
            parts.append(localise(dataset.grid, kept, weights, batch.boxes))
            sizes.append(batch.batch_size)
    means = tally.means()
    return Evaluation(means["loss"], means["accuracy"], mean_localisation(parts, sizes))


@torch.no_grad()
def attend(network: IPSNet, batch: PatchBatch) -> tuple[Tensor, Tensor]:
    """What a network keeps of each image, and how it attends to it, in evaluation mode.

    Returns:
        Kept patches (B, M) and attention weights (B, H, T, M), on the CPU.
    """
    with evaluating(network.modules()):
        output = network(batch, generator=torch.Generator().manual_seed(_EVALUATION_SEED))
    return output.selection.indices, output.attn_weights.cpu()


def batches(dataset: MegapixelMNIST, batch_size: int) -> Iterator[SceneBatch]:
    """All images in order."""
    for start in range(0, len(dataset), batch_size):
        yield dataset.batch(range(start, min(start + batch_size, len(dataset))))


def learning_rate(step: int, steps_per_epoch: int, settings: TrainingConfig) -> float:
    """Rate of a step from 0: linear warm-up, then cosine to `final_lr_ratio` of the peak."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    total = settings.epochs * steps_per_epoch
    progress = (step - warmup) / max(1, total - warmup)
    floor = settings.final_lr_ratio
    return settings.lr * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


def n_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Right answers in a batch; a set of labels is right when every one of them is (at 0.5)."""
    if labels.ndim == 2:
        return ((logits > 0) == labels.bool()).all(dim=1).sum()
    return (logits.argmax(dim=1) == labels).sum()


class _Tally:
    """Running sums over batches of losses and right answers, kept on the device."""

    def __init__(self) -> None:
        self.n, self.sums, self.correct = 0, {}, {}

    def add(self, logits: Mapping[str, Tensor], labels: Mapping, losses: Losses) -> None:
        size = len(next(iter(logits.values())))
        self.n += size
        for part, value in losses._asdict().items():
            self.sums[part] = self.sums.get(part, 0) + value.detach() * size
        for task, each in logits.items():
            self.correct[task] = self.correct.get(task, 0) + n_correct(each.detach(), labels[task])

    def means(self) -> dict:
        losses = {part: float(value) / self.n for part, value in self.sums.items()}
        accuracy = {task: int(value) / self.n for task, value in self.correct.items()}
        return {"loss": losses.pop("total"), "loss_parts": losses, "accuracy": accuracy}
