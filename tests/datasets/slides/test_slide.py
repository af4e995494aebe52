import pickle
import sys

import numpy as np
import pytest
import tifffile

from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import write_pyramid
from ipslib.errors import IpslibError

IMAGE = np.random.RandomState(0).randint(0, 256, (300, 420, 3)).astype(np.uint8)
READERS = ("openslide", "tifffile")


def write_plain(path, image=IMAGE, **options) -> None:
    """Tiles without loss."""
    tifffile.imwrite(
        path, image, tile=(64, 64), photometric="rgb", compression="zlib", metadata=None, **options
    )


@pytest.fixture
def plain(tmp_path):
    write_plain(tmp_path / "a.tif", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    return tmp_path / "a.tif"


@pytest.mark.parametrize("reader", READERS)
def test_levels_and_resolution_are_read_from_the_slide(standin, reader):
    slide = Slide(standin.images / "tumor_501.tif", reader=reader)
    assert [level.shape for level in slide.levels] == [(512, 512), (256, 256), (128, 128)]
    assert [level.downsample for level in slide.levels] == [1, 2, 4]
    assert slide.mpp == pytest.approx(4.0, rel=1e-6)
    assert (slide.shape, slide.name) == ((512, 512), "tumor_501")


@pytest.mark.parametrize("reader", READERS)
def test_a_window_is_the_pixels_stored_and_white_outside(plain, reader):
    slide = Slide(plain, reader=reader)
    assert slide.mpp == pytest.approx(0.5)
    assert np.array_equal(slide.read((70, 31), level=0, shape=(90, 200)), IMAGE[31:121, 70:270])
    window = slide.read((400, 290), level=0, shape=(30, 40))
    assert np.array_equal(window[:10, :20], IMAGE[290:, 400:])
    assert (window[10:] == 255).all() and (window[:, 20:] == 255).all()
    window = slide.read((-5, -7), level=0, shape=(10, 10))
    assert np.array_equal(window[7:, 5:], IMAGE[:3, :5]) and (window[:7] == 255).all()


def test_both_readers_see_the_same_slide(standin):
    one, other = (Slide(standin.images / "test_502.tif", reader=reader) for reader in READERS)
    for level in range(3):
        windows = [
            slide.read((100, 60), level=level, shape=(70, 50)).astype(int) for slide in (one, other)
        ]
        assert np.abs(windows[0] - windows[1]).max() <= 2  # two decoders of JPEG


def test_a_slide_can_be_sent_to_another_process(plain):
    slide = pickle.loads(pickle.dumps(Slide(plain)))
    assert np.array_equal(slide.read((0, 0), level=0, shape=(5, 5)), IMAGE[:5, :5])


def test_the_coarsest_level_that_is_fine_enough_is_chosen(standin):
    slide = Slide(standin.images / "normal_501.tif")  # 4, 8 and 16 microns per pixel
    chosen = {mpp: slide.level_for(mpp) for mpp in (1.0, 4.0, 7.0, 8.0, 15.9, 200.0)}
    assert chosen == {1.0: 0, 4.0: 0, 7.0: 0, 8.0: 1, 15.9: 2, 200.0: 2}


@pytest.mark.parametrize("reader", READERS)
def test_an_overview_is_the_mean_over_areas_whatever_the_bands(plain, reader, monkeypatch):
    expected = IMAGE.reshape(60, 5, 84, 5, 3).mean(axis=(1, 3))
    whole = Slide(plain, reader=reader).overview(2.5)
    assert whole.shape == (60, 84, 3) and np.abs(whole - expected).max() <= 1
    monkeypatch.setattr("ipslib.datasets.slides.slide._BAND_PIXELS", 420 * 12)
    assert np.abs(Slide(plain, reader=reader).overview(2.5) - expected).max() <= 1


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("stored", "found"),
    [({}, "got none"), ({"resolution": (72, 72), "resolutionunit": "INCH"}, "got 352.8 microns")],
)
def test_a_slide_without_a_resolution_asks_for_it(tmp_path, reader, stored, found):
    path = tmp_path / "a.tif"
    write_plain(path, **({"resolution": (1, 1), "resolutionunit": "NONE"} | stored))
    with pytest.raises(IpslibError, match=rf"a\.tif: wanted the slide's resolution, {found}.*mpp"):
        Slide(path, reader=reader)
    assert Slide(path, reader=reader, mpp=0.25).mpp == 0.25
    with pytest.raises(IpslibError, match="mpp: wanted 0.05 to 20 microns per pixel.*got 250"):
        Slide(path, reader=reader, mpp=250)


def test_without_openslide_a_tiff_is_read_and_others_say_what_to_install(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    assert np.array_equal(Slide(plain).read((9, 9), level=0, shape=(3, 3)), IMAGE[9:12, 9:12])
    other = plain.with_suffix(".svs")
    plain.rename(other)
    with pytest.raises(IpslibError, match=r"a\.svs: wanted OpenSlide.*pip install openslide-pyth"):
        Slide(other)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_no_slide_is_refused_by_name(tmp_path, reader):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\xff" * 300)
    with pytest.raises(IpslibError, match=r"a\.tif: wanted a readable file"):
        Slide(tmp_path / "a.tif", reader=reader)
    with pytest.raises(IpslibError, match=r"b\.tif: wanted an image file, found nothing"):
        Slide(tmp_path / "b.tif", reader=reader)


def test_grey_slides_and_unknown_readers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE[..., 0], tile=(64, 64))
    with pytest.raises(IpslibError, match="wanted a slide in RGB of 8 bits, got 1 channels"):
        Slide(tmp_path / "a.tif", reader="tifffile", mpp=1)
    write_pyramid(tmp_path / "b.tif", IMAGE, mpp=1)
    with pytest.raises(IpslibError, match="no reader 'openslid'.*mean 'openslide'"):
        Slide(tmp_path / "b.tif", reader="openslid")
