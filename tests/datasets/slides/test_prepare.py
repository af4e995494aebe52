import shutil
from contextlib import nullcontext
from urllib.error import URLError

import h5py
import numpy as np
import pytest
import tifffile
import torch

from ipslib.datasets.slides.annotations import read_asap, tumour_mask
from ipslib.datasets.slides.bags import SETTINGS, SlideBag
from ipslib.datasets.slides.camelyon16 import find_slides, read_labels
from ipslib.datasets.slides.prepare import (
    Backbone,
    BackboneConfig,
    TileConfig,
    find_tissue,
    known_annotations,
    lay_tiles,
    prepare_slides,
    read_tile,
    tissue_mask,
)
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import write_asap, write_pyramid
from ipslib.errors import IpslibError

from .conftest import BACKBONE, TILES

GLASS, PINK, FAINT = (242, 240, 243), (225, 170, 200), (236, 208, 224)


def painted(pink=PINK) -> tuple[np.ndarray, np.ndarray]:
    """A pink disc with a hole of 320 µm on noisy glass, at 8 µm a pixel, and where it is."""
    y, x = np.mgrid[:200, :200]
    disc = (np.hypot(y - 90, x - 110) < 60) & (np.hypot(y - 90, x - 110) > 20)
    noise = np.random.RandomState(0).normal(0, 2, (200, 200, 3))
    image = np.where(disc[..., None], pink, GLASS) + noise
    return image.clip(0, 255).astype(np.uint8), disc


class TestTissue:
    @pytest.mark.parametrize("pink", [PINK, (236, 222, 230)])
    def test_strong_and_pale_is_found_and_none_on_glass_alone(self, pink):
        image, disc = painted(pink)
        mask = tissue_mask(image, 8.0)
        assert (mask & disc).sum() > 0.95 * (mask | disc).sum()
        assert not tissue_mask(painted(GLASS)[0], 8.0).any()

    def test_is_no_padding_and_what_is_small_or_faint_counts_only_with_its_neighbours(self):
        image, _ = painted()
        image[:, :15] = np.random.RandomState(1).randint(0, 9, (200, 15, 3))  # black
        image[5:9, 25:29] = PINK  # 32 x 32 µm
        image[40:44, 108:112] = GLASS
        image[80:100, 165:190] = image[165:190, 20:60] = FAINT  # at the disc's edge, and alone
        mask = tissue_mask(image, 8.0)
        assert not mask[:, :14].any() and not mask[:12, 22:32].any()
        assert mask[38:46, 106:114].all() and not mask[90, 110]  # of the disc's hole
        assert mask[85:95, 175:185].all() and not mask[170:185, 25:55].any()

    def test_that_is_all_there_is_may_be_tiny(self, tmp_path):
        """A piece of 30 x 60 µm on 1 mm of glass: no pixel of the mask is all tissue."""
        image = np.full((1024, 1024, 3), GLASS, np.uint8)
        image[500:530, 498:558] = FAINT
        write_pyramid(tmp_path / "a.tif", image, mpp=1)
        slide = Slide(tmp_path / "a.tif")
        grid = lay_tiles(slide, find_tissue(slide), TileConfig(mpp=1.0))
        assert grid.coords.tolist() == [[256, 256], [512, 256], [256, 512], [512, 512]]


class TestTiles:
    """On a slide of 512 px and 4 microns per pixel."""

    EVERYWHERE = np.ones((128, 128), bool)

    @pytest.fixture
    def slide(self, standin) -> Slide:
        return Slide(standin.images / "tumor_502.tif")

    def laid(self, slide, tissue=EVERYWHERE, **config):
        return lay_tiles(slide, tissue, TileConfig(**config))

    def test_cover_the_slide_once_and_stand_in_rows(self, slide):
        grid = self.laid(slide, tile_size=100, mpp=4.0, min_tissue=0)
        assert (grid.size_level0, grid.level, grid.read_size) == (100, 0, 100)
        assert grid.coords[:7].tolist() == [[x, 0] for x in range(0, 600, 100)] + [[0, 100]]
        assert len(grid.coords) == 36

    def test_follow_microns_and_are_read_from_the_level_that_is_fine_enough(self, slide):
        grid = self.laid(slide, tile_size=64, mpp=8.0)
        assert (grid.size_level0, grid.level, grid.read_size) == (128, 1, 64)
        stored = slide.read((128, 256), level=1, shape=(64, 64))
        tile = grid.coords.tolist().index([128, 256])
        assert np.array_equal(read_tile(slide, grid, tile), stored)
        between = self.laid(slide, tile_size=64, mpp=6.0)
        assert (between.size_level0, between.level, between.read_size) == (96, 0, 96)
        resized, corner = read_tile(slide, between, 5), tuple(between.coords[5].tolist())
        whole = slide.read(corner, level=0, shape=(96, 96))
        assert resized.shape == (64, 64, 3) and abs(resized.mean() - whole.mean()) < 1.5

    def test_with_too_little_tissue_are_left_out(self, slide):
        tissue = np.zeros((128, 128), bool)
        tissue[:, 32:48] = True  # x from 128 to 192 px of level 0
        some = self.laid(slide, tissue, tile_size=96, mpp=4.0, min_tissue=0.6)
        assert some.coords.tolist() == [[96, y] for y in range(0, 480, 96)]  # two thirds tissue
        with pytest.raises(IpslibError, match="min_tissue"):
            self.laid(slide, tissue, tile_size=100, mpp=4.0, min_tissue=0.9)

    def test_overlap_and_are_never_finer_than_the_slide(self, slide):
        grid = self.laid(slide, tile_size=64, mpp=8.0, overlap=16)
        assert (grid.size_level0, grid.step_level0) == (128, 96)
        assert grid.coords[1].tolist() == [96, 0]
        with pytest.raises(IpslibError, match="overlap"):
            TileConfig(tile_size=64, overlap=64)
        with pytest.raises(IpslibError, match="mpp"):
            self.laid(slide, mpp=0.5)


def backbone(name="resnet18", n_stages=1, **fields) -> Backbone:
    return Backbone(BackboneConfig(backbone=name, weights="none", n_stages=n_stages, **fields))


class TestBackbone:
    TILES = torch.randint(0, 256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte()

    @pytest.mark.parametrize(
        ("name", "n_stages", "n_features"),
        [
            ("resnet18", 4, 512),
            ("resnet50", 3, 1024),
            ("resnet50", 4, 2048),
            ("torchvision/mobilenet_v3_small", 4, 1024),
        ],
    )
    def test_gives_the_features_of_its_last_stage(self, name, n_stages, n_features):
        features = backbone(name, n_stages)(self.TILES)
        assert features.shape == (3, n_features) and features.dtype == torch.float32
        assert not features.requires_grad

    def test_of_random_weights_follows_its_seed_and_leaves_other_randomness_alone(self):
        before = torch.get_rng_state()
        one, same, other = (backbone(seed=seed) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        assert one.sha256() == same.sha256() != other.sha256()
        assert torch.equal(one(self.TILES), same(self.TILES))
        assert not torch.allclose(one(self.TILES), other(self.TILES))

    def test_normalises_tiles_as_imagenet_was_and_each_by_itself(self):
        network, seen = backbone(), []
        assert torch.allclose(network(self.TILES)[1:2], network(self.TILES[1:2]), atol=1e-5)
        network.layers.register_forward_pre_hook(lambda _, images: seen.extend(images))
        network(torch.tensor([124, 116, 104]).byte().expand(1, 8, 8, 3))  # the mean colour
        network(torch.full((1, 4, 4, 3), 255).byte())
        assert seen[0].shape == (1, 3, 8, 8) and seen[0].abs().max() < 0.02
        assert seen[1][0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)

    def test_without_weights_names_their_file_and_how_to_do_without(self, tmp_path, monkeypatch):
        def offline(*_, **__):
            raise URLError("no network")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.download_url_to_file", offline)
        with pytest.raises(IpslibError, match=r"resnet50-0676ba61\.pth.*checkpoints.*none"):
            Backbone(BackboneConfig())
        with pytest.raises(IpslibError, match="imagenet_v2"):
            Backbone(BackboneConfig(backbone="resnet18", weights="imagenet_v2"))


def some(standin, *names) -> dict:
    return {name: standin.images / f"{name}.tif" for name in names}


def prepare(slides, out, **options):
    given = {"tiles": TILES, "backbone": BACKBONE, "progress": False} | options
    return prepare_slides(slides, out, **given)


def test_a_bag_holds_the_features_of_its_tiles_and_what_trident_and_clam_look_up(standin, bags):
    slide, network = Slide(standin.images / "tumor_502.tif"), Backbone(BACKBONE)
    with h5py.File(bags / "tumor_502.h5") as file:
        coords, features = file["coords"][:], file["features"][:]
        said = dict(file["coords"].attrs)
        assert dict(file["features"].attrs) == {"name": "tumor_502", "encoder": "resnet18"}
    assert features.dtype == np.float32 and coords.dtype == np.int64
    for n in (0, len(coords) // 2, len(coords) - 1):
        pixels = slide.read(tuple(coords[n].tolist()), level=0, shape=(32, 32))
        expected = network(torch.tensor(pixels)[None]).numpy()[0]
        assert np.allclose(features[n], expected, atol=1e-4)
    expected = {
        "patch_size": 32, "patch_size_level0": 32, "overlap": 0, "name": "tumor_502", "mpp": 4,
        "level0_width": 512, "level0_height": 512, "level0_mpp": 4, "patch_level": 0,
        "target_magnification": 2.5,
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected
    assert said["downsample"].tolist() == [1, 1]


def test_tiles_that_are_no_pixels_of_a_level_name_none(standin, tmp_path):
    tiles = TileConfig(tile_size=32, mpp=6.0, overlap=8)
    prepare(some(standin, "normal_501"), tmp_path, tiles=tiles)
    said = SlideBag(tmp_path / "normal_501.h5").attributes
    assert not {"patch_level", "downsample"} & said.keys()
    assert (said["patch_size"], said["patch_size_level0"], said["overlap"]) == (32, 48, 8)


def test_patch_labels_are_the_share_of_tumour(standin, bags):
    outlines = read_asap(standin.annotations / "tumor_503.xml")
    assert outlines.cut_out  # the one with a hole
    mask = tumour_mask(outlines, (512, 512), 1)
    with h5py.File(bags / "tumor_503.h5") as file:
        coords, share = file["coords"][:].tolist(), file["tumour_share"][:]
        expected = [mask[y : y + 32, x : x + 32].mean() for x, y in coords]
        assert share == pytest.approx(expected, abs=0.1)
        assert np.array_equal(file["patch_labels"], share > 0.5)
        assert 0 < file["patch_labels"][:].sum() < 30
    assert not SlideBag(bags / "normal_503.h5").patch_labels.any()


def test_where_tumour_lies_is_known_of_normal_and_of_outlined_slides(standin):
    slides = find_slides(standin.images)
    known = known_annotations(slides, standin.annotations, read_labels(standin.reference))
    assert known.keys() == slides.keys()
    assert known["normal_501"] is None and known["test_502"].name == "test_502.xml"
    alone = known_annotations(slides, None, {})
    assert set(alone) == {f"normal_{n}" for n in range(501, 507)}
    assert known_annotations({"tumor_010": None, "test_114": None}, None, {"test_114": 1}) == {}
    spelt = known_annotations({"Tumor_501": None}, standin.annotations, {})
    assert spelt["Tumor_501"].name == "tumor_501.xml"


SQUARE = np.array([(0, 0), (90, 0), (90, 90), (0, 90)], float)


@pytest.mark.parametrize("outlines", [[], [SQUARE + 600], [SQUARE, SQUARE - 200]])
def test_annotations_without_tumour_on_the_slide_are_refused(standin, tmp_path, outlines):
    """Else every patch of a tumour slide would be labelled as normal."""
    write_asap(tmp_path / "a.xml", outlines, [SQUARE])
    slides = some(standin, "tumor_501")
    done = prepare(slides, tmp_path / "bags", annotations={"tumor_501": tmp_path / "a.xml"})
    assert "a.xml" in done.skipped["tumor_501"] and not done.made


class TestReuse:
    """A bag is kept if it was made of the same; what is not the same is named."""

    @pytest.fixture
    def place(self, standin, tmp_path):
        """Two slides with their annotations, prepared."""
        for name in ("normal_501", "tumor_501"):
            shutil.copy(standin.images / f"{name}.tif", tmp_path)
        shutil.copy(standin.annotations / "tumor_501.xml", tmp_path)
        assert self.again(tmp_path).made == ["normal_501", "tumor_501"]
        return tmp_path

    def again(self, place, **options):
        slides = find_slides(place)
        known = known_annotations(slides, place, {})
        return prepare(slides, place / "bags", **{"annotations": known} | options)

    def test_of_what_is_the_same(self, place):
        before = {path: path.stat().st_mtime_ns for path in (place / "bags").iterdir()}
        copied = shutil.copy(place / "normal_501.tif", place / "copy.tif")
        shutil.move(copied, place / "normal_501.tif")  # other times, the same content
        assert self.again(place) == ([], ["normal_501", "tumor_501"], {}, {})
        assert {path: path.stat().st_mtime_ns for path in (place / "bags").iterdir()} == before

    def test_not_after_the_slide_has_changed(self, place, standin):
        shutil.copy(standin.images / "normal_502.tif", place / "normal_501.tif")
        done = self.again(place)
        assert (done.made, done.reused) == (["normal_501"], ["tumor_501"])
        assert done.changed == {"normal_501": "normal_501.tif"}
        prepare(some(standin, "normal_502"), place / "other")
        one, other = SlideBag(place / "bags/normal_501.h5"), SlideBag(place / "other/normal_502.h5")
        assert torch.equal(one.probe(), other.probe())

    def test_not_of_labels_after_annotations_have_changed(self, place, monkeypatch):
        path = place / "bags" / "tumor_501.h5"
        before = SlideBag(path)
        labels, rows = before.patch_labels, before.probe()
        write_asap(place / "tumor_501.xml", [np.array([(0, 0), (512, 0), (512, 512), (0, 512)])])
        monkeypatch.setattr("ipslib.datasets.slides.prepare.encoded", None)  # no feature is needed
        done = self.again(place)
        assert (done.made, done.reused) == (["tumor_501"], ["normal_501"])
        assert done.changed == {"tumor_501": "tumor_501.xml"}
        after = SlideBag(path)
        assert not labels.all() and after.patch_labels.all() and torch.equal(after.probe(), rows)
        assert self.again(place).reused == ["normal_501", "tumor_501"]
        # Taken away, given for the first time, and read otherwise.
        assert "annotated" in self.again(place, annotations=None).changed["tumor_501"]
        assert SlideBag(path).patch_labels is None
        assert "tumor_501.xml" in self.again(place).changed["tumor_501"]
        assert "groups" in self.again(place, groups={"own": True}).changed["tumor_501"]

    def test_not_of_another_resolution_given(self, place):
        mute = place / "normal_501.tif"
        tifffile.imwrite(
            mute, tifffile.imread(mute), tile=(256, 256), photometric="rgb", compression="jpeg",
            metadata=None, resolution=(1, 1), resolutionunit="NONE",
        )  # fmt: skip
        done = self.again(place)
        assert "--slide-mpp" in done.skipped["normal_501"] and done.reused == ["tumor_501"]
        assert "still there" in done.skipped["normal_501"]
        for mpp in (4.0, 2.0):
            with pytest.warns(UserWarning, match=r"tumor_501") if mpp == 2.0 else nullcontext():
                done = self.again(place, slide_mpp=mpp)
            assert (done.made, done.reused) == (["normal_501"], ["tumor_501"])
            assert SlideBag(place / "bags" / "normal_501.h5").attributes["level0_mpp"] == mpp
        assert done.changed == {"normal_501": "slide_mpp"}

    def test_never_among_other_settings_or_weights_or_unknown_ones(self, place, monkeypatch):
        for field, value in (("n_stages", 1), ("seed", 1)):
            other = {"n_stages": 2} | {field: value}
            with pytest.raises(IpslibError, match=rf"_501\.h5.*{field}"):
                config = BackboneConfig(backbone="resnet18", weights="none", **other)
                self.again(place, backbone=config)
        with pytest.raises(IpslibError, match=r"_501\.h5.*mpp"):
            self.again(place, tiles=TileConfig(tile_size=32, mpp=8.0))
        with monkeypatch.context() as patch, pytest.raises(IpslibError, match=r"\.h5.*weights"):
            patch.setattr(Backbone, "sha256", lambda self: "others of the same name")
            self.again(place)
        with h5py.File(place / "bags" / "normal_501.h5", "r+") as file:
            del file.attrs[SETTINGS]
        with pytest.raises(IpslibError, match=r"normal_501\.h5"):
            self.again(place)


def test_a_stop_in_a_slide_leaves_no_bag_and_it_is_made_next_time(standin, tmp_path, monkeypatch):
    def stopped(*_, **__):
        yield np.zeros((3, 128), np.float32)
        raise KeyboardInterrupt

    slides = some(standin, "normal_501")
    with monkeypatch.context() as patch:
        patch.setattr("ipslib.datasets.slides.prepare.encoded", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(slides, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    assert prepare(slides, tmp_path).made == ["normal_501"]
    assert [path.name for path in tmp_path.iterdir()] == ["normal_501.h5"]


def test_slides_that_fail_are_left_out_by_name_and_the_rest_goes_on(standin, tmp_path):
    write_pyramid(tmp_path / "glass.tif", np.full((256, 256, 3), 240, np.uint8), mpp=4)
    (tmp_path / "torn.tif").write_bytes((standin.images / "normal_501.tif").read_bytes()[:900])
    slides = {name: tmp_path / f"{name}.tif" for name in ("glass", "torn", "absent")}
    slides |= some(standin, "normal_501", "tumor_501")
    done = prepare(slides, tmp_path / "bags", annotations={"tumor_501": tmp_path / "no.xml"})
    assert done.made == ["normal_501"]
    told = {"glass": "tissue", "torn": "torn.tif", "absent": "absent.tif", "tumor_501": "no.xml"}
    assert done.skipped.keys() == told.keys()
    assert all(word in done.skipped[name] for name, word in told.items())
    settings = SlideBag(tmp_path / "bags" / "normal_501.h5").settings
    assert settings["is_standin"] is True and settings["mpp"] == 4


def test_features_that_are_no_numbers_are_never_written(standin, tmp_path, monkeypatch):
    forward = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, tiles: forward(self, tiles) / 0)
    done = prepare(some(standin, "normal_501"), tmp_path)
    assert "normal_501.tif" in done.skipped["normal_501"] and not list(tmp_path.glob("*.h5"))


REAL = {
    "cmu-1-small-region.svs": 0.499,
    "tcga-cr-7395-01a-01-ts1.svs": None,
    "kidney-48-5.tif": None,
}


@pytest.mark.parametrize("reader", ["auto", "tifffile"])
@pytest.mark.parametrize("name", REAL)
def test_a_real_slide_becomes_a_bag(shared, tmp_path, name, reader):
    path, stem = shared / "slides" / name, name.rsplit(".", 1)[0]
    if not path.is_file():
        pytest.skip("../shared holds no slides")
    options = {"tiles": TileConfig(tile_size=64, mpp=2.0), "reader": reader}
    done = prepare({stem: path}, tmp_path, **options)
    if REAL[name] is None:
        assert "--slide-mpp" in done.skipped[stem]
        done = prepare({stem: path}, tmp_path, **options, slide_mpp=0.5)
    assert done.made == [stem]
    bag = SlideBag(tmp_path / f"{stem}.h5")
    with tifffile.TiffFile(path) as tiff:
        pixels = tiff.pages.first.asarray()
    mpp = REAL[name] or 0.5
    assert bag.attributes["level0_mpp"] == pytest.approx(mpp)
    assert bag.size_level0 == round(128 / mpp) and bag.n_patches
    # What the bag was made of lies where it says.
    slide = Slide(path, reader=reader, mpp=mpp)
    for x, y in bag.coords()[[0, -1]].tolist():
        stored = pixels[y : y + bag.size_level0, x : x + bag.size_level0]
        window = slide.read((x, y), level=0, shape=stored.shape[:2])
        assert np.abs(window.astype(int) - stored).mean() < 1  # decoders differ a little
