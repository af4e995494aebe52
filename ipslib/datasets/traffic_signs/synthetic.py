"""Synthetic traffic signs: drawn road scenes in the format of the Swedish ones, awkward lines too.

The disc of a limit sign has a red ring as in Sweden. Its ground differs by class, which real signs'
do not: a small network then learns from few images what the numerals alone would not teach it.
Results on them say nothing about the real task.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from ipslib.datasets.synthetic import make_synthetic, stream
from ipslib.datasets.traffic_signs.annotations import (
    ANNOTATIONS,
    CLASSES,
    LIMITS,
    PUBLISHED_COUNTS,
    SET_OF,
    Box,
)
from ipslib.errors import IpslibError
from ipslib.patches import SPLITS

_FORMAT, _SEED = 1, 0  # of what is drawn: raise the format when a drawing changes
_SMALLEST_SIDE = 64
_JPEG_QUALITY = 92  # with colours at full size: signs are small
_STAMPS = {"train": 1000000000, "test": 1100000000}  # camera times, which begin the file names
_KINDS = {"PRIORITY_ROAD": "INFORMATION", "PASS_RIGHT_SIDE": "MANDATORY"}
_SCALE = 2  # scenes are drawn larger and reduced, so that edges are smooth
_TILE = 128  # px: a sign is drawn at this size
_RED, _BLACK, _POST = (190, 25, 30), (15, 15, 15), (120, 120, 125)
_GROUNDS = {"50_SIGN": (250, 205, 30), "70_SIGN": (240, 240, 240), "80_SIGN": (150, 200, 235)}
_SIGN_HEIGHTS = (0.08, 0.11)  # of the image's height
_NOISE = 7  # of the sensor, in grey values

Pen = ImageDraw.ImageDraw
DrawnSign = tuple[str, Box]


class _Shot(NamedTuple):
    """What an image is to show, and how its line is written."""

    signs: tuple[str, ...]
    visibility: str = "VISIBLE"
    awkward: str = ""


# What the filter leaves out, and what cannot be used: as many of them in every set.
_UNUSED = (
    _Shot(("PRIORITY_ROAD",)),
    _Shot(("PASS_RIGHT_SIDE", "PRIORITY_ROAD"), awkward="misc"),
    _Shot(("70_SIGN",), visibility="BLURRED"),
    _Shot(("50_SIGN",), awkward="inverted"),
    _Shot(("50_SIGN",), awkward="missing image"),
    _Shot(("50_SIGN",), awkward="torn image"),
    _Shot(("50_SIGN",), awkward="no colon"),
    _Shot(("50_SIGN",), awkward="no line"),
)


def write_synthetic(
    folder: str | Path, n_images: Mapping[str, int], *, size: tuple[int, int], equal: bool = False
) -> Path:
    """Draw `Set1` and `Set2` into a folder, or find the very same ones there, and return it.

    Of each split so many images are kept by the filter, all classes equally frequent or as
    published, and each there; images that it leaves out or that are broken, and lines to be
    repaired, are added. The size is height and width in pixels.

    IpslibError for too small images, or a folder that holds something else or cannot be written.
    """
    if min(size) < _SMALLEST_SIDE:
        raise IpslibError(
            f"canvas: wanted drawn photographs, of 4/5 of its sides, of at least {_SMALLEST_SIDE} "
            f"px, got {size[0]} x {size[1]} px; enlarge canvas."
        )
    classes = {
        split: _class_counts(n, (1,) * len(CLASSES) if equal else PUBLISHED_COUNTS[split])
        for split, n in n_images.items()
    }
    made_by = {"format": _FORMAT, "classes": classes, "size": size, "seed": _SEED, "awkward": True}

    def draw(part: Path) -> None:
        for split, counts in classes.items():
            _write_set(part / SET_OF[split], split, counts, size)

    return make_synthetic(folder, made_by, draw)


def _class_counts(n: int, shares: Sequence[int]) -> list[int]:
    """Whole numbers that add up to n, at least one each, by largest remainder."""
    exact = (n - len(CLASSES)) * np.array(shares) / sum(shares)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - len(CLASSES) - counts.sum()]] += 1
    return (counts + 1).tolist()


def _write_set(folder: Path, split: str, counts: list[int], size: tuple[int, int]) -> None:
    folder.mkdir()
    kept = [_shot(name, i) for name, n in zip(CLASSES, counts, strict=True) for i in range(n)]
    shots, lines = [*kept, *_UNUSED], []
    order = stream(_SEED, SPLITS[split], 0).permutation(len(shots)).tolist()
    for position, which in enumerate(tqdm(order, f"draw {folder.name}", leave=False, disable=None)):
        shot = shots[which]
        path = folder / f"{_STAMPS[split] + position}Image{position % 60:06d}.jpg"
        random = stream(_SEED, SPLITS[split], 1 + which)
        image, signs = draw_scene(random, size, shot.signs, blurred=shot.visibility == "BLURRED")
        if shot.awkward != "missing image":
            image.save(path, quality=_JPEG_QUALITY, subsampling=0)
        if shot.awkward == "torn image":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if shot.awkward != "no line":
            lines.append(_line(path.name, signs, shot) + "\r\n")
    (folder / ANNOTATIONS).write_bytes("".join(lines).encode())


def _shot(name: str, i: int) -> _Shot:
    """Image i of a class: some limit signs have a companion, some lines an awkward turn."""
    if name == "EMPTY":
        return _Shot((), awkward="misc" if i % 3 == 1 else "")
    signs = (name, list(_KINDS)[i % 2]) if i % 4 == 2 else (name,)
    return _Shot(signs, awkward=("letter", "misc", "")[i % 3])


def _line(name: str, signs: Sequence[DrawnSign], shot: _Shot) -> str:
    """As published: each sign ends in a semicolon, its lower right corner comes first."""
    entries = ["MISC_SIGNS"] if shot.awkward == "misc" else []
    for sign, box in signs:
        corners = box if shot.awkward == "inverted" else box[2:] + box[:2]
        numbers = [f"{value:.6f}" for value in corners]
        if shot.awkward == "letter":
            numbers[1] += "l"
        kind = "PROHIBITORY" if sign in LIMITS else _KINDS[sign]
        entries.append(", ".join([shot.visibility, *numbers, kind, sign]))
    colon = "" if shot.awkward == "no colon" else ":"
    return name + colon + "".join(f"{entry};" for entry in entries)


def draw_scene(
    random: RandomState, size: tuple[int, int], signs: tuple[str, ...], *, blurred: bool = False
) -> tuple[Image.Image, list[DrawnSign]]:
    """Draw sky, verge, road and clutter, and at most two signs, smeared if blurred, on posts on
    either side of the road; size is height and width in pixels."""
    height, width = (_SCALE * side for side in size)
    image = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(image)
    horizon = int(height * random.uniform(0.42, 0.55))
    _draw_sky(pen, random, width, horizon)
    _draw_ground(pen, random, width, height, horizon)
    for _ in range(random.randint(4, 9)):
        _draw_clutter(pen, random, width, height, horizon)
    drawn = [
        _draw_sign(image, random, name, side, horizon, blurred=blurred)
        for name, side in zip(signs, random.permutation([-1, 1]), strict=False)
    ]
    noise = random.randint(-_NOISE, _NOISE + 1, size=(*size, 1))
    pixels = np.asarray(image.reduce(_SCALE)).astype(np.int16) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), drawn


def _draw_sky(pen: Pen, random: RandomState, width: int, horizon: int) -> None:
    low, high = random.randint(150, 200), random.randint(200, 245)
    for row in range(horizon):
        grey = low + (high - low) * row // horizon
        pen.line([(0, row), (width, row)], fill=(grey - 45, grey - 15, min(grey + 10, 255)))
    for _ in range(random.randint(0, 5)):
        x, y = random.randint(0, width), random.randint(0, horizon)
        w, h = width // random.randint(4, 12), horizon // random.randint(8, 16)
        pen.ellipse([x - w, y - h, x + w, y + h], fill=(random.randint(205, 245),) * 3)


def _draw_ground(pen: Pen, random: RandomState, width: int, height: int, horizon: int) -> None:
    green = random.randint(85, 135)
    pen.rectangle([0, horizon, width, height], fill=(green - 25, green, green // 2))
    vanish = int(width * random.uniform(0.4, 0.6))
    left, right = int(-0.1 * width), int(width * random.uniform(0.85, 1.0))
    grey = random.randint(80, 115)
    road = [(left, height), (vanish - 4, horizon), (vanish + 4, horizon), (right, height)]
    pen.polygon(road, fill=(grey, grey, grey + 4))
    middle = (left + right) // 2
    for dash in [(0.02, 0.06), (0.12, 0.2), (0.32, 0.48), (0.68, 0.95)]:
        ends = [(vanish + (middle - vanish) * t, horizon + (height - horizon) * t) for t in dash]
        pen.line(ends, fill=(225, 225, 220), width=max(1, int(width * 0.012 * dash[1])))


def _draw_clutter(pen: Pen, random: RandomState, width: int, height: int, horizon: int) -> None:
    """A tree, a house, a car or a hoarding. None has a ring or stands on a post."""
    x, tall = random.randint(0, width), int(height * random.uniform(0.06, 0.2))
    top, half, third, quarter = horizon - tall, tall // 2, tall // 3, tall // 4
    kind = random.randint(4)
    if kind == 0:
        green, trunk = random.randint(45, 95), tall // 12
        pen.rectangle([x - trunk, horizon - third, x + trunk, horizon + 4], fill=(70, 50, 35))
        crown = [x - half, top, x + half, horizon - quarter]
        pen.ellipse(crown, fill=(green // 2, green, green // 3))
    elif kind == 1:
        wall = (random.randint(120, 190), random.randint(40, 120), random.randint(35, 80))
        pen.rectangle([x - tall, horizon - half, x + tall, horizon + 6], fill=wall)
        roof = [(x - tall, horizon - half), (x, top), (x + tall, horizon - half)]
        pen.polygon(roof, fill=(60, 55, 60))
    elif kind == 2:
        paint = tuple(random.randint(20, 230, size=3).tolist())
        y, window = horizon + half, third // 2
        pen.rectangle([x - third, y - third, x + third, y], fill=paint)
        pen.rectangle([x - window, y - third, x + window, y - window], fill=(40, 45, 55))
        for lamp in (x - third + 3, x + third - 3):
            pen.ellipse([lamp - 3, y - 9, lamp + 3, y - 3], fill=(200, 40, 40))
    else:
        paint = tuple(random.randint(60, 240, size=3).tolist())
        pen.rectangle([x - third, horizon - half, x + third, horizon - quarter], fill=paint)


def _draw_sign(
    image: Image.Image, random: RandomState, name: str, side: int, horizon: int, *, blurred: bool
) -> DrawnSign:
    """Paste a sign on its post; side -1 is left of the road."""
    width, height = image.size
    diameter = int(height * random.uniform(*_SIGN_HEIGHTS))
    x = int(width * (0.5 + side * random.uniform(0.2, 0.44)))
    y = int(horizon - height * random.uniform(-0.02, 0.14))
    foot, post = max(y + 2 * diameter, horizon + height // 20), max(1, diameter // 14)
    ImageDraw.Draw(image).rectangle([x - post, y, x + post, foot], fill=_POST)
    tile = sign_tile(name)
    if blurred:
        tile = tile.filter(ImageFilter.GaussianBlur(_TILE / 8))
    tile = tile.resize((diameter, diameter), Image.Resampling.LANCZOS)
    left, top = x - diameter // 2, y - diameter // 2
    image.paste(tile.convert("RGB"), (left, top), tile.getchannel("A"))
    box = (left, top, left + diameter, top + diameter)
    return name, tuple(value / _SCALE for value in box)


def sign_tile(name: str) -> Image.Image:
    """A sign alone, RGBA of 128 x 128 px; any name but the limits' draws a sign of another kind."""
    tile = Image.new("RGBA", (_TILE, _TILE))
    pen, last = ImageDraw.Draw(tile), _TILE - 1
    if name in _GROUNDS:
        pen.ellipse([0, 0, last, last], fill=_RED)
        pen.ellipse([17, 17, last - 17, last - 17], fill=_GROUNDS[name])
        for digit, left in zip(name[:2], (33, 67), strict=True):
            _draw_numeral(pen, digit, left, 42, 27, 45)
    elif name == "PRIORITY_ROAD":
        pen.polygon([(64, 0), (last, 64), (64, last), (0, 64)], fill=(235, 235, 235))
        pen.polygon([(64, 22), (106, 64), (64, 106), (22, 64)], fill=(240, 190, 20))
    else:
        pen.ellipse([0, 0, last, last], fill=(30, 70, 160))
        pen.line([(36, 36), (84, 84)], fill=(240, 240, 240), width=14)
        pen.polygon([(98, 98), (98, 60), (60, 98)], fill=(240, 240, 240))
    return tile


def _draw_numeral(pen: Pen, digit: str, left: int, top: int, w: int, h: int) -> None:
    right, bottom, middle, ink = left + w, top + h, top + h // 2, {"fill": _BLACK, "width": 8}
    if digit == "0":
        pen.ellipse([left, top, right, bottom], outline=_BLACK, width=8)
    elif digit == "8":
        pen.ellipse([left + 2, top, right - 2, middle + 3], outline=_BLACK, width=7)
        pen.ellipse([left, middle - 3, right, bottom], outline=_BLACK, width=7)
    elif digit == "7":
        pen.line([(left, top + 3), (right, top + 3), (left + w // 3, bottom)], **ink, joint="curve")
    elif digit == "5":
        pen.line([(right, top + 3), (left + 4, top + 3), (left + 3, middle)], **ink)
        pen.arc([left - 4, middle - 9, right, bottom], 210, 140, **ink)
