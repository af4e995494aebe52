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
    for name, kind, group, points in _annotations(path):
        if kind not in _OUTLINES or len(points) < 3:
            no_area.append(name)
        elif group not in groups:
            raise IpslibError(
                f"{path}: wanted a known group of annotations, got {group!r}"
                f"{did_you_mean(group, groups)}; {remedy}."
            )
        elif groups[group] is not None:
            (outlines.tumour if groups[group] else outlines.cut_out).append(points)
            if group == NO_GROUP and not groups[group]:
                ungrouped.append((name, points))
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


def _annotations(path: Path) -> list[tuple[str | None, str, str, np.ndarray]]:
    """Name, kind, group and corners (n, 2), in order, of every annotation."""
    found = []
    try:
        root = ElementTree.parse(path).getroot()
        for each in root.iterfind("./Annotations/Annotation"):
            corners = []
            for n, corner in enumerate(each.iterfind("./Coordinates/Coordinate")):
                x, y = (float(corner.attrib[axis].replace(",", ".")) for axis in "XY")  # or 1,5
                corners.append((int(corner.get("Order", n)), x, y))
            points = np.asarray_chkfinite(sorted(corners), float).reshape(-1, 3)[:, 1:]
            kind, group = each.get("Type", "Polygon"), each.get("PartOfGroup", NO_GROUP)
            found.append((each.get("Name"), kind, group, points))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise unreadable(path, error, "copy it from its source again") from error
    if root.tag != "ASAP_Annotations":
        raise IpslibError(
            f"{path}: wanted annotations of ASAP, got XML of {root.tag!r}; export them from ASAP."
        )
    return found


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
    left, top = coords.T
    right, bottom = np.minimum(left + size, shape[1]), np.minimum(top + size, shape[0])

    def up_to(y: np.ndarray, x: np.ndarray) -> np.ndarray:  # linear between pixels, so exact
        return map_coordinates(area, [y * rows, x * cols], order=1, mode="nearest")

    inside = up_to(bottom, right) - up_to(top, right) - up_to(bottom, left) + up_to(top, left)
    return np.clip(inside / (size * rows * size * cols), 0, 1)
