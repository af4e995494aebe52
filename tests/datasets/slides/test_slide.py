import pickle
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from ipslib.datasets.slides.slide import Slide
from ipslib.errors import IpslibError

IMAGE = np.random.RandomState(0).randint(0, 256, (300, 420, 3)).astype(np.uint8)
READERS = ("openslide", "tifffile")
CM, INCH = "CENTIMETER", "INCH"
UNSAID = {"resolution": (1, 1), "resolutionunit": "NONE"}


def write(path, image=IMAGE, **options):
    """Tiles without loss, of a slide that does not state its resolution."""
    given = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "metadata": None}
    tifffile.imwrite(path, image, **given | UNSAID | options)
    return path


@pytest.fixture
def plain(tmp_path):
    return write(tmp_path / "a.tif", resolution=(2e4, 2e4), resolutionunit=CM)


def test_both_readers_see_the_same_slide_with_its_levels_and_resolution(standin):
    seen = []
    for reader in READERS:
        slide = Slide(standin.images / "tumor_501.tif", reader=reader)
        assert slide.levels == tuple((((512 // n,) * 2), n) for n in (1, 2, 4))
        assert slide.mpp == pytest.approx(4.0, rel=1e-6) and slide.states_mpp
        assert (slide.shape, slide.name) == ((512, 512), "tumor_501")
        windows = [slide.read((100, 60), level=level, shape=(70, 50)) for level in range(3)]
        seen.append(np.stack(windows).astype(int))
    assert np.abs(seen[0] - seen[1]).max() <= 2  # two decoders of JPEG


@pytest.mark.parametrize("reader", READERS)
def test_a_window_is_the_pixels_stored_and_white_outside(plain, reader):
    slide = pickle.loads(pickle.dumps(Slide(plain, reader=reader)))
    assert np.array_equal(slide.read((70, 31), level=0, shape=(90, 200)), IMAGE[31:121, 70:270])
    window = slide.read((400, 290), level=0, shape=(30, 40))
    assert np.array_equal(window[:10, :20], IMAGE[290:, 400:])
    assert (window[10:] == 255).all() and (window[:, 20:] == 255).all()
    window = slide.read((-5, -7), level=0, shape=(10, 10))
    assert np.array_equal(window[7:, 5:], IMAGE[:3, :5]) and (window[:7] == 255).all()


@pytest.mark.parametrize("reader", READERS)
def test_an_overview_is_the_mean_over_areas_whatever_the_bands(plain, reader, monkeypatch):
    expected = IMAGE.reshape(60, 5, 84, 5, 3).mean(axis=(1, 3))
    whole = Slide(plain, reader=reader).overview(2.5)
    assert whole.shape == (60, 84, 3) and np.abs(whole - expected).max() <= 1
    monkeypatch.setattr("ipslib.datasets.slides.slide._BAND_PIXELS", 420 * 12)
    assert np.abs(Slide(plain, reader=reader).overview(2.5) - expected).max() <= 1


def ome(size: float, unit: str | None = None) -> dict:
    units = {} if unit is None else {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    return {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size} | units


@pytest.mark.filterwarnings("error")
class TestResolution:
    """What is stated is believed, the most telling first; what cannot be one is none."""

    @pytest.mark.parametrize("reader", ("auto", "tifffile"))
    @pytest.mark.parametrize(
        ("stored", "mpp"),
        [
            ({"resolution": (4e4, 4e4), "resolutionunit": CM}, 0.25),
            ({"resolution": (25_400, 25_400), "resolutionunit": INCH}, 1.0),
            ({"description": "Aperio Image Library v1|AppMag = 20|MPP = 0.499"}, 0.499),
            ({"description": "Aperio Image Library v1|MPP = 0,2520|X = 1"}, 0.252),
            ({"metadata": ome(0.25), "resolution": (72, 72), "resolutionunit": INCH}, 0.25),
            ({"metadata": ome(500, "nm")}, 0.5),
            ({"metadata": ome(1, "pixel"), "resolution": (2e4, 2e4), "resolutionunit": CM}, 0.5),
        ],
    )
    def test_is_read_from_descriptions_before_tags(self, tmp_path, reader, stored, mpp):
        is_ome = stored.get("metadata") is not None
        path = write(tmp_path / ("a.ome.tif" if is_ome else "a.tif"), **stored)
        slide = Slide(path, reader=reader)
        assert slide.mpp == pytest.approx(mpp) and slide.states_mpp

    def test_of_imagej_counts_its_own_unit(self, tmp_path):
        path, given = tmp_path / "a.tif", {"imagej": True, "resolution": (4, 4)}
        for unit in ("um", "\\u00B5m"):
            tifffile.imwrite(path, IMAGE, metadata={"unit": unit}, **given)
            assert Slide(path).mpp == 0.25
        tifffile.imwrite(path, IMAGE, metadata={"unit": "cm"}, **given)
        with pytest.raises(IpslibError, match="2500 microns"):
            Slide(path)

    @pytest.mark.parametrize("reader", READERS)
    @pytest.mark.parametrize("stored", [{}, {"resolution": (72, 72), "resolutionunit": INCH}])
    def test_that_is_not_stated_is_asked_for_and_given(self, tmp_path, reader, stored):
        path = write(tmp_path / "a.tif", **stored)
        with pytest.raises(IpslibError, match=r"a\.tif.*--slide-mpp"):
            Slide(path, reader=reader)
        slide = Slide(path, reader=reader, mpp=0.25)
        assert (slide.mpp, slide.states_mpp) == (0.25, False)
        with pytest.raises(IpslibError, match="mpp"):
            Slide(path, reader=reader, mpp=250)

    @pytest.mark.parametrize("reader", READERS)
    def test_that_is_stated_wins_over_one_given_and_says_so(self, plain, reader):
        with pytest.warns(UserWarning, match=r"a\.tif.*0\.5.*0\.25"):
            slide = Slide(plain, reader=reader, mpp=0.25)
        assert (slide.mpp, slide.states_mpp) == (0.5, True)
        assert Slide(plain, reader=reader, mpp=0.49).mpp == 0.5

    @pytest.mark.parametrize("reader", READERS)
    def test_of_pixels_that_are_not_square_is_refused(self, tmp_path, reader):
        path = write(tmp_path / "a.tif", resolution=(4e4, 2e4), resolutionunit=CM)
        with pytest.raises(IpslibError, match="square"):
            Slide(path, reader=reader)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": None, "rowsperstrip": 7},
        {"tile": None, "compression": None},
        {"planarconfig": "separate"},
        {"bigtiff": True, "byteorder": ">"},
    ],
)
def test_a_tiff_in_strips_or_planes_is_read_by_the_reader_that_can(tmp_path, options):
    is_planar = options.get("planarconfig") == "separate"
    image = IMAGE.transpose(2, 0, 1) if is_planar else IMAGE
    path = write(tmp_path / "a.tif", image, **options)
    for reader in ("auto", "tifffile"):
        slide = Slide(path, reader=reader, mpp=1)
        assert slide.shape == IMAGE.shape[:2]
        assert np.array_equal(slide.read((9, 5), level=0, shape=(80, 90)), IMAGE[5:85, 9:99])
    if "tile" in options:  # which OpenSlide does not know, and does not call damaged
        with pytest.raises(IpslibError, match=r"a\.tif.*another file.*auto"):
            Slide(path, reader="openslide", mpp=1)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_transparent_is_white(tmp_path, reader):
    alpha = np.repeat(np.array([0, 255], np.uint8), 210)[None, :, None].repeat(300, axis=0)
    path = write(tmp_path / "a.tif", np.dstack([IMAGE, alpha]), extrasamples=["unassalpha"])
    window = Slide(path, reader=reader, mpp=1).read((200, 0), level=0, shape=(9, 20))
    assert (window[:, :10] == 255).all() and np.array_equal(window[:, 10:], IMAGE[:9, 210:220])


@pytest.mark.parametrize("tiled", [False, True])
def test_a_thumbnail_before_the_slide_is_not_taken_for_it(tmp_path, tiled):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        small = {"tile": (64, 64)} if tiled else {}
        tiff.write(IMAGE[::8, ::8], photometric="rgb", metadata=None, **small)
        tiff.write(IMAGE, photometric="rgb", metadata=None, tile=(64, 64))
    with pytest.raises(IpslibError, match="53 x 38 px before a larger"):
        Slide(path, mpp=1)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("image", "options"),
    [
        (np.stack([IMAGE, 255 - IMAGE]), {}),
        (IMAGE.transpose(2, 0, 1).copy(), {"photometric": "minisblack"}),  # a page a channel
        ((IMAGE / 255).astype(np.float32), {}),
    ],
    ids=["stack", "channels", "float"],
)
def test_what_is_not_one_image_of_whole_numbers_is_refused_and_not_called_damaged(
    tmp_path, image, options, reader
):
    path = write(tmp_path / "a.tif", image, **options)
    with pytest.raises(IpslibError, match=r"a\.tif.*(stack|float32)") as error:
        Slide(path, reader=reader, mpp=1)
    assert "damaged" not in str(error.value)


def test_without_openslide_a_tiff_is_read_and_others_say_what_to_install(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    other = plain.with_suffix(".svs")
    other.write_bytes(plain.read_bytes())
    for path in (plain, other):
        assert np.array_equal(Slide(path).read((9, 9), level=0, shape=(3, 3)), IMAGE[9:12, 9:12])
    other.with_suffix(".mrxs").write_bytes(b"no TIFF")
    with pytest.raises(IpslibError, match=r"a\.mrxs.*OpenSlide.*pip install openslide-python"):
        Slide(other.with_suffix(".mrxs"))


@pytest.mark.parametrize("reader", ("auto", *READERS))
def test_a_file_that_is_no_slide_is_refused_by_name(tmp_path, plain, reader):
    (tmp_path / "b.tif").write_bytes(b"II*\0" + b"\xff" * 300)
    (tmp_path / "c.tif").write_bytes(plain.read_bytes()[:1000])
    (tmp_path / "e.tif").write_bytes(b"<html>")
    for name in "bcde":
        with pytest.raises(IpslibError, match=rf"{name}\.tif") as error:
            Slide(tmp_path / f"{name}.tif", reader=reader, mpp=1)
    assert "reader to auto" not in str(error.value)  # which would not help where it is no TIFF


def test_grey_slides_and_unknown_readers_are_refused(tmp_path, plain):
    tifffile.imwrite(tmp_path / "b.tif", IMAGE[..., 0], tile=(64, 64))
    with pytest.raises(IpslibError, match="RGB"):
        Slide(tmp_path / "b.tif", reader="tifffile", mpp=1)
    with pytest.raises(IpslibError, match="reader.*'openslide'"):
        Slide(plain, reader="openslid")


def test_ycbcr_in_jpeg_2000_is_left_to_the_reader_that_converts_it(tmp_path):
    """Aperio's compression 33003 stores YCbCr under a header of RGB."""
    rgb = np.full((256, 256, 3), (226, 168, 200), np.uint8)
    stored = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    about = "Aperio Image Library v1\n256x256 (256x256) J2K/YUV16 Q=30|MPP = 0.5"
    lossless = {"mct": False, "reversible": True}
    path = write(
        tmp_path / "a.svs", stored, tile=(256, 256), compression=33003, description=about,
        compressionargs=lossless,
    )  # fmt: skip
    seen = Slide(path).read((9, 9), level=0, shape=(8, 8)).astype(int)
    assert np.abs(seen - rgb[0, 0]).max() <= 3
    with pytest.raises(IpslibError, match=r"a\.svs.*openslide"):
        Slide(path, reader="tifffile")


def test_a_tile_that_is_not_stored_is_white(tmp_path):
    tiles = [
        zlib.compress(IMAGE[y : y + 64, x : x + 64].tobytes()) if x + y else b""
        for y in range(0, 256, 64)
        for x in range(0, 384, 64)
    ]
    path = write(tmp_path / "a.tif", iter(tiles), shape=(256, 384, 3), dtype=np.uint8)
    window = Slide(path, mpp=1).read((0, 0), level=0, shape=(70, 70))
    assert (window[:64, :64] == 255).all() and np.array_equal(window[64:], IMAGE[64:70, :70])
    with pytest.raises(IpslibError, match=r"a\.tif.*openslide"):  # else it would be black
        Slide(path, mpp=1, reader="tifffile")
