"""Does attention lie on the objects? Measures against the true boxes, beside what chance gives.

`random` values are what M patches drawn without replacement, attended alike, score on average.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from ipslib.patches import PatchGrid


class Localisation(NamedTuple):
    """Means over the images of a batch or a set, each between 0 and 1."""

    roi_recall: float  # share of boxes touched by a kept patch
    roi_recall_random: float
    attention_on_digits: float  # share of the attention on patches that touch a box
    attention_on_digits_random: float
    entropy: float  # of attention over an image's kept patches, over log M; 1 = uniform = random


def touches(grid: PatchGrid, patches: Tensor, boxes: Tensor) -> Tensor:
    """Which patches touch which boxes.

    Args:
        patches: (B, M) patch indices; -1, no patch, touches nothing.
        boxes: (B, R, 4) top, left, height, width in pixels.

    Returns:
        (B, R, M) bool.
    """
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
    n_touching, share_touching = _patches_on_boxes(grid, boxes.numpy())
    n_drawn = n_kept[:, None].expand(real.shape)[real].numpy()
    missed = hypergeom.pmf(0, grid.n_patches, n_touching[real.flatten().numpy()], n_drawn)
    return Localisation(
        roi_recall=hit.any(dim=-1)[real].double().mean().item(),
        roi_recall_random=float(1 - missed.mean()),
        attention_on_digits=(weights * hit.any(dim=1)).sum(dim=1).mean().item(),
        attention_on_digits_random=float(share_touching.mean()),
        entropy=entropy.item(),
    )


def _patches_on_boxes(grid: PatchGrid, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches that touch each box (B R,), and the share of all that touch any box (B,)."""
    counts, shares = [], []
    for image_boxes in boxes:
        patch, box = grid.incidence(image_boxes)
        counts.append(np.bincount(box, minlength=len(image_boxes)))
        shares.append(len(np.unique(patch)) / grid.n_patches)
    return np.concatenate(counts), np.array(shares)


def mean_localisation(parts: list[Localisation], sizes: list[int]) -> Localisation:
    """The mean over batches of unequal sizes."""
    return Localisation(*np.average(np.array(parts), axis=0, weights=sizes).tolist())
