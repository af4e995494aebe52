import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from ipslib.datasets.images import decoded as module
from ipslib.datasets.images.decoded import PhotoSource, TiffSource, tiff_source
from ipslib.datasets.images.image import ArraySource, PieceCache
from ipslib.errors import IpslibError
from tests.datasets.images.test_image import all_patches, reads_like

P, S = 20, 15
IMAGE = np.random.RandomState(0).randint(0, 256, (97, 71, 3)).astype(np.uint8)
GREY = IMAGE[:, :, 0]
TILES = {"tile": (32, 16)}
PLANES = {"photometric": "rgb", "planarconfig": "separate"}
LAYOUTS = {
    "tiles": (IMAGE, TILES),
    "deflated tiles": (IMAGE, TILES | {"compression": "zlib"}),
    "predicted tiles": (IMAGE, TILES | {"compression": "zlib", "predictor": True}),
    "LZW tiles": (IMAGE, TILES | {"compression": "lzw"}),
    "JPEG tiles": (IMAGE, TILES | {"compression": "jpeg", "photometric": "rgb"}),
    "JPEG tiles in YCbCr": (IMAGE, {"tile": (32, 32), "compression": "jpeg"}),
    "planes of tiles": (IMAGE.transpose(2, 0, 1), TILES | PLANES | {"compression": "zlib"}),
    "mapped planes": (IMAGE.transpose(2, 0, 1), PLANES),
    "mapped strip": (IMAGE, {}),
    "mapped strips": (GREY, {"rowsperstrip": 10}),
    "deflated strips": (IMAGE, {"rowsperstrip": 10, "compression": "zlib"}),
    "one deflated strip": (IMAGE, {"rowsperstrip": 97, "compression": "zlib"}),
    "BigTIFF": (IMAGE, TILES | {"bigtiff": True}),
}


def whole(path, *, patch_size: int = P, patch_stride: int = S, level: int = 0) -> torch.Tensor:
    """All patches by reading the whole image with tifffile."""
    image = tifffile.imread(path, series=0, level=level)
    if image.ndim == 3 and image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    return all_patches(image, patch_size, patch_stride)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patches_are_those_of_the_image_that_tifffile_reads(tmp_path, layout):
    image, options = LAYOUTS[layout]
    tifffile.imwrite(tmp_path / "a.tif", image, **{"photometric": None} | options)
    source = tiff_source(tmp_path / "a.tif", patch_size=P, patch_stride=S)
    reads_like(source, whole(tmp_path / "a.tif"))
    assert isinstance(source, ArraySource if layout.startswith("mapped") else TiffSource)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_grid_over_any_tiles(tmp_path_factory, data):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    tile = data.draw(st.tuples(*[st.sampled_from([16, 32, 48])] * 2))
    size = data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(max(1, size // 3), size))
    image = np.random.RandomState(height).randint(0, 256, (height, width)).astype(np.uint8)
    path = tmp_path_factory.mktemp("any") / "a.tif"
    tifffile.imwrite(path, image, tile=tile, compression="zlib")
    source = tiff_source(path, patch_size=size, patch_stride=stride)
    reads_like(source, whole(path, patch_size=size, patch_stride=stride))


def test_neighbouring_patches_share_tiles_and_no_others_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECES", PieceCache(10**7))
    decoded, decode = [], TiffSource._decode
    monkeypatch.setattr(
        TiffSource, "_decode", lambda self, *at: decoded.append(at) or decode(self, *at)
    )
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, tile=(32, 16), compression="zlib")
    source = tiff_source(tmp_path / "a.tif", patch_size=P)
    source.read(torch.tensor([source.grid.shape[1] * 2 + 1]))  # rows 40 to 60, columns 20 to 40
    assert sorted(decoded) == [(1, 1), (1, 2)]
    for patches in torch.arange(source.n_patches).split(3):
        source.read(patches)
    assert sorted(decoded) == [(row, col) for row in range(4) for col in range(5)]  # each once
    # With less memory than a tile takes it costs time and no patch.
    monkeypatch.setattr(module, "PIECES", PieceCache(1))
    reads_like(source, whole(tmp_path / "a.tif", patch_stride=P))
    assert len(module.PIECES._pieces) == 1


def pyramid(path, *, as_pages: bool) -> None:
    """Three levels, behind each other as scanners write them, or below the first."""
    with tifffile.TiffWriter(path) as tiff:
        options = {"tile": (16, 16), "compression": "zlib"}
        tiff.write(IMAGE, subifds=None if as_pages else 2, **options)
        for step in (2, 4):
            smaller = np.ascontiguousarray(
                IMAGE[: 97 // step * step : step, : 71 // step * step : step]
            )
            tiff.write(smaller, subfiletype=1, **options)


@pytest.mark.parametrize("as_pages", [True, False])
def test_a_level_of_the_pyramid_is_an_image_of_its_own(tmp_path, as_pages):
    path = tmp_path / "a.tif"
    pyramid(path, as_pages=as_pages)
    canvases = []
    for level in range(3):
        source = tiff_source(path, patch_size=P, patch_stride=S, level=level)
        reads_like(source, whole(path, level=level))
        canvases.append(source.grid.canvas)
    assert canvases == [(97, 71), (48, 35), (24, 17)]
    for level in (3, -1):
        with pytest.raises(IpslibError, match=r"a\.tif.*level"):
            tiff_source(path, patch_size=P, level=level)


@pytest.mark.parametrize(
    "first",
    [
        {"data": IMAGE[::4, ::4], "subfiletype": 1},
        {"data": IMAGE[..., 0] > 99, "subfiletype": 4, "photometric": "mask"},
    ],
)
def test_a_preview_or_mask_before_the_image_is_none(tmp_path, first):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(**first)
        tiff.write(IMAGE)
    source = tiff_source(tmp_path / "a.tif", patch_size=P, patch_stride=S)
    assert np.array_equal(source.window(slice(0, 97), slice(0, 71)), IMAGE)


def sparse(path, *, stored: set[int], value: int = 1, **more) -> None:
    """4 x 3 tiles of 16 px of which only some are stored."""
    tile = zlib.compress(np.full((16, 16), value, np.uint8).tobytes())
    tiles = (tile if i in stored else b"" for i in range(12))
    options = {"tile": (16, 16), "compression": "zlib", "shape": (60, 45), "dtype": np.uint8}
    tifffile.imwrite(path, tiles, **options, **more)


@pytest.mark.parametrize(
    ("stored", "options", "light"),
    [
        ({5}, {}, 0),
        (set(), {}, 0),
        ({5}, {"extratags": [(42113, "s", 0, "255", True)]}, 255),  # GDAL's no data
        ({5}, {"photometric": "miniswhite"}, 255),
    ],
)
def test_tiles_that_are_not_stored_are_no_data(tmp_path, stored, options, light):
    path = tmp_path / "a.tif"
    sparse(path, stored=stored, **options)
    source = tiff_source(path, patch_size=10, patch_stride=7)
    if not options:
        reads_like(source, whole(path, patch_size=10, patch_stride=7))
    assert source.read(torch.tensor([0]))[0, 0, 4, 4] == light


def test_an_image_of_one_tile_that_is_not_stored_is_not_read_from_the_header(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE[:16, :16, 0], tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in ("TileOffsets", "TileByteCounts"):
            tiff.pages[0].tags[tag].overwrite(0)
    assert not tiff_source(path, patch_size=8).read(torch.arange(4)).any()


@pytest.mark.parametrize("layout", ["mapped strip", "deflated tiles", "deflated strips"])
def test_a_torn_file_is_refused_when_it_is_opened(tmp_path, layout):
    image, options = LAYOUTS[layout]
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    stored = (tmp_path / "a.tif").read_bytes()
    for length in [*range(0, len(stored), 997), len(stored) - 1]:
        path = tmp_path / f"torn_{length}.tif"
        path.write_bytes(stored[:length])
        with pytest.raises(IpslibError, match=rf"torn_{length}\.tif"):
            tiff_source(path, patch_size=P)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg"])
def test_a_spoilt_tile_is_named_when_it_is_read(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, tile=(32, 16), compression=compression)
    with tifffile.TiffFile(path) as tiff:
        offset, n_bytes = tiff.pages[0].dataoffsets[7], tiff.pages[0].databytecounts[7]
    sound = whole(path, patch_size=16, patch_stride=16)
    spoilt = bytearray(path.read_bytes())
    spoilt[offset : offset + n_bytes] = b"\xff" * n_bytes
    path.write_bytes(spoilt)
    source = tiff_source(path, patch_size=16)
    assert torch.equal(source.read(torch.tensor([0])), sound[:1])
    with pytest.raises(IpslibError, match=r"a\.tif: .* 7 "):
        source.read(torch.arange(source.n_patches))


def test_pieces_too_large_to_decode_are_refused(tmp_path):
    strip = {"shape": (40_000, 40_000), "dtype": np.uint8, "rowsperstrip": 40_000}
    tifffile.imwrite(tmp_path / "a.tif", iter([b"torn"]), compression="zlib", **strip)
    with pytest.raises(IpslibError, match=r"a\.tif: .* MB"):
        tiff_source(tmp_path / "a.tif", patch_size=P)
    (tmp_path / "a.png").write_bytes(png_header(32_000, 34_000))
    with pytest.raises(IpslibError, match=r"a\.png: .* MB"):
        PhotoSource(tmp_path / "a.png", patch_size=P)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_header(height: int, width: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def test_a_large_image_is_no_attack(tmp_path, recwarn):
    """Pillow's guards, which a person may rely on elsewhere, stay as they are."""
    guards = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    (tmp_path / "a.png").write_bytes(png_header(32_000, 33_500))  # just below 1 GB
    assert PhotoSource(tmp_path / "a.png", patch_size=500).n_patches == 64 * 67
    assert not recwarn and guards == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)


@pytest.mark.parametrize("behind", [False, True])
def test_a_png_may_say_much(tmp_path, behind):
    stored = io.BytesIO()
    Image.fromarray(IMAGE).save(stored, "png")
    head, end = (33, -12) if not behind else (-12, -12)
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(3 * 2**20)))
    stored = stored.getvalue()
    (tmp_path / "a.png").write_bytes(stored[:head] + text + stored[head:end] + stored[end:])
    source = PhotoSource(tmp_path / "a.png", patch_size=P, patch_stride=S)
    reads_like(source, all_patches(IMAGE, P, S))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_turns_nothing(tmp_path):
    for exif in (b"Exif\0\0", b"Exif\0\0no TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        Image.fromarray(IMAGE).save(tmp_path / "a.webp", lossless=True, exif=exif)
        source = PhotoSource(tmp_path / "a.webp", patch_size=P, patch_stride=S)
        reads_like(source, all_patches(IMAGE, P, S))


def test_an_image_is_decoded_once_while_the_cache_holds_it(tmp_path, monkeypatch):
    decoded, decode = [], PhotoSource._decode
    monkeypatch.setattr(PhotoSource, "_decode", lambda self: decoded.append(1) or decode(self))
    monkeypatch.setattr(module, "PIECES", PieceCache(10**6))
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    source = PhotoSource(tmp_path / "a.png", patch_size=P)
    assert not decoded  # its size is known from the header
    for patch in range(source.n_patches):
        source.read(torch.tensor([patch]))
    assert len(decoded) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_a_torn_image_is_refused_by_name(tmp_path, monkeypatch, suffix):
    """Wherever it is torn, and whatever another library has told Pillow."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.fromarray(IMAGE).save(tmp_path / f"a.{suffix}")
    stored = (tmp_path / f"a.{suffix}").read_bytes()
    for length in range(0, len(stored) - 20, 1997):
        path = tmp_path / f"torn_{length}.{suffix}"
        path.write_bytes(stored[:length])
        with pytest.raises(IpslibError, match=rf"torn_{length}\.{suffix}"):
            PhotoSource(path, patch_size=P).read(torch.tensor([0]))
