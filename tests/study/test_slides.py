"""Slides of a study: what is taken or drawn, and scores in their places."""

import numpy as np
import pytest

from ipslib.datasets import synthetic
from ipslib.datasets.slides.bags import describe_bags
from ipslib.errors import IpslibError
from ipslib.study.slides import find_material, heat_map

SMALLEST = {"n_train": 2, "n_test": 2, "side": 256, "mpp": 8.0, "tile_size": 32}
SHAPE = (400, 800)
COORDS = np.array([(0, 0), (100, 0), (700, 300)])


def test_synthetic_slides_are_drawn_and_prepared_once_and_say_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "project_root", lambda: tmp_path)
    material = find_material("", "", "", "", standin=SMALLEST)
    assert material.is_synthetic and material.bags.is_relative_to(tmp_path / "data" / "standins")
    config = describe_bags(material.bags, material.labels)
    assert config.standin and config.is_synthetic and config.source.startswith("SYNTHETIC")
    assert config.short_name == "standin_bags_32px"
    before = {path: path.stat().st_mtime_ns for path in material.slides.parent.rglob("*")}
    assert find_material("", "", "", "", standin=SMALLEST) == material
    assert {path: path.stat().st_mtime_ns for path in material.slides.parent.rglob("*")} == before
    assert material.open_slide("test_501").name == "test_501"
    assert material.open_slide("absent") is None
    assert list(material.outlines) == ["test_502", "tumor_501"]


def test_real_bags_are_taken_as_they_are(tmp_path):
    material = find_material("", str(tmp_path), "", "", standin={})
    assert material == (None, tmp_path, None, None, False)
    assert material.outlines == {} and material.open_slide("test_001") is None


def test_every_patch_stands_in_its_place():
    heat = heat_map([0.2, 0.4, 0.9], COORDS, 100, SHAPE, pixels=(40, 80))
    assert heat.shape == (40, 80)
    assert (heat[:10, :10] == 0.2).all() and (heat[:10, 10:20] == 0.4).all()
    assert (heat[30:, 70:] == 0.9).all()
    assert np.isfinite(heat).sum() == 300


def test_overlapping_patches_are_averaged_and_tiny_ones_still_seen():
    heat = heat_map([0.2, 1.0], np.array([(0, 0), (50, 0)]), 100, SHAPE, pixels=(40, 80))
    assert heat[0, [0, 7, 12]].tolist() == pytest.approx([0.2, 0.6, 1.0])
    tiny = heat_map([0.7], np.array([(403, 203)]), 4, SHAPE, pixels=(40, 80))
    assert np.argwhere(tiny == 0.7).tolist() == [[20, 40]]


def test_scores_without_corners_are_refused():
    with pytest.raises(IpslibError, match="corner"):
        heat_map([0.1], COORDS, 100, SHAPE, pixels=(4, 8))
