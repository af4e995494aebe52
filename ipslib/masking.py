"""Stochastic top-K instance masking: the best-scoring patches are dropped at random, so that
others are learned from (Zhang et al., ACMIL, arXiv 2311.07125).

Two variants. `mask_scores` drops each of the K best scores with probability p (the dissertation's,
arXiv 2412.11237). `mask_logits` drops exactly int(K p) of each branch's K best logits, so that
their attention goes to the rest (ACMIL's source).
"""

import torch
from torch import Tensor

from ipslib.runtime import moved

_MASKED_LOGIT = -1e9


def mask_scores(scores: Tensor, k: int, p: float, *, generator: torch.Generator) -> Tensor:
    """Multiply each of the k best scores by 0 with probability p.

    Args:
        scores: (B, n) attention scores, non-negative.
        k: how many of the best can be dropped; more than n counts as n.
        p: probability of a drop, independent for each.

    Returns:
        (B, n) scores.
    """
    best, index = scores.topk(min(k, scores.shape[1]), dim=1)
    kept = torch.rand(best.shape, generator=generator, device=generator.device) >= p
    return scores.scatter(1, index, best * moved(kept, scores.device))


def mask_logits(logits: Tensor, k: int, p: float, *, generator: torch.Generator) -> Tensor:
    """Set a random int(k p) of each branch's k best logits to -1e9.

    Args:
        logits: (B, n, S) attention before the softmax over n, for S branches.
        k: how many of the best can be dropped; more than n counts as n.
        p: share of the k that is dropped.

    Returns:
        (B, n, S) logits.
    """
    k = min(k, logits.shape[1])
    index = logits.topk(k, dim=1).indices  # (B, k, S)
    lot = torch.rand(index.shape, generator=generator, device=generator.device)
    drawn = lot.argsort(dim=1)[:, : int(k * p)]  # (B, int(k p), S)
    return logits.scatter(1, index.gather(1, moved(drawn, index.device)), _MASKED_LOGIT)
