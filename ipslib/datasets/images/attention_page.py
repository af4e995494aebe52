"""One HTML page that shows what a network keeps of an image: to zoom and pan, patch by patch, task
by task. It holds everything itself and needs no network, no library and no server.

    attention_page("scan.tif", attention, "scan.html")
"""

import json
import warnings
from base64 import b64encode
from collections.abc import Callable
from html import escape
from importlib.resources import files
from io import BytesIO
from math import ceil, log2
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ipslib.datasets.images.attention import COLOURS, Attention
from ipslib.datasets.images.image import ImageSource
from ipslib.datasets.images.sources import PatchSource, open_source
from ipslib.datasets.slides.slide import Slide
from ipslib.errors import IpslibError
from ipslib.paths import write_atomically

_TILE = 512  # px of a tile's side
_PATCH_PIXELS = 160  # that a patch has at least, a side, at the resolution that shows it well
_PICTURE_PIXELS = 256  # that the picture of a patch has at most, a side
_QUALITY = 88  # of JPEG
_SAMPLE = 12  # tiles that a level's size is estimated from
_AT_ONCE = 2**24  # pixels of an image that are read together
_NAME = 24  # bytes of a tile's name and what stands about it
_DIGITS = 4  # of a number in the page

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Picture(NamedTuple):
    """An image, read at any resolution; lengths in pixels of level 0."""

    name: str
    width: int
    height: int
    finest: int  # 1 / 2^finest of the full resolution is the best that there is
    read: Callable[[Box, tuple[int, int]], Image.Image]  # a box in so many pixels, x before y

    def patch(self, corner: np.ndarray, size: float) -> Image.Image:
        """What of a patch at (row, column) lies inside the image, as sharp as it is shown."""
        top, left = np.rint(corner).astype(int).tolist()
        right, bottom = min(left + round(size), self.width), min(top + round(size), self.height)
        share = min(1.0, _PICTURE_PIXELS / size, 1 / 2**self.finest)
        pixels = tuple(max(1, round(side * share)) for side in (right - left, bottom - top))
        return self.read((left, top, right, bottom), pixels)

    def tile(self, level: int, row: int, col: int) -> Image.Image:
        """A tile at 1 / 2^level of the full resolution."""
        side = _TILE << level
        left, top = col * side, row * side
        right, bottom = min(left + side, self.width), min(top + side, self.height)
        size = ceil((right - left) / 2**level), ceil((bottom - top) / 2**level)
        return self.read((left, top, right, bottom), size)

    def n_tiles(self, level: int) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return ceil(self.height / (_TILE << level)), ceil(self.width / (_TILE << level))

    @property
    def coarsest(self) -> int:
        """The first level that is one tile."""
        return ceil(log2(max(1, max(self.width, self.height) / _TILE)))


def attention_page(
    image: str | Path | np.ndarray | PatchSource | Slide,
    attention: Attention,
    path: str | Path,
    *,
    title: str | None = None,
    boxes: np.ndarray | None = None,
    box_name: str = "object",
    max_megabytes: float = 25,
) -> Path:
    """Write a page of an image and of what a network kept of it.

    The image is shown at the lowest resolution that shows the patches well, 160 px a side, or at a
    lower one where the file would be too large: the page says so, and a warning too. The patches
    themselves are then shown sharper than what is around them.

    Args:
        image: a file or an array, its source, or a `Slide`.
        attention: of `ipslib.attention_of`.
        path: of the page.
        title: the image's name if None.
        boxes: (n, 4) top, left, height, width of what is to be found, in pixels of level 0.
        box_name: what it is called.
        max_megabytes: of the file.

    Raises:
        IpslibError: for features without an image, or an image that attention is not of.
    """
    if max_megabytes < 1:
        raise IpslibError(f"max_megabytes: wanted at least 1, got {max_megabytes:g}.")
    picture = open_picture(image)
    corners, size = np.asarray(attention.corners), attention.patch_size
    if (corners.min(axis=0) < 0).any() or (corners >= (picture.height, picture.width)).any():
        raise IpslibError(
            f"{picture.name}: wanted the image that attention is of, got one of {picture.width} x "
            f"{picture.height} px, which does not hold every patch; lengths are of level 0."
        )
    room = max_megabytes * 1e6 - len(_template())
    page = _facts(picture, attention, title) | {
        "boxes": [] if boxes is None else np.asarray(boxes)[:, [1, 0, 3, 2]].tolist(),
        "boxName": box_name,
        "pictures": _pictures(picture, attention, room / 3),
    }
    room -= len(json.dumps(page))
    if room < 0:
        raise IpslibError(
            f"max_megabytes: wanted at least {max_megabytes - room / 1e6:.2g} for the attention to "
            f"{len(corners)} patches alone, got {max_megabytes:g}."
        )
    wanted = max(picture.finest, int(log2(max(1, size / _PATCH_PIXELS))))
    levels = _pyramid(picture, min(wanted, picture.coarsest), room)
    finest = picture.coarsest + 1 - len(levels)
    page |= {"finest": finest, "coarsest": picture.coarsest, "tile": _TILE, "note": ""}
    page["tiles"] = {name: tile for level in levels for name, tile in level.items()}
    if finest > wanted:
        page["note"] = (
            f"The image is shown at 1/{2**finest} of its resolution, to keep this file under "
            f"{max_megabytes:g} MB."
        )
        warnings.warn(
            f"{path}: the image is shown at 1/{2**finest} of its resolution, and not at "
            f"1/{2**wanted}, to keep the page under max_megabytes={max_megabytes:g}.",
            stacklevel=2,
        )
    data = json.dumps(page, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    before, after = _template().split("{{data}}")
    before = before.replace("{{title}}", escape(page["title"]))
    return write_atomically(Path(path), before + data + after)


def _template() -> str:
    return files(__package__).joinpath("attention_page.html").read_text(encoding="utf-8")


def open_picture(image: str | Path | np.ndarray | PatchSource | Slide) -> Picture:
    """An image to show: a file or an array, its source, or a `Slide`.

    Raises:
        IpslibError: for features, or what cannot be read.
    """
    if isinstance(image, Slide):
        height, width = image.shape

        def read_slide(box: Box, size: tuple[int, int]) -> Image.Image:
            left, top, right, bottom = box
            level = image.level_for(image.mpp * (right - left) / size[0])
            scale = image.levels[level].downsample
            exact = (right - left) / scale, (bottom - top) / scale
            shape = ceil(exact[1]), ceil(exact[0])
            window = Image.fromarray(image.read((left, top), level=level, shape=shape))
            return window.resize(size, Image.Resampling.BOX, (0, 0, *exact))

        return Picture(image.name, width, height, 0, read_slide)
    source = image
    if isinstance(image, str | Path | np.ndarray):
        source = open_source(image, patch_size=1)
    if not isinstance(source, ImageSource):
        raise IpslibError(f"{source.name}: wanted an image to show, got features; give its image.")
    (height, width), scale = source.grid.canvas, source.downsample

    def read(box: Box, size: tuple[int, int]) -> Image.Image:
        left, top, right, bottom = (side / scale for side in box)
        right, bottom = min(right, width), min(bottom, height)
        n_bands = min(size[1], ceil((right - left) * (bottom - top) / _AT_ONCE))
        shown = np.linspace(0, size[1], n_bands + 1).astype(int)  # rows where bands meet
        meet = np.minimum(top + shown * ((bottom - top) / size[1]), bottom)
        cols, bands = slice(int(left), ceil(right)), []
        for upper, lower, n_rows in zip(meet[:-1], meet[1:], np.diff(shown), strict=True):
            rows = slice(int(upper), ceil(lower))
            pixels = source.window(rows, cols)
            if pixels.dtype != np.uint8:
                pixels = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
            pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
            band = Image.fromarray(np.ascontiguousarray(pixels))
            inside = (left - cols.start, upper - rows.start, right - cols.start, lower - rows.start)
            bands.append(band.resize((size[0], n_rows), Image.Resampling.BOX, inside))
        return Image.fromarray(np.concatenate(bands))

    shape = round(width * scale), round(height * scale)
    return Picture(Path(source.name).name, *shape, int(log2(scale)), read)


def _facts(picture: Picture, attention: Attention, title: str | None) -> dict:
    """What the page says in words and numbers."""
    tasks = [
        {
            "name": task,
            "answer": attention.answers[task],
            "classes": list(attention.probabilities[task]),
            "probabilities": _short(list(attention.probabilities[task].values())),
            "weights": _short(weights),
            "alone": _short(attention.alone[task]),
        }
        for task, weights in attention.weights.items()
    ]
    return {
        "title": title or picture.name,
        "width": picture.width,
        "height": picture.height,
        "size": attention.patch_size,
        "corners": np.asarray(attention.corners)[:, ::-1].tolist(),
        "tasks": tasks,
        "colours": COLOURS,
    }


def _short(values: np.ndarray | list) -> list:
    """Numbers of few digits, in lists as deep as they are."""
    if isinstance(values, list | np.ndarray):
        return [_short(each) for each in values]
    return float(f"{values:.{_DIGITS}g}")


def _encoded(image: Image.Image) -> str:
    """A JPEG in base64; of grey images a PNG where that is smaller, as of lines on black."""
    kinds = ("JPEG", "PNG") if image.mode == "L" else ("JPEG",)
    buffers = [BytesIO() for _ in kinds]
    for buffer, kind in zip(buffers, kinds, strict=True):
        image.save(buffer, kind, quality=_QUALITY)
    return b64encode(min((each.getvalue() for each in buffers), key=len)).decode()


def _pictures(picture: Picture, attention: Attention, room: float) -> list[str]:
    """The patches as pictures, from the first, as many as there is room for."""
    pictures = []
    for corner in attention.corners:
        pictures.append(_encoded(picture.patch(corner, attention.patch_size)))
        room -= len(pictures[-1])
        if room < 0:
            return pictures[:-1]
    return pictures


def _pyramid(picture: Picture, finest: int, room: float) -> list[dict[str, str]]:
    """Levels of tiles by `level/row/col`, from the coarsest to the finest that there is room
    for. Every pixel is read once, and no level is ever held whole."""
    while finest < picture.coarsest and _estimate(picture, finest) > room:
        finest += 1
    levels = [{} for _ in range(picture.coarsest + 1)]

    def draw(level: int, row: int, col: int) -> Image.Image:
        if level == finest:
            image = picture.tile(level, row, col)
        else:
            below = picture.n_tiles(level - 1)
            rows, cols = (
                range(2 * n, min(2 * n + 2, m)) for n, m in zip((row, col), below, strict=True)
            )
            image = _halved([[draw(level - 1, r, c) for c in cols] for r in rows])
        levels[level][f"{level}/{row}/{col}"] = _encoded(image)
        return image

    draw(picture.coarsest, 0, 0)
    sizes = [sum(len(tile) + _NAME for tile in level.values()) for level in levels]
    while finest < picture.coarsest and sum(sizes[finest:]) > room:
        finest += 1
    return levels[finest:][::-1]


def _halved(tiles: list[list[Image.Image]]) -> Image.Image:
    """Neighbouring tiles as one, at half their resolution."""
    rows = [np.concatenate([np.asarray(tile) for tile in row], axis=1) for row in tiles]
    whole = Image.fromarray(np.concatenate(rows))
    return whole.resize([ceil(side / 2) for side in whole.size], Image.Resampling.BOX)


def _estimate(picture: Picture, level: int) -> float:
    """About how many bytes this level and all coarser ones take, from some of its tiles."""
    n_rows, n_cols = picture.n_tiles(level)
    chosen = np.unique(np.linspace(0, n_rows * n_cols - 1, _SAMPLE).astype(int))
    sizes = [len(_encoded(picture.tile(level, *divmod(n, n_cols)))) for n in chosen.tolist()]
    return np.mean(sizes) * n_rows * n_cols * 4 / 3
