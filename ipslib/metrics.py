"""What is measured of a network's answers: accuracy and losses, balanced accuracy and AUC, whether
attention lies on the objects, and what attention heads do beside each other.

`random` values are what M patches drawn without replacement, attended alike, score on average.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from ipslib.losses import Losses, diversity_loss, is_number
from ipslib.model.ips import IPSOutput
from ipslib.patches import LabelledBatch, PatchGrid

Answers = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]


class Tally:
    """Running sums over batches of losses and right answers, kept on the device."""

    def __init__(self) -> None:
        self.n, self.totals = 0, []
        self.losses, self.by_task, self.correct = Counter(), Counter(), Counter()

    def add(self, logits: Mapping[str, Tensor], labels: Mapping, losses: Losses) -> None:
        size = len(next(iter(logits.values())))
        self.n += size
        self.totals.append(losses.total.detach())
        parts = losses._asdict()
        for task, value in parts.pop("by_task").items():
            self.by_task[task] += value.detach() * size
            if not is_number(labels[task]):
                self.correct[task] += n_correct(logits[task].detach(), labels[task])
        for part, value in parts.items():
            self.losses[part] += value.detach() * size

    def means(self) -> dict:
        sums = {"loss_parts": self.losses, "task_losses": self.by_task, "accuracy": self.correct}
        means = {of: {n: float(v) / self.n for n, v in each.items()} for of, each in sums.items()}
        return {"loss": means["loss_parts"].pop("total")} | means

    def first_not_finite(self) -> int:
        """The first step, from 1, whose loss is not finite; 0 where all are."""
        finite = torch.stack(self.totals).isfinite() if self.totals else torch.ones(1)
        return 0 if finite.all() else int(finite.int().argmin()) + 1


def n_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Right answers in a batch; a set of labels is right when every one of them is (at 0.5)."""
    if labels.ndim == 2:
        return ((logits > 0) == labels.bool()).all(dim=1).sum()
    return (logits.argmax(dim=1) == labels).sum()


def measure_answers(
    answers: Sequence[Answers], deviations: Mapping[str, float] = MappingProxyType({})
) -> dict[str, dict[str, float]]:
    """Measure answers where classes are not equally frequent, and numbers, by scikit-learn.

    Args:
        answers: of every batch, logits {task: (B, C)} and labels {task: (B,)}; tasks whose labels
            are sets (B, C) have no such measures.
        deviations: by task of numbers, what the unit of its labels is.

    Returns:
        By task, `balanced_accuracy`, and `auc` (of the second class) of two classes that occur; of
        numbers `mean_absolute_error`, and `r2` where they differ.
    """
    from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score  # brings pandas

    names = "balanced_accuracy", "auc", "mean_absolute_error", "r2"
    measures: dict[str, dict[str, float]] = {name: {} for name in names}
    for task in answers[0][0]:
        labels = torch.cat([labels[task].cpu() for _, labels in answers])
        if labels.ndim > 1:
            continue
        logits = torch.cat([logits[task].float().cpu() for logits, _ in answers])
        if is_number(labels):
            error = (logits[:, 0] - labels).abs().mean().item()
            measures["mean_absolute_error"][task] = error * deviations.get(task, 1.0)
            if len(labels.unique()) > 1:
                measures["r2"][task] = float(r2_score(labels, logits[:, 0]))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of answers that are no label's class
            score = balanced_accuracy_score(labels, logits.argmax(dim=1))
        measures["balanced_accuracy"][task] = float(score)
        if logits.shape[1] == 2 and len(labels.unique()) == 2:
            measures["auc"][task] = float(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    return {name: by_task for name, by_task in measures.items() if by_task}


class Localisation(NamedTuple):
    """Means over the images of a batch or a set, each between 0 and 1."""

    roi_recall: float  # share of boxes touched by a kept patch
    roi_recall_random: float
    attention_on_digits: float  # share of the attention on patches that touch a box
    attention_on_digits_random: float
    entropy: float  # of attention over an image's kept patches, over log M; 1 = uniform = random


def touches(grid: PatchGrid, patches: Tensor, boxes: Tensor) -> Tensor:
    """Which patches (B, M) touch which boxes (B, R, 4) of top, left, height, width in pixels:
    (B, R, M) bool. Patch -1, none, touches nothing."""
    corners = torch.from_numpy(grid.corners(patches.numpy()))[:, None]  # (B, 1, M, 2)
    start, extent = boxes[:, :, None, :2], boxes[:, :, None, 2:]  # (B, R, 1, 2)
    meets = (corners < start + extent) & (start < corners + grid.patch_size)
    return meets.all(dim=-1) & (patches >= 0)[:, None]


def has_object(boxes: Tensor) -> Tensor:
    """Which rows of boxes (..., 4) hold one: a box without area only fills a row up."""
    return (boxes[..., 2:] > 0).all(dim=-1)


def localise(grid: PatchGrid, patches: Tensor, attn_weights: Tensor, boxes: Tensor) -> Localisation:
    """Measure a batch; images without an object are left out, and one must have some.

    Args:
        patches: (B, M) kept patches; -1 behind those of an image that keeps fewer.
        attn_weights: (B, H, T, M), each head's and query's attention over them; 0 at -1.
        boxes: (B, R, 4) true boxes; those without area are none.
    """
    images = has_object(boxes).any(dim=-1)
    patches, attn_weights, boxes = patches[images], attn_weights[images], boxes[images]
    real, n_kept = has_object(boxes), (patches >= 0).sum(dim=1)  # (B, R), (B,)
    hit = touches(grid, patches, boxes)  # (B, R, M)
    weights = attn_weights.mean(dim=(1, 2))  # (B, M)
    entropy = torch.special.entr(attn_weights).sum(dim=-1)  # (B, H, T)
    most = np.maximum(np.log(n_kept.numpy()), 1e-12)  # (B,) of uniform attention
    share = torch.from_numpy(most.max() / most).to(entropy)  # 1 where all images keep alike
    entropy = (entropy * share[:, None, None]).mean() / most.max()
    counts, shares = [], []  # of patches that touch a box, and of all that touch any of an image
    for image_boxes in boxes.numpy():
        patch, box = grid.incidence(image_boxes)
        counts.append(np.bincount(box, minlength=len(image_boxes)))
        shares.append(len(np.unique(patch)) / grid.n_patches)
    n_touching, share_touching = np.concatenate(counts), np.array(shares)  # (B R,), (B,)
    n_drawn = n_kept[:, None].expand(real.shape)[real].numpy()
    missed = hypergeom.pmf(0, grid.n_patches, n_touching[real.flatten().numpy()], n_drawn)
    return Localisation(
        roi_recall=hit.any(dim=-1)[real].double().mean().item(),
        roi_recall_random=float(1 - missed.mean()),
        attention_on_digits=(weights * hit.any(dim=1)).sum(dim=1).mean().item(),
        attention_on_digits_random=float(share_touching.mean()),
        entropy=entropy.item(),
    )


def mean_localisation(parts: list[Localisation], sizes: list[int]) -> Localisation:
    """The mean over batches of unequal sizes."""
    return Localisation(*np.average(np.array(parts), axis=0, weights=sizes).tolist())


class HeadMeasures(NamedTuple):
    """Means over the images of a set, all tasks' tokens and all pairs of heads, which semantic and
    diversity losses (Zhang et al., ACMIL, arXiv 2311.07125) are made to change.

    The cosine of two heads' attention is 1 where they attend alike and 0 where they share no
    patch. The outputs of H heads can be less alike, down to a mean of -1 / (H - 1).
    """

    attention_alike: float  # cosine of attention over the kept patches
    outputs_alike: float  # cosine of what was read there
    alone: dict[str, float]  # accuracy of one head by itself, mean over heads, by task of classes


def measure_heads(predictions: Iterable[tuple[IPSOutput, LabelledBatch]]) -> HeadMeasures:
    """Measure a trained network's heads over what `ipslib.training.predict` yields.

    `alone` goes through the map that only the semantic loss trains: without that loss a head is
    asked in a language it was never taught, and answers at chance.
    """
    n, attention, outputs, correct = 0, 0.0, 0.0, Counter()
    for output, batch in predictions:
        n += batch.batch_size
        attention += diversity_loss(output.attn_weights).item() * batch.batch_size
        outputs += diversity_loss(output.head_outputs).item() * batch.batch_size
        for task, logits in output.branch_logits.items():  # (B, H, C)
            labels, heads = batch.labels[task].to(logits.device), logits.unbind(dim=1)
            if is_number(labels):
                continue
            correct[task] += sum(n_correct(each, labels).item() for each in heads) / len(heads)
    return HeadMeasures(attention / n, outputs / n, {t: each / n for t, each in correct.items()})
