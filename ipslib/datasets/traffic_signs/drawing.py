"""Drawn road scenes: sky, verge, road, clutter, and signs on posts beside the road.

The disc of a limit sign has a red ring as in Sweden. Its ground differs by class, which real signs'
do not: a small network then learns from few images what the numerals alone would not teach it.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SCALE = 2  # scenes are drawn larger and reduced, so that edges are smooth
_TILE = 128  # px: a sign is drawn at this size
_RED, _BLACK, _POST = (190, 25, 30), (15, 15, 15), (120, 120, 125)
_GROUNDS = {"50_SIGN": (250, 205, 30), "70_SIGN": (240, 240, 240), "80_SIGN": (150, 200, 235)}
_SIGN_HEIGHTS = (0.08, 0.11)  # of the image's height
_NOISE = 7  # of the sensor, in grey values


class DrawnSign(NamedTuple):
    """x_min, y_min, x_max, y_max in pixels."""

    name: str
    box: tuple[float, float, float, float]


class DrawnScene(NamedTuple):
    image: Image.Image
    signs: tuple[DrawnSign, ...]


def draw_scene(
    random: np.random.RandomState, size: tuple[int, int], signs: tuple[str, ...], *, blurred=False
) -> DrawnScene:
    """Draw a scene.

    Args:
        random: its stream.
        size: height and width in pixels.
        signs: names of at most two signs, on either side of the road.
        blurred: smear the signs.
    """
    height, width = (_SCALE * side for side in size)
    image = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(image)
    horizon = int(height * random.uniform(0.42, 0.55))
    _sky(pen, random, width, horizon)
    _ground(pen, random, width, height, horizon)
    for _ in range(random.randint(4, 9)):
        _clutter(pen, random, width, height, horizon)
    sides = random.permutation([-1, 1])
    drawn = [
        _post_sign(image, random, name, side, horizon, blurred=blurred)
        for name, side in zip(signs, sides, strict=False)
    ]
    reduced = image.reduce(_SCALE)
    noise = random.randint(-_NOISE, _NOISE + 1, size=(*size, 1))
    pixels = np.clip(np.asarray(reduced).astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return DrawnScene(Image.fromarray(pixels), tuple(drawn))


def _sky(pen: ImageDraw.ImageDraw, random: np.random.RandomState, width: int, horizon: int) -> None:
    low, high = random.randint(150, 200), random.randint(200, 245)
    for row in range(horizon):
        grey = low + (high - low) * row // horizon
        pen.line([(0, row), (width, row)], fill=(grey - 45, grey - 15, min(grey + 10, 255)))
    for _ in range(random.randint(0, 5)):
        x, y = random.randint(0, width), random.randint(0, horizon)
        w, h = width // random.randint(4, 12), horizon // random.randint(8, 16)
        grey = random.randint(205, 245)
        pen.ellipse([x - w, y - h, x + w, y + h], fill=(grey, grey, grey))


def _ground(
    pen: ImageDraw.ImageDraw, random: np.random.RandomState, width: int, height: int, horizon: int
) -> None:
    green = random.randint(85, 135)
    pen.rectangle([0, horizon, width, height], fill=(green - 25, green, green // 2))
    vanish = int(width * random.uniform(0.4, 0.6))
    left, right = int(-0.1 * width), int(width * random.uniform(0.85, 1.0))
    grey = random.randint(80, 115)
    road = [(left, height), (vanish - 4, horizon), (vanish + 4, horizon), (right, height)]
    pen.polygon(road, fill=(grey, grey, grey + 4))
    middle = (left + right) // 2
    for near, far in [(0.02, 0.06), (0.12, 0.2), (0.32, 0.48), (0.68, 0.95)]:
        ends = [(vanish + (middle - vanish) * t, horizon + (height - horizon) * t)
                for t in (near, far)]  # fmt: skip
        pen.line(ends, fill=(225, 225, 220), width=max(1, int(width * 0.012 * far)))


def _clutter(
    pen: ImageDraw.ImageDraw, random: np.random.RandomState, width: int, height: int, horizon: int
) -> None:
    """A tree, a house, a car or a hoarding. None has a ring or stands on a post."""
    x = random.randint(0, width)
    tall = int(height * random.uniform(0.06, 0.2))
    kind = random.randint(4)
    if kind == 0:
        green = random.randint(45, 95)
        pen.rectangle(
            [x - tall // 12, horizon - tall // 3, x + tall // 12, horizon + 4], fill=(70, 50, 35)
        )
        pen.ellipse([x - tall // 2, horizon - tall, x + tall // 2, horizon - tall // 4],
                    fill=(green // 2, green, green // 3))  # fmt: skip
    elif kind == 1:
        wall = (random.randint(120, 190), random.randint(40, 120), random.randint(35, 80))
        pen.rectangle([x - tall, horizon - tall // 2, x + tall, horizon + 6], fill=wall)
        roof = [
            (x - tall, horizon - tall // 2),
            (x, horizon - tall),
            (x + tall, horizon - tall // 2),
        ]
        pen.polygon(roof, fill=(60, 55, 60))
    elif kind == 2:
        paint = tuple(int(v) for v in random.randint(20, 230, size=3))
        y, half = horizon + tall // 2, tall // 3
        pen.rectangle([x - half, y - half, x + half, y], fill=paint)
        pen.rectangle([x - half // 2, y - half, x + half // 2, y - half // 2], fill=(40, 45, 55))
        for lamp in (x - half + 3, x + half - 3):
            pen.ellipse([lamp - 3, y - 9, lamp + 3, y - 3], fill=(200, 40, 40))
    else:
        paint = tuple(int(v) for v in random.randint(60, 240, size=3))
        pen.rectangle(
            [x - tall // 3, horizon - tall // 2, x + tall // 3, horizon - tall // 4], fill=paint
        )


def _post_sign(
    image: Image.Image,
    random: np.random.RandomState,
    name: str,
    side: int,
    horizon: int,
    *,
    blurred: bool,
) -> DrawnSign:
    """Paste a sign on its post; side -1 is left of the road."""
    width, height = image.size
    diameter = int(height * random.uniform(*_SIGN_HEIGHTS))
    centre = 0.5 + side * random.uniform(0.2, 0.44)
    x, y = int(width * centre), int(horizon - height * random.uniform(-0.02, 0.14))
    foot = max(y + 2 * diameter, horizon + height // 20)
    pen = ImageDraw.Draw(image)
    post = max(1, diameter // 14)
    pen.rectangle([x - post, y, x + post, foot], fill=_POST)
    tile = sign_tile(name)
    if blurred:
        tile = tile.filter(ImageFilter.GaussianBlur(_TILE / 8))
    tile = tile.resize((diameter, diameter), Image.Resampling.LANCZOS)
    left, top = x - diameter // 2, y - diameter // 2
    image.paste(tile.convert("RGB"), (left, top), tile.getchannel("A"))
    box = (left, top, left + diameter, top + diameter)
    return DrawnSign(name, tuple(value / _SCALE for value in box))


def sign_tile(name: str) -> Image.Image:
    """A sign alone, RGBA of 128 x 128 px; any name but the limits' draws a sign of another kind."""
    tile = Image.new("RGBA", (_TILE, _TILE))
    pen = ImageDraw.Draw(tile)
    last = _TILE - 1
    if name in _GROUNDS:
        pen.ellipse([0, 0, last, last], fill=_RED)
        pen.ellipse([17, 17, last - 17, last - 17], fill=_GROUNDS[name])
        for digit, left in zip(name[:2], (33, 67), strict=True):
            _numeral(pen, digit, left, 42, 27, 45)
    elif name == "PRIORITY_ROAD":
        pen.polygon([(64, 0), (last, 64), (64, last), (0, 64)], fill=(235, 235, 235))
        pen.polygon([(64, 22), (106, 64), (64, 106), (22, 64)], fill=(240, 190, 20))
    else:
        pen.ellipse([0, 0, last, last], fill=(30, 70, 160))
        pen.line([(36, 36), (84, 84)], fill=(240, 240, 240), width=14)
        pen.polygon([(98, 98), (98, 60), (60, 98)], fill=(240, 240, 240))
    return tile


def _numeral(pen: ImageDraw.ImageDraw, digit: str, left: int, top: int, w: int, h: int) -> None:
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
