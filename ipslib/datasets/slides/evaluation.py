"""What a network answers to slides, patch by patch, and how well slides, their tumour and their
metastases are found.

FROC as CAMELYON16 defines it (Ehteshami Bejnordi et al., JAMA 2017, doi 10.1001/jama.2017.14585):
sensitivity to metastases against false positives a slide, and its mean at six rates.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from scipy.spatial import KDTree
from skimage.measure import label, regionprops
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ipslib.datasets.slides.annotations import read_asap, tumour_mask
from ipslib.datasets.slides.bags import BagDataset, SlideBag
from ipslib.datasets.slides.camelyon16 import TASK, canonical_name
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet, evaluating

FALSE_POSITIVE_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # a slide
_ROWS = 4096  # of a bag that are read together
_MASK_MPP = 8.0  # microns per pixel of the mask of metastases; the official one has 7.8
_REACH = 37.5  # µm around an outline that still count; so outlines 75 µm apart are one metastasis
_LARGEST_ITC = 275.0  # µm: isolated tumour cells, of less than 200 µm, reach and all


class Metastases(NamedTuple):
    """What there is to find on one slide, as the official evaluation sees it."""

    regions: np.ndarray  # (H, W) int, the number of a metastasis from 1, 0 elsewhere
    scale: float  # pixels of level 0 to one of `regions`
    isolated: frozenset[int]  # numbers of isolated tumour cells: neither hit nor false positive


class Detections(NamedTuple):
    """What was found on one slide."""

    points: np.ndarray  # (n, 2) x and y in pixels of level 0
    scores: np.ndarray  # (n,)
    metastases: Metastases | None  # None: a slide without tumour


class Froc(NamedTuple):
    """The curve, from no detection to all, and its summary."""

    false_positives: np.ndarray  # (k,) mean a slide
    sensitivity: np.ndarray  # (k,)
    at_rates: dict[float, float]  # sensitivity at the six rates
    score: float  # their mean


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
    bags = [dataset[i].patch_labels for i in range(len(dataset))]
    pairs = zip(answers, bags, strict=True)
    known = [(each, there.numpy()) for each, there in pairs if there is not None]
    both = [(each, there) for each, there in known if 0 < there.sum() < there.size]
    if not both:
        return Found(*[float("nan")] * len(Found._fields))
    of_all = np.concatenate([there for _, there in known])
    return Found(
        float(roc_auc_score(of_all, np.concatenate([each.tumour for each, _ in known]))),
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
    for index, each in enumerate(answers):
        bag, file = dataset[index], annotations.get(canonical_name(each.name))
        said, size = bag.layout.attributes, bag.size_level0
        is_placed = bag.layout.coords and size and "level0_mpp" in said
        if not is_placed or bag.patch_labels is None or (each.label and file is None):
            continue
        mpp = float(said["level0_mpp"])
        points, scores = detect(each.tumour, bag.coords(), size, radius=radius / mpp)
        metastases = None
        if each.label:
            shape, scale = (said["level0_height"], said["level0_width"]), max(1.0, _MASK_MPP / mpp)
            mask = tumour_mask(read_asap(file, groups=bag.settings.get("groups")), shape, scale)
            metastases = find_metastases(mask, scale, mpp)
        found.append(Detections(points, scores, metastases))
    return found


def find_metastases(mask: np.ndarray, scale: float, mpp: float) -> Metastases:
    """Number the metastases of a slide.

    Outlines grow by 37.5 µm and holes are filled; what then hangs together, over corners too, is
    one metastasis. One of less than 275 µm along its ellipse's long axis is isolated tumour cells.

    Args:
        mask: (H, W) bool, True where tumour is.
        scale: pixels of level 0 to one of the mask; the official one has 32.
        mpp: microns per pixel of level 0.
    """
    reach = _REACH / (mpp * scale)
    grown = distance_transform_edt(~mask) < reach if mask.any() else mask
    regions = label(binary_fill_holes(grown), connectivity=2)
    small = _LARGEST_ITC / (mpp * scale)
    isolated = [each.label for each in regionprops(regions) if each.axis_major_length < small]
    return Metastases(regions, scale, frozenset(isolated))


def froc(slides: Sequence[Detections]) -> Froc:
    """The free-response ROC curve over slides, normal ones included.

    Of the detections on one metastasis the best counts; those on isolated tumour cells do not
    count at all; every other one is a false positive. Between two points of the curve it is
    linear, beyond its end it stays.

    Raises:
        IpslibError: when there is no metastasis to find.
    """
    judged = [_judged(each.points, each.scores, each.metastases) for each in slides]
    best, wrong = (np.concatenate([np.zeros(0), *(pair[i] for pair in judged)]) for i in (0, 1))
    if not len(best):
        raise IpslibError(
            "slides: wanted a metastasis larger than isolated tumour cells, got none; FROC is "
            "about finding them."
        )
    thresholds = np.unique(np.concatenate([best[np.isfinite(best)], wrong]))[::-1]
    sensitivity = _share_above(best, thresholds, len(best))
    rate = _share_above(wrong, thresholds, len(slides))
    last = np.r_[np.diff(rate) > 0, True]  # the best that a rate allows
    at = np.interp(FALSE_POSITIVE_RATES, rate[last], sensitivity[last])
    at_rates = dict(zip(FALSE_POSITIVE_RATES, at.tolist(), strict=True))
    return Froc(rate, sensitivity, at_rates, at.mean())


def _judged(
    points: np.ndarray, scores: np.ndarray, metastases: Metastases | None
) -> tuple[np.ndarray, np.ndarray]:
    """The best score on each metastasis, -inf on one that is not found, and false positives."""
    if metastases is None:
        return np.zeros(0), scores
    regions = metastases.regions
    cols, rows = (points.reshape(-1, 2) / metastases.scale).astype(int).T
    inside = (rows >= 0) & (cols >= 0) & (rows < regions.shape[0]) & (cols < regions.shape[1])
    number = np.zeros(len(scores), int)
    number[inside] = regions[rows[inside], cols[inside]]
    best = np.full(regions.max() + 1, -np.inf)
    np.maximum.at(best, number, scores)
    wanted = [n for n in range(1, len(best)) if n not in metastases.isolated]
    return best[wanted], scores[number == 0]


def _share_above(scores: np.ndarray, thresholds: np.ndarray, of: int) -> np.ndarray:
    """How many scores reach each threshold, beginning with none at all, as a share."""
    reached = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
    return np.r_[0, reached] / of


def detect(
    scores: np.ndarray, coords: np.ndarray, size: int, *, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Detections from patch scores: local maxima, the best first, none nearer than a radius to a
    better one.

    Args:
        scores: (N,) of patches.
        coords: (N, 2) x and y of their corners; all lengths in pixels of level 0.
        size: their side.
        radius: from centre to centre.

    Returns:
        Centres (n, 2) and their scores (n,).
    """
    centres = coords + size / 2
    near, free, kept = KDTree(centres), np.ones(len(centres), bool), []
    for patch in np.argsort(-scores, kind="stable"):
        if free[patch]:
            kept.append(patch)
            free[near.query_ball_point(centres[patch], radius)] = False
    return centres[kept], scores[kept]
