"""Images to try the path of one's own with, where there are none yet: drawn, of many sizes and
formats."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from ipslib.datasets.synthetic import make_once, stream

SHAPES = ("cross", "disc", "ring")
_SUFFIXES = (".png", ".tif", ".npy", ".jpg")
_KEY, _CSV = 7, "labels.csv"
_GROUND, _STROKE, _SHAPE = (200, 190, 170), (90, 105, 140), (170, 35, 30)
_N_STROKES = 25


def write_example_images(
    folder: str | Path, n_images: int, *, side: int = 320, shape_size: int = 18, seed: int = 0
) -> Path:
    """Draw images with one small shape each among strokes, and write them with their labels.

    Sides vary from three quarters of `side` to all of it. The images take turns in being PNG,
    tiled TIFF, `.npy` and JPEG, and in showing a cross, a disc or a ring.

    Args:
        folder: where the images and `labels.csv` go.
        n_images: how many.
        side: of the largest, in pixels.
        shape_size: of the shape that makes the class, in pixels.
        seed: another one gives other images.

    Returns:
        The CSV. Where the folder is there already, nothing is drawn.
    """

    def draw(into: Path) -> None:
        lines = ["image,shape"]
        for i in range(n_images):
            name, shape = f"{i:04d}{_SUFFIXES[i % len(_SUFFIXES)]}", SHAPES[i % len(SHAPES)]
            _write(into / name, _drawn(stream(seed, _KEY, i), shape, side, shape_size))
            lines.append(f"{name},{shape}")
        (into / _CSV).write_text("\n".join(lines) + "\n")

    return make_once(Path(folder), draw) / _CSV


def _drawn(random: np.random.RandomState, shape: str, side: int, shape_size: int) -> np.ndarray:
    """(H, W, 3) uint8."""
    height, width = random.randint(3 * side // 4, side + 1, 2).tolist()
    image = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(image)
    for _ in range(_N_STROKES):
        x, y = random.randint(0, width), random.randint(0, height)
        dx, dy = random.randint(-side // 8, side // 8 + 1, 2).tolist()
        draw.line((x, y, x + dx, y + dy), fill=_STROKE, width=2)
    left, top = random.randint(0, width - shape_size), random.randint(0, height - shape_size)
    box = (left, top, left + shape_size - 1, top + shape_size - 1)
    draw.rectangle(box, fill=_GROUND)
    thick = max(2, shape_size // 5)
    if shape == "cross":
        draw.line(box, fill=_SHAPE, width=thick)
        draw.line((box[0], box[3], box[2], box[1]), fill=_SHAPE, width=thick)
    else:
        draw.ellipse(box, fill=_SHAPE if shape == "disc" else _GROUND, outline=_SHAPE, width=thick)
    noise = random.randint(-12, 13, (height, width, 1))
    return np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8)


def _write(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib", photometric="rgb")
    elif path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, quality=92)
