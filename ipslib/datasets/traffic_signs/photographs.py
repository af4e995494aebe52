"""Photographs of the traffic signs, resized and augmented as published, as a batch of patches.

As Bergner et al., arXiv 2210.13007: resized to the canvas, whatever their proportions; colour
jitter and a translation; normalised for ImageNet.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms import functional

from ipslib.datasets.images.image import ArraySource
from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.traffic_signs.annotations import Box
from ipslib.errors import IpslibError
from ipslib.model.encoder import normalised
from ipslib.patches import PatchGrid

_END_OF_JPEG, _TAIL = b"\xff\xd9", 64  # some writers pad what follows the end
_ADJUST = {  # what does it, and what changes nothing
    "brightness": (functional.adjust_brightness, 1.0),
    "contrast": (functional.adjust_contrast, 1.0),
    "saturation": (functional.adjust_saturation, 1.0),
    "hue": (functional.adjust_hue, 0.0),
}


class Example(NamedTuple):
    """An image of the task; its boxes are in pixels of the stored image."""

    path: Path
    line: int  # of the annotations, from 1
    label: int  # index into CLASSES
    boxes: tuple[Box, ...]  # every VISIBLE sign of the image's class, the deciding one first
    size: tuple[int, int]  # height and width as stored


class Augmentation(NamedTuple):
    """What is done to one image; adjustments in the order in which they are made."""

    adjustments: tuple[tuple[str, float], ...]  # factor, or turn of the hue
    shift: tuple[int, int]  # pixels down and to the right; what it uncovers is black


class SignBatch(SourceBatch):
    """B photographs as a PatchBatch of normalised patches.

    Args:
        images: of each, (H, W, 3) uint8.
        boxes: of each, (n, 4) of top, left, height, width in pixels.
        labels: (B,) class indices.
        grid: that cuts them.

    Attributes:
        boxes: (B, R, 4) int64; where an image has fewer than R, the rest are zero.
    """

    normalised = True

    def __init__(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        labels: Tensor,
        *,
        grid: PatchGrid,
    ):
        size = {"patch_size": grid.patch_size, "patch_stride": grid.patch_stride}
        super().__init__([ArraySource(image, **size) for image in images], labels={"sign": labels})
        self.boxes = pad_sequence([torch.from_numpy(each) for each in boxes], batch_first=True)

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, 3, P, P) float32, normalised."""
        return normalised(super().read(image, patch))


def draw_augmentation(
    random: np.random.RandomState, *, jitter: float, translate: int
) -> Augmentation:
    """Draw colour jitter and a translation; a given stream gives the same whatever its strength.

    Brightness, contrast and saturation change by a factor in 1 - jitter .. 1 + jitter, the hue by
    -jitter .. jitter of the colour circle, in random order; the shift is uniform.

    Args:
        random: the stream of this image in this epoch.
        jitter: from 0 to 0.5.
        translate: largest shift in pixels, along either axis.
    """
    names = [list(_ADJUST)[i] for i in random.permutation(len(_ADJUST))]
    changes = random.uniform(-1, 1, size=len(names)).tolist()
    down, right = random.uniform(-1, 1, size=2)
    return Augmentation(
        tuple((n, _ADJUST[n][1] + jitter * c) for n, c in zip(names, changes, strict=True)),
        (round(translate * down), round(translate * right)),
    )


def read_photograph(
    path: Path, canvas: tuple[int, int], augmentation: Augmentation | None = None
) -> np.ndarray:
    """A photograph at the canvas's height and width, whatever its proportions (bilinear with
    antialiasing), and augmented: (H, W, 3) uint8.

    Raises:
        IpslibError: when the file is damaged.
    """
    with _opened(path) as stored:
        image = stored if stored.mode == "RGB" else stored.convert("RGB")
        image = image.resize(canvas[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image if augmentation is None else augmented(image, augmentation))


def augmented(image: Image.Image, augmentation: Augmentation) -> Image.Image:
    """An RGB image with its adjustments and its shift."""
    for name, value in augmentation.adjustments:
        adjust, unchanged = _ADJUST[name]
        if value != unchanged:
            image = adjust(image, value)
    down, right = augmentation.shift
    moved = Image.new("RGB", image.size)
    moved.paste(image, (right, down))
    return moved


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a sound image; it is decoded only where its end is in doubt.

    Raises:
        IpslibError: when it is missing or damaged.
    """
    with _opened(path) as image:
        if image.format == "JPEG":
            with path.open("rb") as file:
                file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
                if _END_OF_JPEG not in file.read():
                    image.load()
        return image.height, image.width


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise IpslibError(
            f"{path}: wanted a sound image, got none ({reason}); copy it from its source again, or "
            "delete its line."
        ) from error


def boxes_on_canvas(
    example: Example, canvas: tuple[int, int], shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """An image's boxes on the canvas that it is brought to and shifted on.

    Returns:
        (n, 4) int64 of top, left, height, width in whole pixels, outward; what lies outside the
        canvas is cut off, and a box that lies outside whole becomes zero.
    """
    boxes = np.array(example.boxes).reshape(-1, 4)  # x_min, y_min, x_max, y_max
    scale = np.array(canvas) / np.array(example.size)
    start = np.clip(np.floor(boxes[:, [1, 0]] * scale) + shift, 0, canvas)
    stop = np.clip(np.ceil(boxes[:, [3, 2]] * scale) + shift, 0, canvas)
    inside = (stop > start).all(axis=1, keepdims=True)
    return np.where(inside, np.concatenate([start, stop - start], axis=1), 0).astype(np.int64)
