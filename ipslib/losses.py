"""Task, semantic and diversity losses, as functions of logits and attention.

Semantic and diversity losses: Zhang et al., ACMIL, arXiv 2311.07125, on the heads of one
cross-attention as in arXiv 2412.11237.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ipslib.model.ips import IPSOutput


class Losses(NamedTuple):
    """The weighted sum and its parts, each a scalar."""

    total: Tensor
    task: Tensor  # mean of by_task
    semantic: Tensor
    diversity: Tensor
    by_task: dict[str, Tensor]


ByTask = Mapping[str, Tensor]


def task_losses(
    logits: ByTask, labels: ByTask, class_weights: ByTask | None = None
) -> dict[str, Tensor]:
    """Of logits {task: (B, C)}: each task's negative log-likelihood for labels (B,) of one class,
    binary cross-entropy for sets, (B, C) multi-hot, or squared error for numbers, (B,) float.
    Weights {task: (C,)} are of classes, or of having one label of a set. Their sum over a
    batch divides no loss: in a batch of one image, or one class, they would count for nothing."""
    losses = {}
    for task, each in logits.items():
        label, weight = labels[task], (class_weights or {}).get(task)
        if label.ndim == 2:
            losses[task] = F.binary_cross_entropy_with_logits(each, label, pos_weight=weight)
        elif is_number(label):
            losses[task] = F.mse_loss(each[:, 0], label)
        elif weight is None:
            losses[task] = F.cross_entropy(each, label)
        else:
            losses[task] = F.cross_entropy(each, label, weight=weight, reduction="sum") / len(label)
    return losses


def is_number(labels: Tensor) -> bool:
    """Whether labels of a task are numbers, and not classes or sets of them."""
    return labels.ndim == 1 and labels.is_floating_point()


def task_loss(logits: ByTask, labels: ByTask, class_weights: ByTask | None = None) -> Tensor:
    """The mean of `task_losses` over tasks."""
    return torch.stack(list(task_losses(logits, labels, class_weights).values())).mean()


def semantic_loss(
    branch_logits: ByTask, labels: ByTask, class_weights: ByTask | None = None
) -> Tensor:
    """Every attention head alone must solve every task: the mean task loss over heads, of
    branch_logits {task: (B, H, C)}."""
    alone, repeated = {}, {}
    for task, logits in branch_logits.items():
        alone[task] = logits.flatten(0, 1)  # (B H, C)
        repeated[task] = labels[task].repeat_interleave(logits.shape[1], dim=0)
    return task_loss(alone, repeated, class_weights)


def diversity_loss(per_head: Tensor) -> Tensor:
    """Mean cosine similarity over all pairs of heads, tokens and images; 0 for a single head.

    `per_head` is (B, H, T, X): the heads' attention over X patches (ACMIL), or their outputs of X
    dimensions (as published, arXiv 2412.11237).
    """
    n_heads = per_head.shape[1]
    if n_heads < 2:
        return per_head.new_zeros(())
    unit = F.normalize(per_head.transpose(1, 2), dim=-1)  # (B, T, H, X)
    cosine = unit @ unit.transpose(-1, -2)  # (B, T, H, H)
    first, second = torch.triu_indices(n_heads, n_heads, offset=1, device=per_head.device)
    return cosine[..., first, second].mean()


def combined_losses(
    output: IPSOutput,
    labels: ByTask,
    *,
    class_weights: ByTask | None = None,
    semantic_weight: float = 0.0,
    diversity_weight: float = 0.0,
    diversity_on: str = "attention",
) -> Losses:
    """Total = task + semantic_weight x semantic + diversity_weight x diversity. Diversity is of
    `attention` (as its source defines it) or of `outputs` (as published)."""
    by_task = task_losses(output.logits, labels, class_weights)
    task = torch.stack(list(by_task.values())).mean()
    semantic = diversity = torch.zeros_like(task)
    if semantic_weight:
        semantic = semantic_loss(output.branch_logits, labels, class_weights)
    if diversity_weight:
        heads = output.attn_weights if diversity_on == "attention" else output.head_outputs
        diversity = diversity_loss(heads)
    total = task + semantic_weight * semantic + diversity_weight * diversity
    return Losses(total, task, semantic, diversity, by_task)
