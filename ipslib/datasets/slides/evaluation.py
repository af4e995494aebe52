"""What a network answers to slides, patch by patch, and how well that finds their tumour."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ipslib.datasets.slides.annotations import Outlines, read_asap, tumour_mask
from ipslib.datasets.slides.bags import BagDataset, SlideBag
from ipslib.datasets.slides.camelyon16 import canonical_name
from ipslib.datasets.slides.config import TASK
from ipslib.datasets.slides.metrics import Detections, detect, find_metastases, patch_auc
from ipslib.model.ips import IPSNet, evaluating

_ROWS = 4096  # of a bag that are read together
_MASK_MPP = 8.0  # microns per pixel of the mask of metastases; the official one has 7.8


class SlideAnswer(NamedTuple):
    """What a network says of one slide."""

    name: str
    label: int  # 0 normal, 1 tumour
    score: float  # log-odds of tumour
    kept: np.ndarray  # (M,) indices of the kept patches
    attention: np.ndarray  # (N,) over all patches, mean over heads, adding up to 1
    tumour: np.ndarray  # (N,) probability of tumour of a slide that were this patch alone


class Found(NamedTuple):
    """How well patches with tumour are told, over slides where they are known; blank where not."""

    patch_auc: float  # of `tumour`, over the patches of all slides together
    attention_auc: float  # of `attention` within a tumour slide, mean over slides
    kept_tumour: float  # share of a tumour slide's kept patches that are tumour, mean over slides
    kept_tumour_random: float  # the same of patches drawn blindly


def answer_slides(network: IPSNet, dataset: BagDataset) -> list[SlideAnswer]:
    """Answer every slide of a set, in evaluation mode; no bag is held whole."""
    with torch.no_grad(), evaluating(network.modules()):
        return [_answer(network, dataset, i) for i in range(len(dataset))]


def _answer(network: IPSNet, dataset: BagDataset, index: int) -> SlideAnswer:
    batch, bag = dataset.batch([index]), dataset[index]
    output = network(batch, generator=torch.Generator().manual_seed(0))
    logits, alone = zip(*map(_of_rows(network, bag), range(0, bag.n_patches, _ROWS)), strict=True)
    attention = torch.cat(logits).softmax(dim=0).mean(dim=1)
    return SlideAnswer(
        name=dataset.names[index],
        label=int(dataset.labels[index]),
        score=_log_odds(output.logits[TASK]).item(),
        kept=output.selection.indices[0].cpu().numpy(),
        attention=attention.cpu().double().numpy(),
        tumour=torch.cat(alone).sigmoid().cpu().double().numpy(),
    )


def _of_rows(network: IPSNet, bag: SlideBag):
    """From a first row to attention before softmax (n, H T) and log-odds of tumour (n,)."""
    score_map = network.pool.score_map()

    def answer(start: int) -> tuple[Tensor, Tensor]:
        rows = torch.arange(start, min(start + _ROWS, bag.n_patches))
        embeddings = network.embed(bag.read(rows))  # (n, D)
        tokens = network.pool.alone(embeddings)[:, 0]
        return embeddings @ score_map, _log_odds(network.heads[TASK](tokens))

    return answer


def _log_odds(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


def measure_found(answers: Sequence[SlideAnswer], dataset: BagDataset) -> Found:
    """Compare what a network says of patches with where the tumour is.

    Args:
        answers: of `answer_slides`.
        dataset: the set that was answered.
    """
    bags = dict(zip(dataset.names, (dataset[i] for i in range(len(dataset))), strict=True))
    known = [each for each in answers if bags[each.name].patch_labels is not None]
    labels = [bags[each.name].patch_labels.numpy() for each in known]
    both = [
        (a, there) for a, there in zip(known, labels, strict=True) if 0 < there.sum() < there.size
    ]
    if not both:
        return Found(*[float("nan")] * len(Found._fields))
    return Found(
        patch_auc(labels, [each.tumour for each in known]),
        float(np.mean([roc_auc_score(there, each.attention) for each, there in both])),
        float(np.mean([there[each.kept].mean() for each, there in both])),
        float(np.mean([there.mean() for _, there in both])),
    )


def detections(
    answers: Sequence[SlideAnswer],
    dataset: BagDataset,
    annotations: Mapping[str, Path],
    *,
    radius: float,
) -> list[Detections]:
    """What a network detects on each slide, ready for `froc`.

    Args:
        answers: of `answer_slides`.
        dataset: the set that was answered; a bag that does not say where its patches lie, or of
            which not all tumour is known, is left out.
        annotations: {canonical name: file of ASAP} of slides with tumour.
        radius: in µm; of detections nearer than this the best counts.
    """
    found = []
    for each, index in zip(answers, range(len(dataset)), strict=True):
        bag = dataset[index]
        size, coords, stored = bag.size_level0, bag.coords(), bag.layout.attributes
        file = annotations.get(canonical_name(each.name))
        is_placed = size and coords is not None and "level0_mpp" in stored
        if not is_placed or bag.patch_labels is None or (each.label and file is None):
            continue
        mpp = float(stored["level0_mpp"])
        shape = (int(stored["level0_height"]), int(stored["level0_width"]))
        points, scores = detect(each.tumour, coords, size, radius=radius / mpp)
        metastases = _metastases(read_asap(file), shape, mpp) if each.label else None
        found.append(Detections(points, scores, metastases))
    return found


def _metastases(outlines: Outlines, shape: tuple[int, int], mpp: float):
    scale = max(1.0, _MASK_MPP / mpp)
    return find_metastases(tumour_mask(outlines, shape, scale), scale, mpp)
