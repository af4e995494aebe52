"""One photograph of the traffic signs: is it sound, its pixels at the published size, its patches.

As published (Bergner et al., arXiv 2210.13007): resized to the canvas without regard to its
proportions, bilinear with antialiasing; and augmented. `batch` normalises them for ImageNet.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ipslib.datasets.images.files import unreadable
from ipslib.datasets.images.image import ImageSource
from ipslib.datasets.traffic_signs.augment import Augmentation, augmented

_CHANNELS = 3
_AGAIN = "copy it from its source again"
_END_OF_JPEG, _TAIL = b"\xff\xd9", 64  # some writers pad what follows the end


class Inspection(NamedTuple):
    """Height and width of a sound image, or what is wrong with it: a kind and a sentence."""

    size: tuple[int, int] | None
    kind: str = ""
    sentence: str = ""


def inspect_image(path: Path) -> Inspection:
    """Look at a file's header and its end; it is decoded only where its end is in doubt."""
    if not path.is_file():
        return Inspection(
            None,
            "missing image",
            f"{path}: wanted an image that the annotations name, found nothing; {_AGAIN}, or "
            "delete its line.",
        )
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "JPEG" and not _ends(path):
                image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        return Inspection(None, "damaged image", str(unreadable(path, error, _AGAIN)))
    return Inspection((height, width))


def _ends(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
        return _END_OF_JPEG in file.read()


def decode(path: Path, canvas: tuple[int, int], augmentation: Augmentation | None) -> np.ndarray:
    """The image at the canvas's size and augmented, (H, W, 3) uint8.

    Raises:
        IpslibError: when the file is damaged.
    """
    height, width = canvas
    try:
        with Image.open(path) as stored:
            image = stored if stored.mode == "RGB" else stored.convert("RGB")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error, _AGAIN) from error
    return np.asarray(image if augmentation is None else augmented(image, augmentation))


class SignImage(ImageSource):
    """A photograph as N patches (n, 3, P, P) uint8, not yet normalised.

    It is decoded when its first patch is read and then held, so a source lives as long as its
    batch: a batch of the published size is larger than the cache of decoded files. What hangs over
    an edge is black, as is what a translation uncovers.

    Args:
        path: the file.
        canvas: height and width in pixels that it is brought to.
        patch_size: P in pixels.
        patch_stride: in pixels; P if None.
        augmentation: of a training image.
    """

    def __init__(
        self,
        path: Path,
        *,
        canvas: tuple[int, int],
        patch_size: int,
        patch_stride: int | None = None,
        augmentation: Augmentation | None = None,
    ):
        shape = (*canvas, _CHANNELS)
        super().__init__(
            str(path), shape, np.dtype(np.uint8), patch_size=patch_size, patch_stride=patch_stride
        )
        self._path, self._augmentation = path, augmentation
        self._pixels: np.ndarray | None = None

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        if self._pixels is None:
            self._pixels = decode(self._path, self.grid.canvas, self._augmentation)
        return self._pixels

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        into[...] = self.pixels[rows, cols]

    def __getstate__(self) -> dict:
        """Without pixels: another process decodes the image for itself."""
        return self.__dict__ | {"_pixels": None}
