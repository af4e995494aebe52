"""The slides of a study: where they lie, real or synthetic, and scores of patches on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ipslib.datasets.slides.camelyon16 import find_annotations, find_slides, read_labels
from ipslib.datasets.slides.prepare import (
    BackboneConfig,
    TileConfig,
    known_annotations,
    prepare_slides,
)
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import write_synthetic
from ipslib.datasets.synthetic import make_once, synthetic_folder
from ipslib.errors import IpslibError
from ipslib.paths import from_project

# Colour is enough to tell the drawn tumour, and random weights keep colour.
_BACKBONE = BackboneConfig(backbone="resnet18", weights="none", n_stages=2)


class SlideMaterial(NamedTuple):
    """Where slides, their bags, labels and outlines lie."""

    slides: Path | None  # None: no pictures can be shown
    bags: Path
    labels: Path | None
    annotations: Path | None  # None: it is not known where the tumour is
    is_synthetic: bool

    @property
    def outlines(self) -> dict[str, Path]:
        """Files of ASAP by the canonical name of their slide."""
        return {} if self.annotations is None else find_annotations(self.annotations)

    def open_slide(self, name: str) -> Slide | None:
        """A slide by name; None where slides are not at hand."""
        if self.slides is None or not self.slides.is_dir():
            return None
        path = find_slides(self.slides).get(name)
        return path and Slide(path)


def find_material(
    slides: str, bags: str, labels: str, annotations: str, *, standin: Mapping[str, float]
) -> SlideMaterial:
    """Where the slides, bags, labels and annotations that are named lie, relative to the project;
    where no bags are, draw and prepare synthetic slides, once.

    Args:
        slides, bags, labels, annotations: paths, or empty.
        standin: `n_train`, `n_test`, `side` and `mpp` as of `write_synthetic`, and `tile_size`.
    """
    if not bags:
        return _synthetic_material(**standin)
    paths = (slides, bags, labels, annotations)
    return SlideMaterial(*(from_project(path) if path else None for path in paths), False)


def _synthetic_material(
    n_train: int, n_test: int, side: int, mpp: float, tile_size: int
) -> SlideMaterial:
    drawn = {"n_train": n_train, "n_test": n_test, "side": side, "mpp": mpp}
    bags = f"bags_{tile_size}px"

    def make(folder: Path) -> None:
        places = write_synthetic(folder, **drawn)
        found = find_slides(places.images)
        known = known_annotations(found, places.annotations, read_labels(places.reference))
        tiles = TileConfig(tile_size=tile_size, mpp=mpp)
        work = {"tiles": tiles, "backbone": _BACKBONE, "annotations": known}
        prepare_slides(found, folder / bags, **work, batch_size=256, progress=False)

    name = f"slides_{n_train}_{n_test}_{side}px_{mpp:g}um_{tile_size}px"
    folder = make_once(synthetic_folder(name), make)
    places = write_synthetic(folder, **drawn)  # is there already
    files = (places.images, folder / bags, places.reference, places.annotations)
    return SlideMaterial(*files, is_synthetic=True)


def heat_map(
    scores: np.ndarray,
    coords: np.ndarray,
    size: int,
    shape: tuple[int, int],
    *,
    pixels: tuple[int, int],
) -> np.ndarray:
    """Scores of patches as an image of the whole slide.

    Args:
        scores: (N,), of all patches or of those that were kept.
        coords: (N, 2) x and y of their corners in pixels of level 0.
        size: their side in pixels of level 0.
        shape: height and width of level 0.
        pixels: height and width of the map.

    Returns:
        (H, W) float, the mean over the patches that lie over a pixel; NaN where none does.
    """
    scores, coords = np.asarray(scores, float), np.asarray(coords)
    if coords.shape != (len(scores), 2) or not len(scores):
        raise IpslibError(
            f"wanted one (x, y) corner a score, got corners of {coords.shape} and scores of "
            f"{scores.shape}."
        )
    per_pixel = np.array(pixels) / np.array(shape)
    first = np.round(coords[:, ::-1] * per_pixel).astype(int)
    # A patch is a pixel at least: what is smaller would vanish.
    last = np.maximum(np.round((coords[:, ::-1] + size) * per_pixel).astype(int), first + 1)
    total, count = np.zeros(pixels), np.zeros(pixels, int)
    for score, (top, left), (bottom, right) in zip(scores, first, last, strict=True):
        total[top:bottom, left:right] += score
        count[top:bottom, left:right] += 1
    return np.divide(total, count, out=np.full(pixels, np.nan), where=count > 0)
