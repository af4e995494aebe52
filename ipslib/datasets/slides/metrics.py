"""How well slides and their metastases are found: slide AUC, patch AUC and FROC.

FROC as CAMELYON16 defines it (Ehteshami Bejnordi et al., JAMA 2017, doi 10.1001/jama.2017.14585):
sensitivity to metastases against false positives a slide, and its mean at six rates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from scipy.optimize import brentq
from scipy.spatial import KDTree
from scipy.stats import norm
from skimage.measure import label, regionprops
from sklearn.metrics import roc_auc_score

from ipslib.errors import IpslibError

FALSE_POSITIVE_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # a slide
_REACH = 37.5  # µm around an outline that still count; so outlines 75 µm apart are one metastasis
_TINY = 1e-12  # an area of 1 is a root by itself
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


def slide_auc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Area under the ROC curve of slides.

    Args:
        labels: 0 normal, 1 tumour.
        scores: the higher, the more likely tumour.

    Raises:
        IpslibError: when a class is missing, or the numbers differ.
    """
    return _auc("slides", np.asarray(labels), np.asarray(scores))


def patch_auc(labels: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> float:
    """Area under the ROC curve of the patches of all slides together.

    Args:
        labels: of each slide, (N,) bool, True where a patch is tumour.
        scores: of each slide, (N,), comparable between slides.

    Raises:
        IpslibError: when there is no patch of a kind, or the numbers differ.
    """
    if [len(each) for each in labels] != [len(each) for each in scores]:
        raise IpslibError("patches: wanted one score a label on every slide, got other numbers.")
    return _auc("patches", np.concatenate(labels), np.concatenate(scores))


def _auc(what: str, labels: np.ndarray, scores: np.ndarray) -> float:
    if len(labels) != len(scores):
        raise IpslibError(f"{what}: wanted one score a label, got {len(scores)} for {len(labels)}.")
    n_positive = int((labels > 0).sum())
    if not 0 < n_positive < len(labels):
        raise IpslibError(
            f"{what}: wanted both tumour and normal ones, got {n_positive} tumour of "
            f"{len(labels)}; an AUC compares the two."
        )
    return float(roc_auc_score(labels > 0, scores))


def auc_interval(auc: float, n_positive: int, n_negative: int) -> tuple[float, float]:
    """95 % interval of an area under the ROC curve: what other slides would give.

    The variance of Hanley and McNeil (Radiology 1982, doi 10.1148/radiology.143.1.7063747), taken
    at the true area as Wilson's interval takes that of a share, with the mean of both numbers in
    place of each (Newcombe, Statistics in Medicine 2006, doi 10.1002/sim.2324). So an area of 1
    has an interval too, the wider the fewer the slides.

    Args:
        auc: the area.
        n_positive, n_negative: slides of each kind.
    """
    z, pairs, mean = norm.ppf(0.975), n_positive * n_negative, (n_positive + n_negative) / 2

    def too_far(area: float) -> float:
        spread = 1 + (mean - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return (auc - area) ** 2 - z**2 * area * (1 - area) * spread / pairs

    low = brentq(too_far, 0, auc - _TINY) if auc > 0 else 0.0
    high = brentq(too_far, auc + _TINY, 1) if auc < 1 else 1.0
    return low, high


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
    hits, false = [], []
    for slide in slides:
        if slide.metastases is None:
            false.append(np.asarray(slide.scores, float))
            continue
        found, missed = _judged(slide.points, np.asarray(slide.scores, float), slide.metastases)
        hits.append(found)
        false.append(missed)
    best = np.concatenate(hits) if hits else np.zeros(0)
    if not len(best):
        raise IpslibError(
            "slides: wanted a metastasis larger than isolated tumour cells, got none; FROC is "
            "about finding them."
        )
    wrong = np.concatenate(false)
    thresholds = np.unique(np.concatenate([best[np.isfinite(best)], wrong]))[::-1]
    sensitivity = _share_above(best, thresholds, len(best))
    rate = _share_above(wrong, thresholds, len(slides))
    wanted = np.array(FALSE_POSITIVE_RATES)
    last = np.r_[np.diff(rate) > 0, True]  # the best that a rate allows
    at = np.interp(wanted, rate[last], sensitivity[last])
    return Froc(
        rate, sensitivity, dict(zip(FALSE_POSITIVE_RATES, at.tolist(), strict=True)), at.mean()
    )


def _judged(
    points: np.ndarray, scores: np.ndarray, metastases: Metastases
) -> tuple[np.ndarray, np.ndarray]:
    """The best score on each metastasis, -inf on one that is not found, and false positives."""
    regions = metastases.regions
    cols, rows = (np.asarray(points).reshape(-1, 2) / metastases.scale).astype(int).T
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
        coords: (N, 2) x and y of their corners at level 0.
        size: their side in pixels of level 0.
        radius: in pixels of level 0, from centre to centre.

    Returns:
        Centres (n, 2) and their scores (n,).
    """
    centres = np.asarray(coords) + size / 2
    near, free, kept = KDTree(centres), np.ones(len(centres), bool), []
    for patch in np.argsort(-np.asarray(scores), kind="stable"):
        if free[patch]:
            kept.append(patch)
            free[near.query_ball_point(centres[patch], radius)] = False
    return centres[kept], np.asarray(scores)[kept]
