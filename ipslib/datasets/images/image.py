"""One image as a source of patches: the grid over it, what its samples mean as light, and images
in memory or mapped from a file.

Pixels are light, 0 is black: uint8 of images of up to 8 bits a sample, else float32 in 0..1. What
hangs over the right and lower edges is zero, as in `cut_image`.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.files import FileId, file_id, opened, unreadable
from ipslib.errors import IpslibError
from ipslib.patches import PatchGrid

_ROUNDING = 1e-6  # by which floats may lie beyond 0..1


class Samples(NamedTuple):
    """What the samples of a stored pixel mean."""

    white: int | float  # the value of full light: 255, 4095, ..., 1.0 of floats
    inverted: bool = False  # 0 is white
    palette: np.ndarray | None = None  # (n, 3) in 0..1: the sample numbers a colour
    inks: bool = False  # cyan, magenta, yellow and black
    alpha: str = ""  # of the last sample: `straight`, or `premultiplied` into the others
    orientation: int = 1  # as EXIF and TIFF number it: how the stored image is turned when shown

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
    """An image of any size as N patches (C, P, P); a subclass copies windows out of it.

    Args:
        name: what errors call it.
        shape: height, width and samples of a pixel, as stored.
        dtype: of the samples.
        patch_size: P in pixels.
        patch_stride: in pixels; P if None.
        samples: what they mean; light, up to the largest value of their type, if None.

    Raises:
        IpslibError: for pixels that are no intensities, an empty image, or a stride that leaves
            gaps.
    """

    blank: Tensor | None = None
    downsample: float = 1  # pixels of the largest level of a pyramid to one of its own

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        *,
        patch_size: int,
        patch_stride: int | None = None,
        samples: Samples | None = None,
    ):
        patch_stride = patch_size if patch_stride is None else patch_stride
        dtype = np.dtype(dtype)
        is_float, is_bits = dtype.kind == "f", dtype.kind == "b" and samples is not None
        if not is_float and not is_bits and (dtype.kind != "u" or dtype.itemsize > 2):
            raise IpslibError(
                f"{name}: wanted pixels of uint8, uint16 or floating point in 0..1, got {dtype}; "
                "convert the image to one of them."
            )
        height, width, n_samples = shape
        if not height * width * n_samples:
            raise IpslibError(
                f"{name}: wanted an image, got {height} x {width} px in {n_samples} channels; "
                "leave it out."
            )
        self.name = name
        samples = samples or Samples(1.0 if is_float else np.iinfo(dtype).max)
        turned = (width, height) if samples.orientation >= 5 else (height, width)
        self.grid = PatchGrid(turned, patch_size, patch_stride)
        self.n_patches = self.grid.n_patches
        in_colour = samples.inks or samples.palette is not None
        channels = 3 if in_colour else n_samples - bool(samples.alpha)
        self.patch_shape = (channels, patch_size, patch_size)
        self.dtype = torch.float32 if is_float or samples.white > 255 else torch.uint8
        self._samples, self._stored, self._n_samples = samples, dtype, n_samples
        self._zero_is_black = not (in_colour or samples.inverted or samples.alpha)
        self._is_light = self._zero_is_black and samples.white == (1.0 if is_float else 255)

    def read(self, patches: Tensor) -> Tensor:
        """Patches by index (n,): (n, C, P, P).

        Raises:
            IpslibError: when the file cannot be read any more, or floats lie beyond 0..1.
        """
        patches = checked_indices(patches, self)
        out = np.zeros((len(patches), *self.patch_shape), self._numbers)
        for n, rows, cols in self._windows(patches):
            inside = out[n, :, : rows.stop - rows.start, : cols.stop - cols.start]
            self._fill(rows, cols, inside.transpose(1, 2, 0))
        if self._stored.kind == "f":
            self._check_range(patches, out)
        return torch.from_numpy(out)

    def window(self, rows: slice, cols: slice) -> np.ndarray:
        """A window that lies inside the image, (h, w, C)."""
        shape = rows.stop - rows.start, cols.stop - cols.start, self.patch_shape[0]
        out = np.empty(shape, self._numbers)
        self._fill(rows, cols, out)
        return out

    @property
    def _numbers(self) -> type[np.number]:
        return np.uint8 if self.dtype == torch.uint8 else np.float32

    def _windows(self, patches: np.ndarray) -> Iterator[tuple[int, slice, slice]]:
        """Where each patch lies on the canvas; neighbours follow each other."""
        (height, width), size = self.grid.canvas, self.grid.patch_size
        corners = self.grid.corners(patches).tolist()
        for n in np.argsort(patches, kind="stable").tolist():
            top, left = corners[n]
            yield n, slice(top, min(top + size, height)), slice(left, min(left + size, width))

    def _fill(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        """Fill (h, w, C) with the light of a window of the image as it is shown."""
        (height, width), turn = self.grid.canvas, self._samples.orientation
        if turn in (3, 4, 7, 8):  # the last row shown is stored first
            rows, into = slice(height - rows.stop, height - rows.start), into[::-1]
        if turn in (2, 3, 6, 7):  # the last column shown is stored first
            cols, into = slice(width - cols.stop, width - cols.start), into[:, ::-1]
        if turn >= 5:
            rows, cols, into = cols, rows, into.transpose(1, 0, 2)
        if self._is_light:
            self._copy(rows, cols, into)
            return
        stored = np.empty((*into.shape[:2], self._n_samples), self._stored)
        self._copy(rows, cols, stored)
        light = self._samples.light(stored)
        into[...] = np.rint(255 * light) if self.dtype == torch.uint8 else light

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        """Copy a window's samples, as stored, into (h, w, samples)."""
        raise NotImplementedError

    def _check_range(self, patches: np.ndarray, light: np.ndarray) -> None:
        """Refuse floats beyond 0..1, NaN among them."""
        if not light.size or (light.min() >= -_ROUNDING and light.max() <= 1 + _ROUNDING):
            return
        wrong = ~((light >= -_ROUNDING) & (light <= 1 + _ROUNDING))
        n, channel, row, col = np.argwhere(wrong)[0]
        top, left = self.grid.corners(patches[[n]])[0]
        raise IpslibError(
            f"{self.name}: wanted floating-point pixels in 0 (black) to 1 (white), got "
            f"{light[n, channel, row, col]:g} in row {top + row}, column {left + col}; scale the "
            "image, or correct it."
        )


def checked_indices(patches: Tensor, source: "ImageSource") -> np.ndarray:
    """Patch indices as numpy's; one outside the source is a mistake and not an empty patch."""
    patches = np.asarray(patches)
    if patches.size and not (patches.min() >= 0 and patches.max() < source.n_patches):
        raise IndexError(
            f"{source.name}: wanted patches from 0 to {source.n_patches - 1}, got "
            f"{patches.min()} to {patches.max()}."
        )
    return patches


class ArraySource(ImageSource):
    """An array (H, W) or (H, W, C), or any view of a numpy memory map.

    Of a map, only the pages under the patch that is being copied are held; it is opened anew in
    every process. An array in memory goes to a worker process with all its pixels.

    Args:
        array: the image.
        patch_size: P in pixels.
        patch_stride: in pixels; P if None.
        name: what errors call it.
        samples: what they mean; light if None, and then not four to a pixel.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        patch_size: int,
        patch_stride: int | None = None,
        name: str = "array",
        samples: Samples | None = None,
    ):
        if samples is None:
            _check_array(name, array)
        array = array[:, :, None] if array.ndim == 2 else array
        cut = {"patch_size": patch_size, "patch_stride": patch_stride}
        super().__init__(name, array.shape, array.dtype, samples=samples, **cut)
        self._mapped = _mapped(array)
        self._array = array if self._mapped is None else None

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        if self._mapped is None:
            into[...] = self._array[rows, cols]
        else:
            into[...] = self._mapped.view()[rows, cols]
            self._mapped.release()


def npy_source(
    path: str | Path, *, patch_size: int, patch_stride: int | None = None
) -> ArraySource:
    """An image saved by `numpy.save`, memory-mapped.

    Raises:
        IpslibError: when the file is missing or damaged, or holds no image.
    """
    file = file_id(path)
    try:
        array = np.load(file.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise unreadable(file.path, error, "write it again by numpy.save") from error
    if not isinstance(array, np.memmap):
        raise IpslibError(
            f"{file.path}: wanted one array, got an archive of several; write one by numpy.save."
        )
    return ArraySource(array, patch_size=patch_size, patch_stride=patch_stride, name=str(file.path))


def _check_array(name: str, array: np.ndarray) -> None:
    """Refuse an array that does not say by its shape what it shows."""
    shape, colours = array.shape, (1, 3, 4)
    remedy = ""
    if isinstance(array, np.ma.MaskedArray):
        remedy = "fill in what is masked"
    elif array.ndim not in (2, 3):
        remedy = "make a source of each image"
    elif array.ndim == 3 and shape[0] in colours and shape[2] not in colours:
        remedy = "move the channels last"
    elif array.ndim == 3 and shape[2] == 4:
        remedy = (
            "the fourth may be transparency: give the first three, or save it as a PNG or TIFF, "
            "which say what it is"
        )
    if remedy:
        raise IpslibError(
            f"{name}: wanted an image (height, width) or (height, width, channels), got a "
            f"{type(array).__name__} of {' x '.join(map(str, shape)) or 'one number'}; {remedy}."
        )


class _MappedArray(NamedTuple):
    """Where an array lies in a file."""

    file: FileId
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    def view(self) -> np.ndarray:
        return np.ndarray(
            self.shape, self.dtype, opened(_map_file, self.file), self.offset, self.strides
        )

    def release(self) -> None:
        """Give the pages back: the system keeps them as long as it has room, but they no longer
        belong to this process, whose memory a whole image would fill in the end."""
        if hasattr(mmap, "MADV_DONTNEED"):
            opened(_map_file, self.file).madvise(mmap.MADV_DONTNEED)


def _map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _mapped(array: np.ndarray) -> _MappedArray | None:
    """Where a view of a memory map lies in its file; None for memory, and for a map whose changes
    never reach the file."""
    root = array
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if not isinstance(root, np.memmap) or root.mode == "c" or root.filename is None:
        return None
    start = array.ctypes.data - root.ctypes.data
    mapped = _MappedArray(
        file_id(root.filename), array.dtype, array.shape, root.offset + start, array.strides
    )
    try:
        mapped.view()
    except (ValueError, TypeError, OSError) as error:
        raise unreadable(root.filename, error, "write it again") from error
    return mapped
