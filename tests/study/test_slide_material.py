import pytest

from ipslib.datasets import synthetic
from ipslib.datasets.slides.bags import describe_bags
from ipslib.datasets.synthetic import NOTE
from ipslib.errors import IpslibError
from ipslib.study.slide_material import find_material

SMALLEST = {"n_train": 2, "n_test": 2, "side": 256, "mpp": 8.0, "tile_size": 32}


def test_a_standin_is_drawn_and_prepared_once_and_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "project_root", lambda: tmp_path)
    material = find_material("", "", "", "", standin=SMALLEST)
    assert material.is_synthetic and material.bags.is_relative_to(tmp_path / "data" / "standins")
    assert material.warning == NOTE and material.titled("x") == "SYNTHETIC: x"
    config = describe_bags(material.bags, material.labels)
    assert config.standin and config.is_synthetic and config.source.startswith("SYNTHETIC")
    assert config.short_name == "standin_bags_32px"
    before = {path: path.stat().st_mtime_ns for path in material.slides.parent.rglob("*")}
    assert find_material("", "", "", "", standin=SMALLEST) == material
    assert {path: path.stat().st_mtime_ns for path in material.slides.parent.rglob("*")} == before
    assert (
        material.open_slide("test_501").name == material.open_slide("Test_501").name == "test_501"
    )
    assert material.open_slide("absent") is None and list(material.outlines) == [
        "test_502",
        "tumor_501",
    ]


def test_bags_that_are_not_there_say_how_to_prepare_them(tmp_path):
    slides, bags = str(tmp_path / "images"), str(tmp_path / "bags")
    with pytest.raises(IpslibError) as told:
        find_material(slides, bags, "reference.csv", "", standin={})
    assert str(told.value).endswith(
        f"call: python -m ipslib slides prepare {slides} {bags} --labels reference.csv"
    )
    with pytest.raises(IpslibError, match="labels: wanted absent.csv of CAMELYON16, found none"):
        find_material("", str(tmp_path), "absent.csv", "", standin={})


def test_real_bags_are_taken_as_they_are(tmp_path):
    material = find_material("", str(tmp_path), "", "", standin={})
    assert material == (None, tmp_path, None, None, False)
    assert material.titled("x") == "x" and not material.warning and material.outlines == {}
    assert material.open_slide("test_001") is None
