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

from ipslib.datasets.slides.annotations import read_asap, tumour_mask
from ipslib.datasets.slides.bags import BagDataset
from ipslib.datasets.slides.camelyon16 import TASK, canonical_name
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet, evaluating
from ipslib.training import answer

FALSE_POSITIVE_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # a slide
_MASK_MPP = 8.0  # microns per pixel of the mask of metastases; the official one has 7.8
_REACH = 37.5  # µm around an outline that still count; so outlines 75 µm apart are one metastasis
_LARGEST_ITC = 275.0  # µm: isolated tumour cells, of less than 200 µm, reach and all


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


class Detections(NamedTuple):
    """What was found on one slide."""

    scores: np.ndarray  # (n,)
    hits: np.ndarray  # (n,) what each lies on, as `find_metastases` numbers it
    n_metastases: int


class Froc(NamedTuple):
    """The curve, from no detection to all, and its summary."""

    false_positives: np.ndarray  # (k,) mean a slide
    sensitivity: np.ndarray  # (k,)
    at_rates: dict[float, float]  # sensitivity at the six rates
    score: float  # their mean


@torch.no_grad()
def answer_slides(network: IPSNet, dataset: BagDataset) -> list[SlideAnswer]:
    """Answer every slide of a set, in evaluation mode; no bag is held whole."""
    answers = []
    with evaluating(network.modules()):
        score_map = network.pool.score_map()
        for i, name in enumerate(dataset.names):
            output, attn_scores, log_odds = answer(network, dataset.batch([i])), [], []
            for rows in dataset[i].blocks():
                embeddings = network.embed(rows)  # (n, D)
                attn_scores.append(embeddings @ score_map)  # (n, H T)
                logits = network.classify_alone(embeddings)[TASK]
                log_odds.append(logits[:, 1] - logits[:, 0])
            normal, tumour = output.logits[TASK][0]
            attention = torch.cat(attn_scores).softmax(dim=0).mean(dim=1)
            answers.append(
                SlideAnswer(
                    name=name,
                    label=int(dataset.labels[i]),
                    score=(tumour - normal).item(),
                    kept=output.selection.indices[0].cpu().numpy(),
                    attention=attention.cpu().double().numpy(),
                    tumour=torch.cat(log_odds).sigmoid().cpu().double().numpy(),
                )
            )
    return answers


def measure_found(answers: Sequence[SlideAnswer], dataset: BagDataset) -> Found:
    """Compare what a network says of the patches of a set, by `answer_slides`, with where the
    tumour is."""
    labels = [dataset[i].patch_labels for i in range(len(dataset))]
    pairs = zip(answers, labels, strict=True)
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
    """What a network detects on each slide of a set, ready for `froc`; a bag that does not say
    where its patches lie, or of which not all tumour is known, is left out.

    Args:
        answers: of `answer_slides`.
        dataset: the set that was answered.
        annotations: {canonical name: file of ASAP} of slides with tumour.
        radius: in µm; of detections nearer than this the best counts.
    """
    found = []
    for index, each in enumerate(answers):
        bag, file = dataset[index], annotations.get(canonical_name(each.name))
        mpp, size = float(bag.attributes.get("level0_mpp", 0)), bag.size_level0
        corners = bag.coords(mpp=mpp) if mpp and size else None
        if corners is None or bag.patch_labels is None or (each.label and file is None):
            continue
        points, scores = detect(each.tumour, corners, size, radius=radius / mpp)
        regions, scale = np.zeros((0, 0), int), max(1.0, _MASK_MPP / mpp)
        if each.label:
            outlines = read_asap(file, groups=bag.settings.get("groups"))
            shape = bag.attributes["level0_height"], bag.attributes["level0_width"]
            regions = find_metastases(tumour_mask(outlines, shape, scale), mpp * scale)
        found.append(Detections(scores, hits(points / scale, regions), regions.max(initial=0)))
    return found


def detect(
    scores: np.ndarray, coords: np.ndarray, size: int, *, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Detections from scores (N,) of patches, by their corners (N, 2) and side: centres (n, 2) of
    local maxima and their scores (n,), the best first, none nearer than a radius to a better one;
    all lengths in pixels of level 0."""
    centres = coords + size / 2
    near, free, kept = KDTree(centres), np.ones(len(centres), bool), []
    for patch in np.argsort(-scores, kind="stable"):
        if free[patch]:
            kept.append(patch)
            free[near.query_ball_point(centres[patch], radius)] = False
    return centres[kept], scores[kept]


def find_metastases(mask: np.ndarray, mpp: float) -> np.ndarray:
    """Number the metastases of a slide as the official evaluation does.

    Outlines grow by 37.5 µm and holes are filled; what then hangs together, over corners too, is
    one metastasis. One of less than 275 µm along its ellipse's long axis is isolated tumour cells.

    Args:
        mask: (H, W) bool, True where tumour is.
        mpp: its microns per pixel.

    Returns:
        (H, W) int: the number of a metastasis from 1, -1 of isolated tumour cells, 0 elsewhere.
    """
    grown = distance_transform_edt(~mask) < _REACH / mpp if mask.any() else mask
    regions = label(binary_fill_holes(grown), connectivity=2)
    lengths = np.array([each.axis_major_length for each in regionprops(regions)])
    is_large = lengths >= _LARGEST_ITC / mpp
    return np.r_[0, np.where(is_large, is_large.cumsum(), -1)][regions]


def hits(points: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """What points (n, 2), x and y in pixels of `regions` (H, W), lie on: (n,), 0 outside it."""
    cols, rows = points.reshape(-1, 2).astype(int).T
    inside = (rows >= 0) & (cols >= 0) & (rows < regions.shape[0]) & (cols < regions.shape[1])
    number = np.zeros(len(points), int)
    number[inside] = regions[rows[inside], cols[inside]]
    return number


def froc(slides: Sequence[Detections]) -> Froc:
    """The free-response ROC curve over slides, normal ones included.

    Of the detections on one metastasis the best counts; those on isolated tumour cells do not
    count at all; every other one is a false positive. Between two points of the curve it is
    linear, beyond its end it stays. IpslibError when there is no metastasis to find.
    """
    best = [
        each.scores[each.hits == n].max(initial=-np.inf)  # of a metastasis that is not found
        for each in slides
        for n in range(1, each.n_metastases + 1)
    ]
    if not best:
        raise IpslibError(
            "slides: wanted a metastasis larger than isolated tumour cells, got none; FROC is "
            "about finding them."
        )
    wrong = np.concatenate([each.scores[each.hits == 0] for each in slides])
    found = [score for score in best if np.isfinite(score)]
    thresholds = np.unique(np.r_[np.inf, found, wrong])[::-1]

    def share(scores: Sequence[float], of: int) -> np.ndarray:  # that reach each threshold
        return (len(scores) - np.searchsorted(np.sort(scores), thresholds)) / of

    sensitivity, rate = share(best, len(best)), share(wrong, len(slides))
    last = np.r_[np.diff(rate) > 0, True]  # the best that a rate allows
    at = np.interp(FALSE_POSITIVE_RATES, rate[last], sensitivity[last])
    at_rates = dict(zip(FALSE_POSITIVE_RATES, at.tolist(), strict=True))
    return Froc(rate, sensitivity, at_rates, at.mean())
