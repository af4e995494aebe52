"""Images in TIFF: only the tiles or strips under a patch are read, and a bounded cache keeps the
last ones, so that neighbouring patches share them."""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.folders import (
    PIECES,
    FileId,
    check_piece,
    file_id,
    load_package,
    opened,
    unreadable,
)
from ipslib.datasets.images.image import ArraySource, ImageSource
from ipslib.errors import IpslibError

if TYPE_CHECKING:
    from tifffile import TiffPage

_PALETTE = 3  # photometric interpretation
_JPEG = {6, 7, 34892, 33007}  # compressions whose tables stand apart from the tiles
_TILED = "save it anew as a tiled TIFF"
_SAVE_ANEW = f"copy it from its source again, or {_TILED}"


def tiff_source(
    path: str | Path, *, patch_size: int, patch_stride: int | None = None, level: int = 0
) -> ImageSource:
    """An image in a TIFF, with the values that tifffile reads. Of pixels stored as they are, the
    file is mapped; else the tiles or strips under a patch are decoded.

    Args:
        path: the file; of several images in it, the first one.
        patch_size: P in pixels of the level.
        patch_stride: in pixels; P if None.
        level: of the pyramid, 0 for the largest.

    Raises:
        IpslibError: when the file is missing, damaged, holds no single image of this level, or
            must be decoded in too large pieces.
    """
    file = file_id(path)
    page = opened(_open_page, file, level)
    _check_whole(file, page)
    cut = {"patch_size": patch_size, "patch_stride": patch_stride}
    if not page.is_memmappable or sum(page.databytecounts) != page.nbytes:
        return TiffSource(file, level, page, **cut)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    shape = (planes, page.imagelength, page.imagewidth, page.samplesperpixel // planes)
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    stored = np.memmap(file.path, dtype, "r", page.dataoffsets[0], shape)
    image = stored[0] if planes == 1 else stored[..., 0].transpose(1, 2, 0)
    return ArraySource(image, name=str(file.path), **cut)


class TiffSource(ImageSource):
    """An image in the tiles or strips of a TIFF, of which a bounded cache keeps the last ones.

    Made by `tiff_source`, which opens the `page` of a pyramid `level`.
    """

    def __init__(self, file: FileId, level: int, page: "TiffPage", **cut: int | None):
        shape = page.imagelength, page.imagewidth, page.samplesperpixel
        super().__init__(str(file.path), shape, page.dtype, **cut)
        self._file, self._level = file, level
        if page.is_tiled:
            self._piece_shape = page.tilelength, page.tilewidth
        else:
            self._piece_shape = min(page.rowsperstrip, shape[0]), shape[1]
        self._n_planes = shape[2] if page.planarconfig == 2 else 1
        self._pieces = tuple(-(-n // m) for n, m in zip(shape, self._piece_shape, strict=False))
        n_bytes = self._piece_shape[0] * self._piece_shape[1] * shape[2] * page.dtype.itemsize
        check_piece(self.name, n_bytes, _TILED)
        if any(page.databytecounts):  # find a missing decoder before any work starts
            first = next(i for i, n_bytes in enumerate(page.databytecounts) if n_bytes)
            self._piece(*divmod(first % (self._pieces[0] * self._pieces[1]), self._pieces[1]))

    @property
    def blank(self) -> Tensor | None:
        """(N,) bool, True where no tile under a patch is stored; None where all are."""
        page = opened(_open_page, self._file, self._level)
        n_rows, n_cols = self._pieces
        counts = np.array(page.databytecounts[: self._n_planes * n_rows * n_cols])
        stored = counts.reshape(self._n_planes, n_rows, n_cols).any(axis=0)
        if stored.all() or page.nodata:
            return None
        total = np.pad(stored.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        size, (length, width) = self.grid.patch_size, self._piece_shape
        top, left = self.grid.corners(np.arange(self.n_patches)).T
        bottom = np.minimum(top + size, self.grid.canvas[0]) - 1
        right = np.minimum(left + size, self.grid.canvas[1]) - 1
        r0, r1, c0, c1 = top // length, bottom // length + 1, left // width, right // width + 1
        n_stored = total[r1, c1] - total[r0, c1] - total[r1, c0] + total[r0, c0]
        return torch.from_numpy(n_stored == 0)

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        length, width = self._piece_shape
        for row, from_rows, to_rows in _spans(rows, length):
            for col, from_cols, to_cols in _spans(cols, width):
                into[to_rows, to_cols] = self._piece(row, col)[from_rows, from_cols]

    def _piece(self, row: int, col: int) -> np.ndarray:
        key = (self._file, self._level, row, col)
        return PIECES.get(key, partial(self._decode, row, col))

    def _decode(self, row: int, col: int) -> np.ndarray:
        """Decode a tile or strip, (length, width, C)."""
        page = opened(_open_page, self._file, self._level)
        n_rows, n_cols = self._pieces
        planes = [
            self._decode_plane(page, (plane * n_rows + row) * n_cols + col)
            for plane in range(self._n_planes)
        ]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _decode_plane(self, page: "TiffPage", index: int) -> np.ndarray:
        handle, n_bytes = page.parent.filehandle, page.databytecounts[index]
        tables = {}
        if page.compression in _JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        try:
            data, decode = None, page.decode  # which reads the file when it is first looked up
            if n_bytes:
                with handle.lock:
                    handle.seek(page.dataoffsets[index])
                    data = handle.read(n_bytes)
            piece, _, shape = decode(data, index, **tables)
        except Exception as error:  # every codec has errors of its own
            lost = f"tile or strip {index} is lost; {_SAVE_ANEW}"
            raise unreadable(self.name, error, lost) from error
        return np.full(shape[1:], page.nodata, page.dtype) if piece is None else piece[0]


def _spans(wanted: slice, length: int) -> Iterator[tuple[int, slice, slice]]:
    """The pieces under a range of pixels: number, the range in the piece, and in the result."""
    for number in range(wanted.start // length, (wanted.stop - 1) // length + 1):
        begin = max(wanted.start, number * length)
        end = min(wanted.stop, (number + 1) * length)
        yield (
            number,
            slice(begin - number * length, end - number * length),
            slice(begin - wanted.start, end - wanted.start),
        )


def _check_whole(file: FileId, page: "TiffPage") -> None:
    """Find a torn file before any work starts."""
    n_pieces, n_listed = prod(page.chunked), min(len(page.dataoffsets), len(page.databytecounts))
    if n_listed < n_pieces:
        raise IpslibError(
            f"{file.path}: wanted {n_pieces} tiles or strips, got {n_listed}: the file is torn; "
            f"{_SAVE_ANEW}."
        )
    stored = zip(page.dataoffsets[:n_pieces], page.databytecounts[:n_pieces], strict=True)
    end = max((offset + n_bytes for offset, n_bytes in stored if n_bytes), default=0)
    if end > file.size:
        raise IpslibError(
            f"{file.path}: wanted {end} bytes, got {file.size}: the file is torn; {_SAVE_ANEW}."
        )


def _open_page(path: Path, level: int) -> "TiffPage":
    """The page of a pyramid level."""
    tifffile = load_package("tifffile", path)
    try:
        tiff = tifffile.TiffFile(path)
        tiff.filehandle.lock = True
        levels = list(tiff.series[0].levels)
        page = levels[level].pages[0].aspage() if 0 <= level < len(levels) else None
    except Exception as error:  # damage can show anywhere in the parser
        raise unreadable(path, error, _SAVE_ANEW) from error
    if page is None:
        raise IpslibError(
            f"{path}: wanted level {level} of the pyramid, got levels 0 to {len(levels) - 1}; "
            "choose one of these."
        )
    if levels[level].size != page.size or page.imagedepth > 1:
        raise IpslibError(
            f"{path}: wanted one image, got a stack of {levels[level].shape} "
            f"(axes {levels[level].axes}); save each image to a file of its own."
        )
    if page.photometric == _PALETTE or page.dtype is None:
        raise IpslibError(
            f"{path}: wanted grey values or colours, got numbers of a palette or of an unknown "
            "type; save it anew as grey or RGB."
        )
    return page
