"""Every row of the tables in ipslib/datasets/images/README.md."""

import re
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

import ipslib.datasets.images
from ipslib.datasets.images.sources import open_source
from ipslib.errors import IpslibError

SIDES = 40, 56
RGB = np.random.RandomState(0).randint(0, 256, (*SIDES, 3)).astype(np.uint8)
RGB[8:30, 8:30] //= 4
GREY, ALPHA = RGB[..., 0], RGB[::-1, ..., 1]
RGBA, LA = np.dstack([RGB, ALPHA]), np.dstack([GREY, ALPHA])
DEEP = RGB.astype(np.uint16) * 257 + 19
README = Path(ipslib.datasets.images.__file__).with_name("README.md").read_text()
Reading = Callable[[Path], np.ndarray]


def pixels(path: Path) -> np.ndarray:
    """The image as ipslib reads it, (H, W, C) of bytes or floats."""
    source = open_source(path, patch_size=64)
    height, width = source.grid.canvas
    return source.read(torch.tensor([0]))[0, :, :height, :width].permute(1, 2, 0).numpy()


def pillow(path: Path) -> np.ndarray:
    """As Pillow shows it, on white."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image.convert("RGBA")))[..., :3] / 255


def samples(white: float, *, inverted: bool = False) -> Reading:
    """As tifffile reads it."""

    def read(path: Path) -> np.ndarray:
        stored = tifffile.imread(path, series=0) / white
        return 1 - stored if inverted else stored

    return read


def on_white(white: float, read: Reading = tifffile.imread) -> Reading:
    """With straight transparency."""

    def shown(path: Path) -> np.ndarray:
        stored = read(path) / white
        return 1 - stored[..., -1:] * (1 - stored[..., :-1])

    return shown


def of_inks(path: Path) -> np.ndarray:
    paper = 1 - tifffile.imread(path) / 65535
    return paper[..., :3] * paper[..., 3:]


def libpng(path: Path) -> np.ndarray:
    return imagecodecs.png_decode(path.read_bytes())


def tiff(image: np.ndarray, read: Reading = pillow, **options) -> tuple:
    options = {"photometric": "rgb" if image.shape[2:] in [(3,), (4,)] else "minisblack"} | options
    return "a.tif", lambda path: tifffile.imwrite(path, image, **options), read


def saved(name: str, image: Image.Image | np.ndarray, read: Reading = pillow, **options) -> tuple:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return name, lambda path: image.save(path, **options), read


def png16(image: np.ndarray, read: Reading) -> tuple:
    return "a.png", lambda path: path.write_bytes(imagecodecs.png_encode(image)), read


def turned(orientation: int) -> dict:
    exif = Image.Exif()
    exif[274] = orientation
    return {"exif": exif}


def pages(path: Path) -> None:
    tifffile.imwrite(path, RGB, photometric="rgb")
    tifffile.imwrite(path, GREY[:20], append=True)


def npy(image: np.ndarray, white: float) -> tuple:
    return "a.npy", lambda path: np.save(path, image), lambda path: np.load(path) / white


def torn(name: str) -> tuple:
    def write(path: Path) -> None:
        Image.fromarray(RGB).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    return name, write, None


def without_tag(path: Path, image: np.ndarray, tag: int) -> None:
    """A TIFF in which a tag has become one that nobody knows."""
    tifffile.imwrite(path, image, photometric="rgb" if image.ndim == 3 else "minisblack")
    with tifffile.TiffFile(path, mode="r+b") as file:
        offset = file.pages[0].tags[tag].offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = (65000).to_bytes(2, "little")
    path.write_bytes(content)


MAP = np.random.RandomState(1).randint(0, 65536, (3, 256)).astype(np.uint16)
HALF = RGB.astype(np.float32) / 255
PALETTE = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
CONTIG = {"planarconfig": "contig"}
PREMULTIPLIED = np.dstack([(RGB * (ALPHA / 255)[..., None]).astype(np.uint8), ALPHA])
TURNED = [(suffix, n) for suffix in ("jpg", "png", "webp") for n in range(1, 9)]

READ = {
    "TIFF, 8 bits": [tiff(GREY), tiff(RGB)],
    "TIFF, 1 to 7 bits": [
        tiff(GREY > 127),
        *(tiff(GREY >> (8 - n), samples(2**n - 1), bitspersample=n) for n in range(2, 8)),
        tiff(RGB >> 4, samples(15), bitspersample=4),
        saved("a.tif", GREY > 127, compression="group4"),
    ],
    "TIFF, 9 to 16 bits": [
        *(tiff(DEEP >> (16 - n), samples(2**n - 1), bitspersample=n) for n in range(9, 17)),
        tiff(DEEP[..., 0] >> 4, samples(4095), bitspersample=12, rowsperstrip=7),
        tiff(DEEP, samples(65535), byteorder=">", compression="lzw", predictor=True),
        tiff(DEEP, samples(65535), byteorder=">", rowsperstrip=7),
    ],
    "TIFF, floats": [
        *(tiff(HALF.astype(kind), samples(1)) for kind in (np.float16, np.float32, np.float64)),
        tiff(HALF, samples(1), predictor=3, compression="zlib", tile=(16, 32)),
    ],
    "TIFF, white is zero": [
        tiff(GREY, photometric="miniswhite"),
        tiff(GREY > 127, photometric="miniswhite"),
        tiff(DEEP[..., 0], samples(65535, inverted=True), photometric="miniswhite"),
        tiff(HALF[..., 0], samples(1, inverted=True), photometric="miniswhite"),
    ],
    "TIFF, palette": [
        tiff(GREY, photometric="palette", colormap=MAP),
        saved("a.tif", PALETTE),
        saved("a.tif", Image.fromarray(RGB).quantize(2), compression="packbits"),
    ],
    "TIFF, CMYK": [
        tiff(RGBA, photometric="separated"),
        tiff(RGBA.transpose(2, 0, 1), photometric="separated", planarconfig="separate"),
        tiff(np.dstack([DEEP, DEEP[::-1, ..., 1]]), of_inks, photometric="separated"),
    ],
    "TIFF, YCbCr as JPEG": [
        tiff(RGB, samples(255), photometric="ycbcr", compression="jpeg"),
        tiff(RGB, samples(255), photometric="ycbcr", compression="jpeg", subsampling=(2, 2)),
    ],
    "TIFF, transparency": [
        tiff(RGBA),
        tiff(PREMULTIPLIED, extrasamples=["assocalpha"]),
        tiff(LA, extrasamples=["unassalpha"], **CONTIG),
        tiff(np.dstack([DEEP, DEEP[::-1, ..., 1]]), on_white(65535)),
        tiff(np.dstack([HALF, HALF[::-1, ..., 1]]), on_white(1), compression="zlib"),
    ],
    "TIFF, further bands": [
        tiff(LA, samples(255), **CONTIG),
        tiff(np.dstack([DEEP, DEEP]), samples(65535), **CONTIG),
        tiff(RGBA, samples(255), extrasamples=["unspecified"]),
    ],
    "TIFF, orientation": [
        tiff(RGB, extratags=[(274, "H", 1, n, True)]) for n in (0, 9, *range(1, 9))
    ],
    "TIFF, several images": [("a.tif", pages, pillow)],
    "PNG, 1 to 8 bits": [
        saved("a.png", GREY),
        saved("a.png", RGB),
        saved("a.png", GREY > 127),
        *(saved("a.png", PALETTE.quantize(2**n), bits=n) for n in (1, 2, 4, 8)),
    ],
    "PNG, 16 bits": [
        png16(DEEP[..., 0].copy(), lambda path: np.asarray(Image.open(path)) / 65535),
        png16(DEEP, lambda path: libpng(path) / 65535),
    ],
    "PNG, transparency": [
        saved("a.png", RGBA),
        saved("a.png", LA),
        saved("a.png", RGB, transparency=tuple(map(int, RGB[3, 3]))),
        saved("a.png", GREY, transparency=int(GREY[3, 3])),
        saved("a.png", PALETTE, transparency=bytes(range(256))),
        png16(np.dstack([DEEP, DEEP[::-1, ..., 1]]), on_white(65535, libpng)),
        png16(np.dstack([DEEP[..., 0], DEEP[::-1, ..., 1]]), on_white(65535, libpng)),
    ],
    "JPEG": [saved("a.jpg", GREY), saved("a.jpg", RGB), saved("a.jpg", RGB, progressive=True)],
    "JPEG, CMYK": [saved("a.jpg", Image.fromarray(RGB).convert("CMYK"))],
    "JPEG, several images": [
        saved("a.jpg", RGB, format="MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    ],
    "EXIF orientation": [
        saved(f"a.{suffix}", RGB, lossless=True, **turned(n)) for suffix, n in TURNED
    ],
    "BMP": [saved("a.bmp", image) for image in (GREY, RGB, RGBA, GREY > 127, PALETTE)],
    "GIF": [saved("a.gif", PALETTE), saved("a.gif", PALETTE, transparency=3)],
    "WebP": [saved("a.webp", image, lossless=n) for image in (GREY, RGB, RGBA) for n in (0, 1)],
    "arrays, `.npy`": [
        *(npy(image, 255) for image in (GREY, RGB, LA, np.dstack([RGB, LA]))),
        *(npy(image, 65535) for image in (DEEP, DEEP.astype(">u2"), np.asfortranarray(DEEP))),
        *(npy(HALF.astype(kind), 1) for kind in ("f2", "f4", "f8", ">f8")),
        *(npy(HALF + rounding, 1) for rounding in (-1e-7, 1e-7)),
    ],
}


def every_case(table: dict[str, list]) -> list[tuple[str, int]]:
    return [(row, n) for row, cases in table.items() for n in range(len(cases))]


@pytest.mark.parametrize(("row", "n"), every_case(READ))
def test_what_is_read_is_what_its_own_reader_shows(tmp_path, row, n):
    name, write, read = READ[row][n]
    write(tmp_path / name)
    ours, shown = pixels(tmp_path / name), read(tmp_path / name)
    shown = shown[..., None] if shown.ndim == 2 else shown
    assert ours.shape[:2] == shown.shape[:2]
    tolerance = 1e-6
    if ours.dtype == np.uint8:  # rounded, and by Pillow too
        ours, tolerance = ours / 255, (1.01 if read is pillow else 0.51) / 255
    np.testing.assert_allclose(np.broadcast_to(ours, shown.shape), shown, atol=tolerance)


STACK = np.stack([GREY, GREY])
FRAMES = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}
REFUSED = {
    "floats beyond 0..1, NaN, infinity": [
        *(npy(np.where(GREY > 250, n, HALF[..., 0]), 1) for n in (255, -0.1, np.nan, np.inf)),
        tiff(RGB.astype(np.float32)),
        tiff(RGBA.astype(np.float32)),
        tiff(RGBA.astype(np.float32), extrasamples=["assocalpha"]),
        tiff(np.where(RGB > 250, np.nan, HALF), compression="zlib"),
    ],
    "signed or complex numbers, more than 16 bits": [
        *(npy(GREY.astype(kind), 1) for kind in ("i2", "u4", "i8", "c8")),
        *(tiff(GREY.astype(kind)) for kind in ("i1", "i2", "u4", "i4", "u8", "c8")),
        tiff(GREY.astype(np.uint32), bitspersample=24),
    ],
    "arrays of bool, masked arrays": [npy(GREY > 127, 1)],
    "arrays of four channels": [npy(RGBA, 255), npy(np.dstack([HALF, HALF[..., 0]]), 1)],
    "CIELAB, YCbCr that is no JPEG, camera raw, masks": [
        *(tiff(RGB, photometric=kind) for kind in ("cielab", "icclab", "ycbcr")),
        tiff(
            GREY, photometric="cfa", extratags=[(33421, "H", 2, (2, 2)), (33422, "B", 4, b"0112")]
        ),
        tiff(GREY > 127, photometric=4),
    ],
    "TIFF that does not say what its samples are": [
        ("a.tif", lambda path: without_tag(path, RGBA, 338), None),
        ("a.tif", lambda path: without_tag(path, GREY, 262), None),
        tiff(np.dstack([RGBA, ALPHA]), photometric="rgb", extrasamples=["unassalpha", 0]),
    ],
    "stacks of one size, animations": [
        tiff(STACK),
        tiff(np.stack([RGB, RGB]), photometric="rgb"),
        *(saved(f"a.{suffix}", RGB, **FRAMES) for suffix in ("gif", "png", "webp")),
    ],
    "torn and damaged files, files of another kind": [
        *(torn(f"a.{suffix}") for suffix in ("jpg", "png", "bmp", "gif", "webp", "tif")),
        *(
            ("a.png", lambda path, content=content: path.write_bytes(content), None)
            for content in (b"", b"no image", b"\0" * 5000, b"ftypheic" * 100)
        ),
    ],
}


@pytest.mark.parametrize(("row", "n"), every_case(REFUSED))
def test_what_is_refused_is_refused_by_name(tmp_path, row, n):
    name, write, _ = REFUSED[row][n]
    write(tmp_path / name)
    with pytest.raises(IpslibError, match=f"{re.escape(name)}: wanted .*, got .*; "):
        pixels(tmp_path / name)


def test_the_tables_name_what_is_tried_here():
    pixels_section = README.partition("## Pixels")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!read|refused|---)(.+?) \|", pixels_section, flags=re.MULTILINE)
    assert rows == [*READ, *REFUSED]


@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a.png", "a.bmp"])
@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "BMP", "WEBP"])
def test_the_content_decides_and_not_the_name(tmp_path, name, kind):
    Image.fromarray(RGB).save(tmp_path / name, format=kind)
    assert np.array_equal(pixels(tmp_path / name), np.rint(255 * pillow(tmp_path / name)))
