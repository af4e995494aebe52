"""What an epoch adds up to: means of losses and accuracies over batches of any size."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ipslib.losses import Losses


class Tally:
    """Running sums over batches of losses and right answers, kept on the device."""

    def __init__(self) -> None:
        self.n, self.sums, self.by_task, self.correct, self.totals = 0, {}, {}, {}, []

    def add(self, logits: Mapping[str, Tensor], labels: Mapping, losses: Losses) -> None:
        size = len(next(iter(logits.values())))
        self.n += size
        self.totals.append(losses.total.detach())
        parts = losses._asdict()
        by_task = parts.pop("by_task")
        for part, value in parts.items():
            self.sums[part] = self.sums.get(part, 0) + value.detach() * size
        for task, each in logits.items():
            self.by_task[task] = self.by_task.get(task, 0) + by_task[task].detach() * size
            self.correct[task] = self.correct.get(task, 0) + n_correct(each.detach(), labels[task])

    def means(self) -> dict:
        losses = {part: float(value) / self.n for part, value in self.sums.items()}
        accuracy = {task: int(value) / self.n for task, value in self.correct.items()}
        by_task = {task: float(value) / self.n for task, value in self.by_task.items()}
        return {
            "loss": losses.pop("total"),
            "loss_parts": losses,
            "task_losses": by_task,
            "accuracy": accuracy,
        }

    def first_not_finite(self) -> int:
        """The first step, from 1, whose loss is not finite; 0 where all are."""
        finite = torch.stack(self.totals).isfinite()
        return 0 if finite.all() else int(finite.int().argmin()) + 1


def n_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Right answers in a batch; a set of labels is right when every one of them is (at 0.5)."""
    if labels.ndim == 2:
        return ((logits > 0) == labels.bool()).all(dim=1).sum()
    return (logits.argmax(dim=1) == labels).sum()
