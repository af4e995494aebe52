import h5py
import numpy as np
import pytest
import torch

from ipslib.datasets.slides.annotations import read_asap, tumour_share
from ipslib.datasets.slides.bag_files import read_settings
from ipslib.datasets.slides.camelyon16 import find_slides, read_labels
from ipslib.datasets.slides.features import Backbone, BackboneConfig
from ipslib.datasets.slides.prepare import TileConfig, known_annotations, prepare_slides
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import write_pyramid
from ipslib.errors import IpslibError

from .conftest import BACKBONE, TILES


def some(standin, *names) -> dict:
    return {name: standin.images / f"{name}.tif" for name in names}


def prepare(slides, out, **options):
    given = {"tiles": TILES, "backbone": BACKBONE, "progress": False} | options
    return prepare_slides(slides, out, **given)


def test_a_bag_holds_the_features_of_its_tiles(standin, bags):
    slide, network = Slide(standin.images / "tumor_502.tif"), Backbone(BACKBONE)
    with h5py.File(bags / "tumor_502.h5") as file:
        coords, features = file["coords"][:], file["features"][:]
    assert features.dtype == np.float32 and coords.dtype == np.int64
    for n in (0, len(coords) // 2, len(coords) - 1):
        pixels = slide.read(tuple(coords[n].tolist()), level=0, shape=(32, 32))
        expected = network(torch.tensor(pixels)[None]).numpy()[0]
        assert np.allclose(features[n], expected, atol=1e-4)


def test_a_bag_says_what_users_of_trident_and_clam_look_up(bags):
    with h5py.File(bags / "tumor_502.h5") as file:
        said = dict(file["coords"].attrs)
        assert dict(file["features"].attrs) == {"name": "tumor_502", "encoder": "resnet18"}
    expected = {
        "patch_size": 32, "patch_size_level0": 32, "overlap": 0, "name": "tumor_502",
        "level0_width": 512, "level0_height": 512, "patch_level": 0, "target_magnification": 2.5,
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected
    assert said["downsample"].tolist() == [1, 1] and said["mpp"] == said["level0_mpp"] == 4


def test_tiles_that_are_no_pixels_of_a_level_name_none(standin, tmp_path):
    tiles = TileConfig(tile_size=32, mpp=6.0, overlap=8)
    prepare(some(standin, "normal_501"), tmp_path, tiles=tiles)
    with h5py.File(tmp_path / "normal_501.h5") as file:
        said = dict(file["coords"].attrs)
    assert not {"patch_level", "downsample"} & said.keys()
    assert (said["patch_size"], said["patch_size_level0"], said["overlap"]) == (32, 48, 8)


def test_patch_labels_are_the_share_of_tumour(standin, bags):
    outlines = read_asap(standin.annotations / "tumor_503.xml")
    assert outlines.cut_out  # the one with a hole
    with h5py.File(bags / "tumor_503.h5") as file:
        share = tumour_share(outlines, (512, 512), file["coords"][:], 32)
        assert np.allclose(file["tumour_share"], share)
        assert np.array_equal(file["patch_labels"], share > 0.5)
        assert 0 < file["patch_labels"][:].sum() < 30
    with h5py.File(bags / "normal_503.h5") as file:
        assert not file["patch_labels"][:].any()


def test_where_tumour_lies_is_known_of_normal_and_of_outlined_slides(standin, tmp_path):
    slides = find_slides(standin.images)
    known = known_annotations(slides, standin.annotations, read_labels(standin.reference))
    assert known.keys() == slides.keys()
    assert known["normal_501"] is None and known["test_502"].name == "test_502.xml"
    alone = known_annotations(slides, None, {})
    assert set(alone) == {f"normal_{n}" for n in range(501, 507)}
    assert known_annotations({"tumor_010": None, "test_114": None}, None, {"test_114": 1}) == {}


def test_finished_slides_are_skipped_and_interrupted_ones_made(standin, tmp_path, monkeypatch):
    slides = some(standin, "normal_501", "test_501")
    first = prepare(some(standin, "normal_501"), tmp_path)
    (tmp_path / "test_501.h5.part").write_bytes(b"interrupted")
    assert first == (["normal_501"], [], {})
    stamp = (tmp_path / "normal_501.h5").stat().st_mtime_ns
    assert prepare(slides, tmp_path) == (["test_501"], ["normal_501"], {})
    assert (tmp_path / "normal_501.h5").stat().st_mtime_ns == stamp
    assert sorted(p.name for p in tmp_path.iterdir()) == ["normal_501.h5", "test_501.h5"]
    monkeypatch.setattr(
        "ipslib.datasets.slides.prepare.Backbone", None
    )  # not even the weights are needed
    assert prepare(slides, tmp_path) == ([], ["normal_501", "test_501"], {})


def test_a_stop_in_a_slide_leaves_no_bag(standin, tmp_path, monkeypatch):
    def stopped(*_, **__):
        yield np.zeros((3, BACKBONE.n_features), np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr("ipslib.datasets.slides.prepare.encoded", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(some(standin, "normal_501"), tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]


def test_bags_of_other_settings_are_not_mixed(standin, tmp_path):
    slides = some(standin, "normal_501")
    prepare(slides, tmp_path)
    one_stage = BackboneConfig(backbone="resnet18", weights="none", n_stages=1)
    for other in ({"tiles": TileConfig(tile_size=32, mpp=8.0)}, {"backbone": one_stage}):
        with pytest.raises(IpslibError, match=r"normal_501\.h5: wanted a bag of the settings"):
            prepare(slides, tmp_path, **other)
    assert read_settings(tmp_path / "normal_501.h5")["is_standin"] is True


def test_one_slide_that_fails_does_not_stop_the_rest(standin, tmp_path):
    glass = tmp_path / "glass.tif"
    write_pyramid(glass, np.full((256, 256, 3), 240, np.uint8), mpp=4)
    (tmp_path / "torn.tif").write_bytes((standin.images / "normal_501.tif").read_bytes()[:900])
    slides = {"glass": glass, "torn": tmp_path / "torn.tif"} | some(standin, "normal_501")
    made, _, skipped = prepare(slides, tmp_path / "bags")
    assert made == ["normal_501"] and set(skipped) == {"glass", "torn"}
    assert "glass: wanted tissue, found none" in skipped["glass"]
    assert "torn.tif: wanted" in skipped["torn"]
    assert read_settings(tmp_path / "bags" / "normal_501.h5")["mpp"] == 4
