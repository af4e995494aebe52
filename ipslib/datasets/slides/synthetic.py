"""Synthetic slides: drawn in the format of CAMELYON16, so that the whole path runs in seconds.

Pale glass, pink tissue with scattered nuclei and patches of small dense ones; in tumour slides a
small region of large dark nuclei, outlined in ASAP's XML. They show that the code works, and
nothing about slides.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom
from skimage.draw import polygon2mask

from ipslib.datasets.synthetic import make_synthetic

FIRST_NUMBER = 501  # behind every number of CAMELYON16: no name is that of a real slide
_GLASS, _PINK, _NUCLEI, _TUMOUR_NUCLEI = np.array(
    [(243, 241, 244), (226, 168, 200), (122, 84, 158), (84, 50, 122)], np.float32
)
_TILE, _N_LEVELS = 256, 3
_FORMAT = 2  # of what is drawn: raise it when a drawing changes


class SyntheticSlides(NamedTuple):
    """Where they lie, as CAMELYON16 does."""

    images: Path
    annotations: Path
    reference: Path


def write_synthetic(
    folder: str | Path,
    *,
    n_train: int = 16,
    n_test: int = 8,
    side: int = 2048,
    mpp: float = 1.0,
    seed: int = 0,
    workers: int = 2,
) -> SyntheticSlides:
    """Draw slides as those of CAMELYON16: half of each set holds tumour, every third with a hole.

    Args:
        folder: new, or one that was written with the same arguments, which is left as it is.
        n_train: slides `normal_5xx` and `tumor_5xx`, as many of each.
        n_test: slides `test_5xx`, whose labels are in `reference.csv`.
        side: height and width in pixels.
        mpp: microns per pixel; at 1 and 2048 px a tumour is larger than isolated tumour cells,
            which FROC leaves out.
        workers: threads that draw; a slide is the same however many there are.
    """
    arguments = {"n_train": n_train, "n_test": n_test, "side": side, "mpp": mpp, "seed": seed}
    arguments["format"] = _FORMAT
    slides = [(f"{('normal', 'tumor')[i % 2]}_{FIRST_NUMBER + i // 2}", i) for i in range(n_train)]
    slides += [(f"test_{FIRST_NUMBER + i}", i) for i in range(n_test)]

    def write(places: SyntheticSlides, number: int) -> None:
        name, i = slides[number]
        random = np.random.Generator(np.random.PCG64([seed, number]))
        image, *outlines = draw_slide(side, random, has_tumour=i % 2 == 1, has_hole=i % 6 == 5)
        write_pyramid(places.images / f"{name}.tif", image, mpp=mpp)
        if i % 2:
            write_asap(places.annotations / f"{name}.xml", *outlines)

    def draw(part: Path) -> None:
        places = _places(part)
        places.images.mkdir()
        places.annotations.mkdir()
        with ThreadPoolExecutor(workers, thread_name_prefix="slides") as pool:
            list(pool.map(partial(write, places), range(len(slides))))
        tests = [f"{name},{('Normal', 'Tumor')[i % 2]}\n" for name, i in slides[n_train:]]
        places.reference.write_text("".join(tests))

    return _places(make_synthetic(folder, arguments, draw))


def _places(folder: Path) -> SyntheticSlides:
    return SyntheticSlides(folder / "images", folder / "annotations", folder / "reference.csv")


def draw_slide(
    side: int, random: np.random.Generator, *, has_tumour: bool, has_hole: bool = False
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Draw one slide: its image (S, S, 3) uint8, and outlines (n, 2), x and y in pixels, of tumour
    and of what is cut out of it."""
    tissue = _blob(side, random)
    stain = random.uniform(0.97, 1.03, 3).astype(np.float32)
    crowded = _smooth_noise(side, side // 24, random) > 1.4  # small dense nuclei: not a tumour
    tumour = [_outline(tissue, side, random)] if has_tumour else []
    cut_out = [ring.mean(axis=0) + 0.4 * (ring - ring.mean(axis=0)) for ring in tumour if has_hole]
    cancer = np.zeros((side, side), bool)
    for painted, value in ((tumour, True), (cut_out, False)):
        for points in painted:
            cancer[polygon2mask(cancer.shape, points[:, ::-1])] = value

    fine, coarse = (_standardised(_noise(side, sigma, random)) for sigma in (1.6, 2.6))
    nuclei = fine > np.where(crowded, 1.0, 1.8)
    texture = _smooth_noise(side, side // 64, random)[..., None] * 5 - 12 * cancer[..., None]
    image = np.where(tissue[..., None], _PINK * stain + texture, _GLASS)
    image[tissue & nuclei & ~cancer] = _NUCLEI * stain
    image[tissue & cancer & (coarse > 0.2)] = _TUMOUR_NUCLEI * stain
    image = gaussian_filter(image, sigma=(0.7, 0.7, 0), truncate=2)
    image += 2 * random.standard_normal((side, side, 1), np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), tumour, cut_out


def write_pyramid(path: Path, image: np.ndarray, *, mpp: float) -> None:
    """Write a tiled TIFF whose levels halve, with its resolution, as converters for slides do."""
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(_N_LEVELS):
            per_cm = 1e4 / (mpp * 2**level)
            tiff.write(
                image, tile=(_TILE, _TILE), photometric="rgb", compression="jpeg",
                compressionargs={"level": 90}, subfiletype=int(level > 0), metadata=None,
                resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
            )  # fmt: skip
            rows, cols = (n // 2 * 2 for n in image.shape[:2])
            halves = image[:rows, :cols].reshape(rows // 2, 2, cols // 2, 2, 3)
            image = halves.mean(axis=(1, 3)).round().astype(np.uint8)


def write_asap(
    path: Path, tumour: Sequence[np.ndarray], cut_out: Sequence[np.ndarray] = ()
) -> None:
    """Write outlines (n, 2) of x and y at level 0 as ASAP does: `_0` tumour, `_2` cut out."""
    root = ElementTree.Element("ASAP_Annotations")
    annotations = ElementTree.SubElement(root, "Annotations")
    outlines = [("_0", each) for each in tumour] + [("_2", each) for each in cut_out]
    for n, (group, points) in enumerate(outlines):
        fields = {"Name": f"Annotation {n}", "Type": "Polygon", "PartOfGroup": group}
        annotation = ElementTree.SubElement(annotations, "Annotation", fields)
        coordinates = ElementTree.SubElement(annotation, "Coordinates")
        for order, (x, y) in enumerate(points.tolist()):
            place = {"Order": str(order), "X": f"{x:.2f}", "Y": f"{y:.2f}"}
            ElementTree.SubElement(coordinates, "Coordinate", place)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _noise(side: int, sigma: float, random: np.random.Generator) -> np.ndarray:
    return gaussian_filter(random.standard_normal((side, side), np.float32), sigma, truncate=3)


def _smooth_noise(side: int, scale: int, random: np.random.Generator) -> np.ndarray:
    """Noise of a large scale, made small and enlarged; mean 0, standard deviation 1."""
    step = max(1, scale // 4)
    n = -(-side // step) + 1
    large = zoom(_noise(n, scale / step, random), step, order=1)[:side, :side]
    return _standardised(large)


def _standardised(noise: np.ndarray) -> np.ndarray:
    return (noise - noise.mean()) / noise.std()


def _blob(side: int, random: np.random.Generator) -> np.ndarray:
    """Tissue: a lump about the middle with a wavy edge, (S, S) bool."""
    y, x = (axis / np.float32(side) - np.float32(0.5) for axis in np.ogrid[:side, :side])
    wobble = 0.05 * _smooth_noise(side, side // 10, random)
    return np.hypot(x, y * random.uniform(1.0, 1.3)) + wobble < random.uniform(0.34, 0.4)


def _outline(tissue: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """A wavy ring of 1 to 2 % of the slide's area, well inside the tissue, (24, 2) x and y."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    step = max(1, side // 128)
    depth = distance_transform_edt(tissue[::step, ::step]) * step
    centres = np.argwhere(depth > 0.1 * side)[:, ::-1] * step
    radius = side * random.uniform(0.06, 0.085) * random.uniform(0.85, 1.15, len(angles))
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
    return ring + random.choice(centres)
