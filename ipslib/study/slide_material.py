"""The slides of notebook 12: real bags where they were prepared, else synthetic ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ipslib.datasets.slides.camelyon16 import (
    canonical_name,
    find_annotations,
    find_slides,
    read_labels,
)
from ipslib.datasets.slides.prepare import (
    BackboneConfig,
    TileConfig,
    known_annotations,
    prepare_slides,
)
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import write_synthetic
from ipslib.datasets.synthetic import NOTE, make_once, synthetic_folder, titled
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
    def warning(self) -> str:
        """What stands above every table of synthetic slides."""
        return NOTE if self.is_synthetic else ""

    def titled(self, title: str) -> str:
        return titled(title, self.is_synthetic)

    @property
    def outlines(self) -> dict[str, Path]:
        """Files of ASAP by the canonical name of their slide."""
        return {} if self.annotations is None else find_annotations(self.annotations)

    def open_slide(self, name: str) -> Slide | None:
        """A slide by name; None where slides are not at hand."""
        if self.slides is None or not self.slides.is_dir():
            return None
        paths = {canonical_name(each): path for each, path in find_slides(self.slides).items()}
        path = paths.get(canonical_name(name))
        return path and Slide(path)


def find_material(
    slides: str, bags: str, labels: str, annotations: str, *, standin: Mapping[str, float]
) -> SlideMaterial:
    """Take the bags that are named, or draw and prepare synthetic slides, once.

    Args:
        slides, bags, labels, annotations: paths, relative to the project; an empty `bags` asks
            for synthetic slides.
        standin: `n_train`, `n_test`, `side` and `mpp` as of `write_synthetic`, and `tile_size`.

    Raises:
        IpslibError: when what is named is not there.
    """
    if not bags:
        return _synthetic_material(**standin)
    given = {"labels": labels, "annotations": annotations}
    if not from_project(bags).exists():
        options = " ".join(f"--{name} {path}" for name, path in given.items() if path)
        raise IpslibError(
            f"{bags}: wanted bags of CAMELYON16, found none; put its slides into "
            f"{slides or 'SLIDES'} and call: python -m ipslib slides prepare "
            f"{slides or 'SLIDES'} {bags} {options}".rstrip()
        )
    for name, path in given.items():
        if path and not from_project(path).exists():
            raise IpslibError(
                f"{name}: wanted {path} of CAMELYON16, found none; copy it there, or leave {name} "
                "empty."
            )
    paths = (slides, bags, labels, annotations)
    places = [from_project(path) if path else None for path in paths]
    return SlideMaterial(*places, is_synthetic=False)


def _synthetic_material(
    n_train: int, n_test: int, side: int, mpp: float, tile_size: int
) -> SlideMaterial:
    drawn = {"n_train": n_train, "n_test": n_test, "side": side, "mpp": mpp}
    name = f"slides_{n_train}_{n_test}_{side}px_{mpp:g}um_{tile_size}px"
    tiles = TileConfig(tile_size=tile_size, mpp=mpp)
    bags = f"bags_{tile_size}px"

    def make(folder: Path) -> None:
        places = write_synthetic(folder, **drawn)
        found = find_slides(places.images)
        known = known_annotations(found, places.annotations, read_labels(places.reference))
        prepare_slides(
            found, folder / bags, tiles=tiles, backbone=_BACKBONE, annotations=known,
            batch_size=256, progress=False,
        )  # fmt: skip

    folder = make_once(synthetic_folder(name), make)
    places = write_synthetic(folder, **drawn)  # is there already
    files = (places.images, folder / bags, places.reference, places.annotations)
    return SlideMaterial(*files, is_synthetic=True)
