"""One image as a source of patches, what its samples mean as light, and what a process keeps of
the files behind sources.

Pixels are light, 0 is black: uint8 of images of up to 8 bits a sample, else float32 in 0..1. What
hangs over the right and lower edges is zero, as in `cut_image`. A source of a file holds its path
alone, so it goes to a worker process as it is; every process opens the file for itself, since a
handle that two of them share loses its place.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.augmentation import TURNS, UPRIGHT, Adjustments, adjusted, combined
from ipslib.errors import IpslibError
from ipslib.patches import PatchGrid

_OPEN_FILES = 64  # handles of a process; the one used longest ago goes first
_CACHED_BYTES = 64 * 2**20  # of decoded pieces, over all files of a process
_LARGEST_PIECE = 2**30  # bytes that are decoded at once
_TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ROUNDING = 1e-6  # by which floats may lie beyond 0..1


class FileId(NamedTuple):
    """A file as it stood when a source was made: what has changed since is another file."""

    path: Path
    size: int
    modified: int
    changed: int  # moves with every write, also where `modified` is set back


def file_id(path: str | Path) -> FileId:
    """Identify a file; IpslibError when it is not there, or is a folder."""
    path = Path(path).absolute()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise IpslibError(f"{path}: wanted an image file, found {found}; correct the path.")
    status = path.stat()
    return FileId(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_tiff(path: Path) -> bool:
    """Whether a file's content is TIFF, whatever its name says."""
    with path.open("rb") as file:
        return file.read(4) in _TIFF_BEGINS


def unreadable(file: Path | str, error: Exception, remedy: str) -> IpslibError:
    """The error of a file that is there and cannot be read: a damaged one, if nothing says that it
    is not."""
    reason, told = (str(error).splitlines() or [""])[0].rstrip("."), "a damaged one"
    if isinstance(error, PermissionError | BlockingIOError):
        told, remedy = "one that is locked", "close what holds it, or see to its rights"
    elif "lib/plugin)" in reason or "filter" in reason:  # HDF5's
        told = "one whose compression is not installed here"
        remedy = "pip install hdf5plugin and import it, or write the file anew without"
    reason = f"{type(error).__name__}: {reason}"
    return IpslibError(f"{file}: wanted a readable file, got {told} ({reason}); {remedy}.")


def opened(open_file: Callable[..., Any], file: FileId, *args: Hashable) -> Any:
    """`open_file(path, *args)`, remembered in this process for the files used last."""
    return _opened(open_file, file, args, os.getpid())


@lru_cache(maxsize=_OPEN_FILES)
def _opened(open_file: Callable[..., Any], file: FileId, args: tuple, _process: int) -> Any:
    return open_file(file.path, *args)


class PieceCache:
    """Decoded pieces of images, those used last, of at most `n_bytes` in all; the newest piece
    stays whatever its size."""

    def __init__(self, n_bytes: int):
        self.n_bytes, self._held = n_bytes, 0
        self._pieces: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The piece of a key, decoded where it is not held."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
                return self._pieces[key]
        piece = decode()
        with self._lock:
            if key not in self._pieces:
                self._pieces[key] = piece
                self._held += piece.nbytes
            while self._held > self.n_bytes and len(self._pieces) > 1:
                self._held -= self._pieces.popitem(last=False)[1].nbytes
        return piece


PIECES = PieceCache(_CACHED_BYTES)


def check_piece(name: str, n_bytes: int, remedy: str) -> None:
    """Refuse what is too large to be decoded at once."""
    if n_bytes > _LARGEST_PIECE:
        most, got = _LARGEST_PIECE >> 20, n_bytes >> 20
        raise IpslibError(f"{name}: wanted at most {most} MB to decode, got {got} MB; {remedy}.")


class Samples(NamedTuple):
    """What the samples of a stored pixel mean."""

    white: int | float  # the value of full light: 255, 4095, ..., 1.0 of floats
    inverted: bool = False  # 0 is white
    palette: np.ndarray | None = None  # (n, 3) in 0..1: the sample numbers a colour
    inks: bool = False  # cyan, magenta, yellow and black
    alpha: str = ""  # of the last sample: `straight`, or `premultiplied` into the others
    orientation: int = UPRIGHT  # of TURNS: how the stored image is turned when shown

    def light(self, stored: np.ndarray) -> np.ndarray:
        """Stored pixels (h, w, samples) as light in 0..1, (h, w, C) float32. What is transparent
        lies on white, as on a page."""
        if self.palette is not None:
            return self.palette[stored[..., 0].astype(np.intp)]
        light = stored.astype(np.float32) / np.float32(self.white)
        if self.alpha:
            light, alpha = light[..., :-1], light[..., -1:]
        if self.inverted:
            light = 1 - light
        if self.inks:
            light = (1 - light[..., :3]) * (1 - light[..., 3:])
        if self.alpha == "straight":
            light = 1 - alpha * (1 - light)
        elif self.alpha:
            light = light + 1 - alpha
        return light if isinstance(self.white, float) else np.minimum(light, 1)


class ImageSource:
    """An image of any size as N patches (C, P, P) of `patch_size` P at `patch_stride` (P if None).

    A subclass says how large the image is as it is stored, (height, width, samples of a pixel), of
    what type, and what its samples mean (light up to the largest value of the type if None), and
    copies windows of them. IpslibError for pixels that are no intensities, an empty image, or a
    stride that leaves gaps.
    """

    downsample: float = 1  # pixels of the largest level of a pyramid to one of its own
    _adjustments: Adjustments = ()
    _shift = (0, 0)  # of what is shown, down and to the right

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        samples: Samples | None = None,
        *,
        patch_size: int,
        patch_stride: int | None = None,
    ):
        (height, width, n_samples), dtype = shape, np.dtype(dtype)
        is_float, is_bits = dtype.kind == "f", dtype.kind == "b" and samples is not None
        is_light = is_float or is_bits or (dtype.kind == "u" and dtype.itemsize <= 2)
        if not is_light or not all(shape):
            raise IpslibError(
                f"{name}: wanted an image of uint8, uint16 or floating point in 0..1, got "
                f"{height} x {width} px of {n_samples} x {dtype}; convert it, or leave it out."
            )
        samples = samples or Samples(1.0 if is_float else np.iinfo(dtype).max)
        transposed = TURNS[samples.orientation][2]
        canvas = (width, height) if transposed else (height, width)
        patch_stride = patch_size if patch_stride is None else patch_stride
        self.name = name  # what errors call it
        self.grid = PatchGrid(canvas, patch_size, patch_stride)
        self.n_patches = self.grid.n_patches
        in_colour = samples.inks or samples.palette is not None
        channels = 3 if in_colour else n_samples - bool(samples.alpha)
        self.patch_shape = (channels, patch_size, patch_size)
        self.dtype = torch.float32 if is_float or samples.white > 255 else torch.uint8
        self._samples, self._stored, self._n_samples = samples, dtype, n_samples
        is_converted = in_colour or samples.inverted or samples.alpha
        self._is_light = not is_converted and samples.white == (1.0 if is_float else 255)

    def read(self, patches: Tensor) -> Tensor:
        """Patches by index (n,): (n, C, P, P); IpslibError when the file cannot be read any more,
        or floats lie beyond 0..1."""
        patches = checked_indices(patches, self)
        out = torch.zeros(len(patches), *self.patch_shape, dtype=self.dtype)
        size, (down, right) = self.grid.patch_size, self._shift
        height, width = np.subtract(self.grid.canvas, np.maximum(self._shift, 0))  # what stays
        corners, pixels = self.grid.corners(patches).tolist(), out.numpy()
        for n in np.argsort(patches, kind="stable").tolist():  # neighbours follow each other
            top, left = corners[n][0] - down, corners[n][1] - right
            rows = slice(max(top, 0), min(top + size, height))
            cols = slice(max(left, 0), min(left + size, width))
            if rows.start < rows.stop and cols.start < cols.stop:
                inside = pixels[n, :, rows.start - top : rows.stop - top]
                inside = inside[..., cols.start - left : cols.stop - left]
                self._fill(rows, cols, inside.transpose(1, 2, 0))
        in_doubt = pixels if self._stored.kind == "f" else pixels[:0]
        wrong = np.argwhere(~((in_doubt >= -_ROUNDING) & (in_doubt <= 1 + _ROUNDING)))
        if len(wrong):
            n, channel, row, col = wrong[0]
            top, left = np.subtract(corners[n], self._shift)
            place = f"row {top + row}, column {left + col}"
            raise IpslibError(
                f"{self.name}: wanted floating-point pixels in 0 (black) to 1 (white), got "
                f"{pixels[n, channel, row, col]:g} in {place}; scale the image, or correct it."
            )
        return out

    def augmented(
        self, turn: int, adjustments: Adjustments, shift: tuple[int, int] = (0, 0)
    ) -> "ImageSource":
        """The image turned, one of TURNS, its light adjusted, moved down and to the right by
        pixels, and cut after that: to the pixel the patches of the image changed whole, which may
        hang over other edges than before. What a move uncovers is black."""
        image, samples = copy(self), self._samples
        image._samples = samples._replace(orientation=combined(samples.orientation, turn))
        if TURNS[turn][2]:
            image.grid = attrs.evolve(self.grid, canvas=self.grid.canvas[::-1])
        image._adjustments, image._shift = adjustments, shift
        image._is_light = self._is_light and not adjustments
        return image

    def window(self, rows: slice, cols: slice) -> np.ndarray:
        """A window that lies inside the image, (h, w, C)."""
        shape = rows.stop - rows.start, cols.stop - cols.start, self.patch_shape[0]
        out = torch.empty(shape, dtype=self.dtype).numpy()
        self._fill(rows, cols, out)
        return out

    def _fill(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        """Fill (h, w, C) with the light of a window of the image as it is shown."""
        height, width = self.grid.canvas
        rows_reversed, cols_reversed, transposed = TURNS[self._samples.orientation]
        if rows_reversed:  # the last row shown is stored first
            rows, into = slice(height - rows.stop, height - rows.start), into[::-1]
        if cols_reversed:
            cols, into = slice(width - cols.stop, width - cols.start), into[:, ::-1]
        if transposed:
            rows, cols, into = cols, rows, into.transpose(1, 0, 2)
        if self._is_light:
            self._copy(rows, cols, into)
            return
        stored = np.empty((*into.shape[:2], self._n_samples), self._stored)
        self._copy(rows, cols, stored)
        light = adjusted(self._samples.light(stored), self._adjustments)
        into[...] = np.rint(255 * light) if self.dtype == torch.uint8 else light

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        """Copy a window's samples, as stored, into (h, w, samples)."""
        raise NotImplementedError


def checked_indices(patches: Tensor, source: ImageSource) -> np.ndarray:
    """Patch indices as numpy's; one outside the source is a mistake and not an empty patch."""
    patches, last = np.asarray(patches), source.n_patches - 1
    if patches.size and not (patches.min() >= 0 and patches.max() <= last):
        got = f"{patches.min()} to {patches.max()}"
        raise IndexError(f"{source.name}: wanted patches from 0 to {last}, got {got}.")
    return patches


class ArraySource(ImageSource):
    """An array (H, W) or (H, W, C), or a view of a numpy map of a `file`.

    Of a file, only the pages under the patch that is being copied are held, and it is mapped anew
    in every process. An array without one goes to a worker process with all its pixels.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        file: FileId | None = None,
        samples: Samples | None = None,
        **cut: int | None,
    ):
        name, shape = str(file.path) if file else "array", array.shape
        channels_first = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
        is_unclear = len(shape) not in (2, 3) or shape[2:] == (4,) or channels_first
        if samples is None and (is_unclear or isinstance(array, np.ma.MaskedArray)):
            raise IpslibError(
                f"{name}: wanted one image (height, width) or (height, width, channels), nothing "
                f"masked, got a {type(array).__name__} of {' x '.join(map(str, shape)) or '1'}; "
                "bring it to that. Of four channels, a PNG or TIFF says what the fourth is."
            )
        array = array[:, :, None] if array.ndim == 2 else array
        super().__init__(name, array.shape, array.dtype, samples, **cut)
        self._file, self._array = file, None if file else array
        if file:
            self._layout = {"shape": array.shape, "dtype": array.dtype, "strides": array.strides}
            self._layout["offset"] = array.offset

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        if self._file is None:
            into[...] = self._array[rows, cols]
            return
        memory = opened(_map_file, self._file)
        into[...] = np.ndarray(buffer=memory, **self._layout)[rows, cols]
        if hasattr(mmap, "MADV_DONTNEED"):  # or a whole image would fill this process in the end
            memory.madvise(mmap.MADV_DONTNEED)


def npy_source(path: str | Path, **cut: int | None) -> ArraySource:
    """An image saved by `numpy.save`, memory-mapped."""
    file = file_id(path)
    try:
        array = np.lib.format.open_memmap(file.path, mode="r")
    except (ValueError, OSError) as error:
        raise unreadable(file.path, error, "write one array by numpy.save") from error
    return ArraySource(array, file=file, **cut)


def _map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
