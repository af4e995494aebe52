"""Training and evaluation: one loop, one step, the same run twice bitwise the same on a CPU."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ipslib.config import RunConfig, TrainingConfig
from ipslib.errors import IpslibError
from ipslib.losses import Losses, combined_losses
from ipslib.metrics import (
    Localisation,
    Tally,
    has_object,
    localise,
    mean_localisation,
    measure_answers,
)
from ipslib.model.ips import IPSNet, IPSOutput, evaluating
from ipslib.patches import Dataset, LabelledBatch, MixedBatch, PatchBatch, PatchGrid
from ipslib.runtime import chosen_device, keep_freed_memory, moved, prefetched, prepare
from ipslib.selection import NotFiniteScoreError


class DivergenceError(IpslibError):
    """The loss is no longer finite."""


class SnapshotError(IpslibError):
    """A snapshot that is not of this configuration and code."""


class Trained(NamedTuple):
    """A finished run."""

    network: IPSNet
    history: list[dict]  # one row per epoch


class Evaluation(NamedTuple):
    """Means over a set."""

    loss: float
    accuracy: dict[str, float]
    localisation: Localisation | None  # None where no object's place is known
    measures: dict[str, dict[str, float]]  # by name and task; of uneven classes

    def row(self) -> dict:
        """As it stands in a history."""
        located = self.localisation and self.localisation._asdict()
        row = {"loss": self.loss, "accuracy": self.accuracy, "attention": located}
        return row | ({"measures": self.measures} if self.measures else {})


def build_network(config: RunConfig, *, device: str = "cpu", **options: object) -> IPSNet:
    """An untrained network of a configuration; its initial weights follow the training seed.
    `options` are `pretrained` and `encoder` of `IPSNet`."""
    torch.manual_seed(config.training.seed)
    data = config.data
    sizes = {"in_channels": data.in_channels, "patch_size": data.patch_size}
    network = IPSNet(config.model, data.n_classes, **sizes, **options).to(device)
    network.precision = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    return network


class TrainingState:
    """All that a run is between two epochs: what it would take to go on as if never stopped."""

    def __init__(self, config: RunConfig, *, device: str = "cpu"):
        self.settings = settings = config.training
        self.network = build_network(config, device=device)
        self.optimiser = torch.optim.AdamW(
            [weight for weight in self.network.parameters() if weight.requires_grad],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.published_start = config.published_start
        if self.published_start:  # orders go on where the weights' draws ended
            self.generator.set_state(torch.get_rng_state())
        self.history: list[dict] = []
        self.best: dict[str, Tensor] | None = None  # weights of the best epoch on validation images

    def snapshot(self) -> dict:
        """Weights, optimiser, every random state and the history, of plain types and tensors;
        they are the state's own: save or copy them before training goes on."""
        device = self.network.device
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "history": self.history,
            "best": self.best,
        }

    def restore(self, snapshot: Mapping) -> None:
        """Take up a snapshot of the same configuration; SnapshotError where it does not fit."""
        device = self.network.device
        try:
            self.network.load_state_dict(snapshot["network"])
            self.optimiser.load_state_dict(snapshot["optimiser"])
            self.generator.set_state(snapshot["generator"])
            torch.set_rng_state(snapshot["random"])
            if snapshot["cuda_random"] is not None and device.type == "cuda":
                torch.cuda.set_rng_state(snapshot["cuda_random"], device)
            self.history = list(snapshot["history"])
            self.best = snapshot.get("best")
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise SnapshotError(f"the snapshot does not fit ({type(error).__name__}).") from error

    def keep_best(self) -> None:
        """Copy the weights where the last epoch did best on the validation images."""
        if "validation" in self.history[-1] and kept_epoch(self.history) is self.history[-1]:
            weights = self.network.state_dict()
            self.best = {name: value.detach().clone() for name, value in weights.items()}

    def draw_training_order(self, n_images: int, weights: Tensor | None = None) -> Tensor:
        """The order of the training images in the next epoch, (n_images,); with sampling weights
        (n_images,) some are in it several times, and some not."""
        order = self.generator
        if weights is not None:
            return torch.multinomial(weights, n_images, replacement=True, generator=order)
        if self.published_start:  # as a torch DataLoader's RandomSampler draws it
            self._draw_workers_seed()
            order = torch.Generator().manual_seed(self._draw_seed())
        return torch.randperm(n_images, generator=order)

    def evaluation_generator(self, dataset: Dataset, batch_size: int) -> torch.Generator | None:
        """Of the patches' orders in the evaluation after this epoch; None: the same every time. The
        published runs evaluated after every epoch: what that draws is drawn here, so that
        `eval_every` does not change the training."""
        if not self.published_start:
            return None
        self._draw_workers_seed()
        orders = self.generator.clone_state()
        for _ in range(math.ceil(len(dataset) / batch_size)):
            torch.randperm(dataset.grid.n_patches, generator=self.generator)
        return orders

    def _draw_workers_seed(self) -> None:
        """As a DataLoader with persistent workers, once."""
        if not self.history:
            self._draw_seed()

    def _draw_seed(self) -> int:
        return int(torch.empty((), dtype=torch.int64).random_(generator=self.generator))


def train(
    config: RunConfig,
    *,
    device: str = "cpu",
    snapshot: Mapping | None = None,
    on_epoch: Callable[[dict, TrainingState], None] | None = None,
) -> Trained:
    """Train one configuration on a device to its last epoch and evaluate it. With validation
    images the network is that of the epoch that did best on them, `kept_epoch`, by its loss.

    Args:
        snapshot: of `TrainingState`, to go on from; the end is the same as without the stop.
        on_epoch: called after every epoch with its row of history and the state.

    Raises:
        DivergenceError: when the loss is no longer finite.
        SnapshotError: when the snapshot does not fit.
        IpslibError: for a device that is not there.
    """
    settings, device = config.training, chosen_device(device)
    keep_freed_memory()
    prepare(device)
    state = TrainingState(config, device=device)
    if snapshot is not None:
        state.restore(snapshot)
    train_set, test_set = (config.data.open_split(split) for split in ("train", "test"))
    evaluated = {"test": test_set}
    if getattr(config.data, "validation", 0):
        evaluated["validation"] = config.data.open_split("validation")
    for epoch in range(len(state.history) + 1, settings.epochs + 1):
        start = time.perf_counter()
        row = {"epoch": epoch, "train": _train_epoch(state, train_set, epoch), "test": None}
        row["seconds"] = round(time.perf_counter() - start, 3)
        orders = state.evaluation_generator(test_set, settings.batch_size)
        if epoch % settings.eval_every == 0 or epoch == settings.epochs:
            for split, images in evaluated.items():
                where = f"on the {split} set after epoch {epoch}"
                with _stopped_where(settings, partial(str, where)):
                    found = evaluate(state.network, images, settings.batch_size, generator=orders)
                    _check_finite(found.loss)
                row[split] = found.row()
        state.history.append(row)
        state.keep_best()
        if on_epoch:
            on_epoch(row, state)
    if state.best:
        state.network.load_state_dict(state.best)
    return Trained(state.network, state.history)


def kept_epoch(history: Sequence[dict]) -> dict:
    """The row of the epoch whose weights are kept: the one with the least loss on the validation
    images, the first of equals; the last where there are none."""
    validated = [row for row in history if "validation" in row]
    return min(validated, key=lambda row: row["validation"]["loss"], default=history[-1])


def _train_epoch(state: TrainingState, train_set: Dataset, epoch: int) -> dict:
    """One pass over the training set in a new order; the means of losses and accuracies."""
    network, settings, tally = state.network.train(), state.settings, Tally()
    network.by_novelty = epoch <= settings.novelty_epochs
    train_set = train_set.augmented(seed=settings.seed, epoch=epoch)
    sampling = getattr(train_set, "sampling_weights", None)
    steps = state.draw_training_order(len(train_set), sampling).split(settings.batch_size)
    before, make = (epoch - 1) * len(steps), batch_maker(train_set, network.device)

    def where() -> str:
        step = tally.first_not_finite() or len(tally.totals) + 1
        return f"in epoch {epoch}, step {step} of {len(steps)}"

    with _stopped_where(settings, where):
        for step, batch in enumerate(prefetched(make, (s.tolist() for s in steps)), before + 1):
            for group in state.optimiser.param_groups:
                group["lr"] = learning_rate(step, len(steps), settings)
            output, losses, labels = forward_step(network, batch, settings, state.generator)
            state.optimiser.zero_grad()
            losses.total.backward()
            state.optimiser.step()
            tally.add(output.logits, labels, losses)
        means = tally.means()
        _check_finite(means["loss"])
    return means


def _check_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise NotFiniteScoreError(f"the loss is {loss}.")


@contextmanager
def _stopped_where(settings: TrainingConfig, where: Callable[[], str]) -> Iterator[None]:
    """What is not finite ends the run, and the error says where."""
    try:
        yield
    except NotFiniteScoreError as error:
        raise DivergenceError(
            f"the loss is no longer finite {where()} (lr {settings.lr:g}, precision "
            f"{settings.precision}); lower lr or the loss weights, or use precision fp32."
        ) from error


def forward_step(
    network: IPSNet, batch: LabelledBatch, settings: TrainingConfig, generator: torch.Generator
) -> tuple[IPSOutput, Losses, Mapping[str, Tensor]]:
    """The forward pass of training, its losses, and the labels on the network's device."""
    labels, class_weights = _targets(batch, network.device)
    output = network(batch, generator=generator)
    names = ("semantic_weight", "diversity_weight", "diversity_on")
    weights = {name: getattr(settings, name) for name in names}
    losses = combined_losses(output, labels, class_weights=class_weights, **weights)
    return output, losses, labels


def _targets(batch: LabelledBatch, device: torch.device) -> tuple[dict[str, Tensor], ...]:
    """Labels, and weights of classes where the batch has them, by task on a device."""
    both = batch.labels, getattr(batch, "class_weights", {})
    return tuple({task: moved(value, device) for task, value in each.items()} for each in both)


def evaluate(
    network: IPSNet,
    dataset: Dataset,
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
) -> Evaluation:
    """Task loss, accuracy and localisation over a data set, as `predict` goes through it."""
    tally, parts, sizes, answers = Tally(), [], [], []
    for output, batch in predict(network, dataset, batch_size, generator=generator):
        labels, weights = _targets(batch, network.device)
        tally.add(output.logits, labels, combined_losses(output, labels, class_weights=weights))
        answers.append((output.logits, batch.labels))
        if batch.boxes is not None:
            kept, attention = output.selection.indices.cpu(), output.attn_weights.cpu()
            for grid, images in _by_grid(dataset, batch):
                boxes = batch.boxes[images]
                if n_located := int(has_object(boxes).any(dim=1).sum()):
                    parts.append(localise(grid, kept[images], attention[images], boxes))
                    sizes.append(n_located)
    means, located = tally.means(), mean_localisation(parts, sizes) if parts else None
    deviations = getattr(dataset, "deviations", {})
    measures = measure_answers(answers, deviations) if dataset.uneven else {}
    return Evaluation(means["loss"], means["accuracy"], located, measures)


def _by_grid(dataset: Dataset, batch: LabelledBatch) -> list[tuple[PatchGrid, slice]]:
    """The grids of a batch, and the images that each cuts."""
    if dataset.grid is not None:
        return [(dataset.grid, slice(None))]
    return [(grid, slice(i, i + 1)) for i, grid in enumerate(batch.grids)]


def predict(
    network: IPSNet,
    dataset: Dataset,
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[IPSOutput, LabelledBatch]]:
    """What a network answers to all images in order, batch by batch, in evaluation mode; the
    generator is of the order in which patches are visited, None the same every time."""
    generator = generator or torch.Generator().manual_seed(0)
    together = torch.arange(len(dataset)).split(batch_size)
    make = batch_maker(dataset, network.device)
    for batch in prefetched(make, (images.tolist() for images in together)):
        yield answer(network, batch, generator=generator), batch


@torch.no_grad()
def answer(
    network: IPSNet, batch: PatchBatch, *, generator: torch.Generator | None = None
) -> IPSOutput:
    """What a network answers to one batch, in evaluation mode; arguments as of `predict`."""
    with evaluating(network.modules()):
        return network(batch, generator=generator or torch.Generator().manual_seed(0))


def attend(network: IPSNet, batch: PatchBatch) -> tuple[Tensor, Tensor]:
    """What a network keeps of each image, and how it attends to it, in evaluation mode: patches
    (B, M) and attention weights (B, H, T, M), on the CPU; -1 and 0 behind the patches of an image
    that has fewer than M."""
    output = answer(network, batch)
    return output.selection.indices.cpu(), output.attn_weights.cpu()


def batch_maker(
    dataset: Dataset, device: torch.device | str
) -> Callable[[Sequence[int]], LabelledBatch | MixedBatch]:
    """What takes indices to a batch for a network on a device: images that are drawn are drawn
    there, others are read on the host."""

    def make(indices: Sequence[int]) -> LabelledBatch | MixedBatch:
        batch = dataset.batch(indices)
        return batch.on(device) if hasattr(batch, "on") else batch

    return make


def learning_rate(step: int, steps_per_epoch: int, settings: TrainingConfig) -> float:
    """Rate of a step, counted from 1 over all epochs: linear warm-up to the peak, then cosine down
    to `final_lr_ratio` of it, which the last step takes."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step <= warmup:
        return settings.lr * step / warmup
    total = settings.epochs * steps_per_epoch
    progress = (step - warmup) / (total - warmup)
    floor = settings.final_lr_ratio
    return settings.lr * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)
