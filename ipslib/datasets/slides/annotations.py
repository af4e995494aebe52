"""Annotations of ASAP: tumour outlines with what is cut out of them, as masks and patch labels."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from skimage.draw import polygon, polygon_perimeter

from ipslib.datasets.images.files import file_id, unreadable
from ipslib.datasets.slides.tiles import covered
from ipslib.errors import IpslibError, did_you_mean

# Spellings found in CAMELYON16 and 17: what is tumour (True), and what is cut out of it.
GROUPS = {
    "_0": True, "_1": True, "Tumor": True, "metastases": True,
    "_2": False, "None": False, "Exclusion": False, "normal": False,
}  # fmt: skip
_OUTLINES = {"Polygon", "Spline", "Rectangle"}
_CELLS_A_TILE = 16  # pixels of the mask along a tile's side, for the share that is tumour


class Outlines(NamedTuple):
    """Polygons of a slide, each (n, 2) x and y in pixels of level 0."""

    tumour: list[np.ndarray]
    cut_out: list[np.ndarray]


def read_asap(path: str | Path, *, groups: Mapping[str, bool] = GROUPS) -> Outlines:
    """Read an annotation file of ASAP.

    Args:
        path: XML with `Annotations/Annotation[@PartOfGroup]/Coordinates/Coordinate`.
        groups: {group: True for tumour, False for what is cut out of it}.

    Raises:
        IpslibError: when the file is missing, is no such XML, or names an unknown group.
    """
    path = file_id(path).path
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise unreadable(path, error, "copy it from its source again") from error
    annotations = root.findall("./Annotations/Annotation")
    if root.tag != "ASAP_Annotations":
        raise IpslibError(
            f"{path}: wanted annotations of ASAP, got XML of {root.tag!r}; export them from ASAP."
        )
    outlines = Outlines([], [])
    for annotation in annotations:
        group = annotation.get("PartOfGroup")
        if annotation.get("Type", "Polygon") not in _OUTLINES:
            continue  # dots and measures enclose nothing
        if group not in groups:
            raise IpslibError(
                f"{path}: wanted a known group of annotations, got {group!r}"
                f"{did_you_mean(str(group), groups)}; say in groups whether it is tumour."
            )
        points = _points(path, annotation)
        if len(points) >= 3:
            (outlines.tumour if groups[group] else outlines.cut_out).append(points)
    return outlines


def _points(path: Path, annotation: ElementTree.Element) -> np.ndarray:
    try:
        stored = sorted(
            (float(point.get("Order", n)), float(point.attrib["X"]), float(point.attrib["Y"]))
            for n, point in enumerate(annotation.findall("./Coordinates/Coordinate"))
        )
    except (KeyError, ValueError) as error:
        raise unreadable(path, error, "copy it from its source again") from error
    return np.array([point[1:] for point in stored]).reshape(-1, 2)


def tumour_mask(
    outlines: Outlines, shape: tuple[int, int], scale: float, *, touched: bool = False
) -> np.ndarray:
    """Paint tumour, then what is cut out, as the official masks are made.

    Args:
        outlines: of the slide.
        shape: height and width of the slide at level 0.
        scale: pixels of level 0 to one of the mask.
        touched: also every pixel that an outline of tumour touches, so that the smallest
            metastasis leaves a mark; else those whose centre is inside.

    Returns:
        (ceil(height / scale), ceil(width / scale)) bool.
    """
    mask = np.zeros([int(np.ceil(side / scale)) for side in shape], bool)
    for points, value in _painted(outlines):
        # A pixel's centre is at a whole number here, and half a pixel further in the slide.
        rows, cols = points[:, 1] / scale - 0.5, points[:, 0] / scale - 0.5
        mask[polygon(rows, cols, mask.shape)] = value
        if touched and value:
            edge = polygon_perimeter(np.round(rows), np.round(cols), shape=mask.shape, clip=False)
            mask[edge] = True
    return mask


def _painted(outlines: Outlines) -> Iterable[tuple[np.ndarray, bool]]:
    yield from ((points, True) for points in outlines.tumour)
    yield from ((points, False) for points in outlines.cut_out)


def tumour_share(
    outlines: Outlines, shape: tuple[int, int], coords: np.ndarray, size: int
) -> np.ndarray:
    """Which share of each tile is tumour, (N,) from 0 to 1.

    Args:
        outlines: of the slide.
        shape: height and width of the slide at level 0.
        coords: (N, 2) x and y of the tiles at level 0.
        size: their side in pixels of level 0.
    """
    mask_scale = max(1.0, size / _CELLS_A_TILE)
    mask = tumour_mask(outlines, shape, mask_scale)
    whole = tuple(round(side * mask_scale) for side in mask.shape)  # the mask hangs over a little
    return covered(mask, whole, coords, size)
