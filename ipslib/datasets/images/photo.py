"""Images that cannot be read in part: JPEG, PNG and what else Pillow opens is decoded whole."""

from pathlib import Path

import numpy as np
from PIL import Image

from ipslib.datasets.images.folders import PIECES, check_piece, file_id, unreadable
from ipslib.datasets.images.image import ImageSource

_AGAIN = "copy it from its source again"
_DTYPES = {"F": np.float32, "I": np.int32, "I;16": np.uint16}  # of Pillow's modes
_TOO_LARGE = "save it as a tiled TIFF, which is read in part"


class PhotoSource(ImageSource):
    """A JPEG or PNG, decoded when its first patch is read, and again when the cache had to give
    it up. Pixels lie as stored, without the turn that a camera may have noted.

    Args:
        path: the file.
        patch_size: P in pixels.
        patch_stride: in pixels; P if None.

    Raises:
        IpslibError: when the file is missing, damaged, or too large to be decoded whole.
    """

    def __init__(self, path: str | Path, *, patch_size: int, patch_stride: int | None = None):
        self._file = file_id(path)
        try:
            with Image.open(self._file.path) as image:
                (width, height), mode = image.size, _mode(image)
        except Image.DecompressionBombError as error:
            raise unreadable(self._file.path, error, _TOO_LARGE) from error
        except (OSError, SyntaxError) as error:
            raise unreadable(self._file.path, error, _AGAIN) from error
        name, dtype = str(self._file.path), np.dtype(_DTYPES.get(mode, np.uint8))
        shape = height, width, 3 if mode == "RGB" else 1
        super().__init__(name, shape, dtype, patch_size=patch_size, patch_stride=patch_stride)
        check_piece(name, height * width * shape[2] * dtype.itemsize, _TOO_LARGE)

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        into[...] = PIECES.get(self._file, self._decode)[rows, cols]

    def _decode(self) -> np.ndarray:
        try:
            with Image.open(self._file.path) as image:
                mode = _mode(image)
                pixels = np.asarray(image if mode == image.mode else image.convert(mode))
        except (OSError, SyntaxError) as error:
            raise unreadable(self.name, error, _AGAIN) from error
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _mode(image: Image.Image) -> str:
    """Grey and colour as they are; palettes, inks and transparency become colour."""
    if image.mode in ("L", "LA", "1"):
        return "L"
    return image.mode if image.mode in _DTYPES else "RGB"
