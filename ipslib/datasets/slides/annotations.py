"""Annotations of ASAP: tumour outlines with what is cut out of them, as masks and patch labels.

A slide's shape is its height and width at level 0; tiles are given by their corners there, x and y
(N, 2), and their side.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from scipy.ndimage import map_coordinates
from skimage.draw import polygon
from skimage.measure import points_in_poly

from ipslib.datasets.images.image import file_id, unreadable
from ipslib.errors import IpslibError, did_you_mean

# Spellings found in CAMELYON16 and 17: what is tumour (True), and what is cut out of it. Of those
# that ASAP puts into no group it says None.
NO_GROUP = "None"
GROUPS: Mapping[str, bool | None] = {
    "_0": True, "_1": True, "Tumor": True, "metastases": True,
    "_2": False, NO_GROUP: False, "Exclusion": False, "normal": False,
}  # fmt: skip
_OUTLINES = {"Polygon", "Spline", "Rectangle"}  # dots and measures enclose nothing
_CELLS_A_TILE = 16  # pixels of the mask along a tile's side, for the share that is tumour
_COPY_AGAIN = "copy it from its source again"


class Outlines(NamedTuple):
    """Polygons of a slide, each (n, 2) x and y in pixels of level 0."""

    tumour: list[np.ndarray]
    cut_out: list[np.ndarray]


def read_asap(path: str | Path, *, groups: Mapping[str, bool | None] | None = None) -> Outlines:
    """Read an annotation file of ASAP.

    Args:
        path: XML with `Annotations/Annotation[@PartOfGroup]/Coordinates/Coordinate`.
        groups: {group: True for tumour, False for what is cut out of it, None for what is neither};
            those of `GROUPS` need not be named. What is in no group is cut out of the tumour that
            it lies in.

    Raises:
        IpslibError: when the file is missing, is no such XML, names an unknown group, or an outline
            without a group lies in no tumour.
    """
    path, groups = file_id(path).path, {**GROUPS, **(groups or {})}
    remedy = "say by groups (--groups NAME=tumour, normal or ignore) what it is"
    outlines, ungrouped, no_area = Outlines([], []), [], []
    for annotation in _annotations(path):
        group = annotation.get("PartOfGroup", NO_GROUP)
        if annotation.get("Type", "Polygon") not in _OUTLINES:
            no_area.append(annotation.get("Name"))
            continue
        if group not in groups:
            raise IpslibError(
                f"{path}: wanted a known group of annotations, got {group!r}"
                f"{did_you_mean(group, groups)}; {remedy}."
            )
        points = _points(path, annotation)
        if len(points) < 3:
            no_area.append(annotation.get("Name"))
        elif groups[group] is not None:
            (outlines.tumour if groups[group] else outlines.cut_out).append(points)
            if group == NO_GROUP and not groups[group]:
                ungrouped.append((annotation.get("Name"), points))
    if no_area:
        warnings.warn(
            f"{path}: {len(no_area)} annotations enclose no area and mark nothing (fewer than 3 "
            f"corners, or no outline); the first is {no_area[0]!r}.",
            stacklevel=2,
        )
    for name, points in ungrouped:
        if not any(points_in_poly(points, tumour).any() for tumour in outlines.tumour):
            raise IpslibError(
                f"{path}: wanted a group for the outline {name!r}, got none, and it lies in no "
                f"tumour that it could be cut out of; put it into a group, or {remedy}."
            )
    return outlines


def _annotations(path: Path) -> list[ElementTree.Element]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise unreadable(path, error, _COPY_AGAIN) from error
    if root.tag != "ASAP_Annotations":
        raise IpslibError(
            f"{path}: wanted annotations of ASAP, got XML of {root.tag!r}; export them from ASAP."
        )
    return root.findall("./Annotations/Annotation")


def _points(path: Path, annotation: ElementTree.Element) -> np.ndarray:
    """Its corners in order, (n, 2); some systems write a decimal comma."""
    try:
        stored = sorted(
            (int(each.get("Order", n)), *(float(each.attrib[a].replace(",", ".")) for a in "XY"))
            for n, each in enumerate(annotation.findall("./Coordinates/Coordinate"))
        )
    except (KeyError, ValueError) as error:
        raise unreadable(path, error, _COPY_AGAIN) from error
    points = np.array([each[1:] for each in stored]).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise IpslibError(f"{path}: wanted numbers as corners, got NaN or infinity; {_COPY_AGAIN}.")
    return points


def tumour_mask(outlines: Outlines, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Paint tumour, then what is cut out, as the official masks are made: bool, a pixel for `scale`
    of level 0, True where its centre is inside."""
    mask = np.zeros([int(np.ceil(side / scale)) for side in shape], bool)
    for painted, value in zip(outlines, (True, False), strict=True):
        for points in painted:
            # A pixel's centre is at a whole number here, and half a pixel further in the slide.
            mask[polygon(*(points[:, ::-1] / scale - 0.5).T, mask.shape)] = value
    return mask


def tumour_share(
    outlines: Outlines, shape: tuple[int, int], coords: np.ndarray, size: int
) -> np.ndarray:
    """Which share of each tile is tumour, (N,) from 0 to 1."""
    scale = max(1.0, size / _CELLS_A_TILE)
    mask = tumour_mask(outlines, shape, scale)
    whole = tuple(round(side * scale) for side in mask.shape)  # the mask hangs over a little
    return covered(mask, whole, coords, size)


def covered(mask: np.ndarray, shape: tuple[int, int], coords: np.ndarray, size: int) -> np.ndarray:
    """Which share of each tile a mask (H, W), of any size over the whole slide, covers: (N,) from 0
    to 1, exact for the mask; what hangs over the slide is not covered."""
    area = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    area[1:, 1:] = mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    rows, cols = mask.shape[0] / shape[0], mask.shape[1] / shape[1]  # mask pixels to one of level 0
    left, top = coords[:, 0], coords[:, 1]
    right, bottom = np.minimum(left + size, shape[1]), np.minimum(top + size, shape[0])

    def up_to(y: np.ndarray, x: np.ndarray) -> np.ndarray:  # linear between pixels, so exact
        return map_coordinates(area, [y * rows, x * cols], order=1, mode="nearest")

    inside = up_to(bottom, right) - up_to(top, right) - up_to(bottom, left) + up_to(top, left)
    return np.clip(inside / (size * rows * size * cols), 0, 1)
