"""Measures of answers where classes are not equally frequent, by scikit-learn."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Answers = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]


def measure_answers(answers: Sequence[Answers]) -> dict[str, dict[str, float]]:
    """Measure a network's answers to a set.

    Args:
        answers: of every batch, logits {task: (B, C)} and labels {task: (B,)}; tasks whose labels
            are sets (B, C) have no such measures.

    Returns:
        `balanced_accuracy` (mean over the classes that occur of the share that was recognised)
        of each task, and `auc` (area under the ROC curve, of the second class) of each task of
        two classes of which both occur.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score  # brings pandas along

    measures: dict[str, dict[str, float]] = {"balanced_accuracy": {}, "auc": {}}
    for task in answers[0][0]:
        labels = torch.cat([labels[task].cpu() for _, labels in answers])
        if labels.ndim > 1:
            continue
        logits = torch.cat([logits[task].float().cpu() for logits, _ in answers])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of answers that are no label's class
            score = balanced_accuracy_score(labels, logits.argmax(dim=1))
        measures["balanced_accuracy"][task] = float(score)
        if logits.shape[1] == 2 and len(labels.unique()) == 2:
            measures["auc"][task] = float(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    return {name: by_task for name, by_task in measures.items() if by_task}
