"""Small synthetic slides, drawn once, and the bags that are made of it."""

from pathlib import Path

import pytest

from ipslib.datasets.slides.camelyon16 import find_slides, read_labels
from ipslib.datasets.slides.prepare import (
    BackboneConfig,
    TileConfig,
    known_annotations,
    prepare_slides,
)
from ipslib.datasets.slides.synthetic import SyntheticSlides, write_synthetic

SMALL = {"n_train": 12, "n_test": 8, "side": 512, "mpp": 4.0}
TILES = TileConfig(tile_size=32, mpp=4.0)
BACKBONE = BackboneConfig(backbone="resnet18", weights="none", n_stages=2)


@pytest.fixture(scope="session")
def standin(tmp_path_factory) -> SyntheticSlides:
    return write_synthetic(tmp_path_factory.mktemp("slides") / "standin", **SMALL)


@pytest.fixture(scope="session")
def bags(standin, tmp_path_factory) -> Path:
    """Bags of all of them."""
    out = tmp_path_factory.mktemp("bags")
    slides = find_slides(standin.images)
    known = known_annotations(slides, standin.annotations, read_labels(standin.reference))
    prepared = prepare_slides(
        slides, out, tiles=TILES, backbone=BACKBONE, annotations=known, progress=False
    )
    assert len(prepared.made) == 20 and not prepared.skipped
    return out
