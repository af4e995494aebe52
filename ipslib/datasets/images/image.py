"""One image as a source of patches: the grid over it, and arrays, in memory or mapped from a file.

Pixels are uint8, or float32 where the image is floating-point or uint16 (then in 0..1). What hangs
over the right and lower edges is zero, as in `cut_image`.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.folders import FileId, file_id, opened, unreadable
from ipslib.errors import IpslibError
from ipslib.patches import PatchGrid


class ImageSource:
    """An image of any size as N patches (C, P, P); a subclass copies windows out of it.

    Args:
        name: what errors call it.
        shape: height, width and channels.
        dtype: of the pixels.
        patch_size: P in pixels.
        patch_stride: in pixels; P if None.

    Raises:
        IpslibError: for pixels that are no intensities, an empty image, or a stride that leaves
            gaps.
    """

    blank: Tensor | None = None

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        *,
        patch_size: int,
        patch_stride: int | None = None,
    ):
        patch_stride = patch_size if patch_stride is None else patch_stride
        dtype = np.dtype(dtype)
        if dtype.kind != "f" and (dtype.kind != "u" or dtype.itemsize > 2):
            raise IpslibError(
                f"{name}: wanted pixels of uint8, uint16 or floating point in 0..1, got {dtype}; "
                "convert the image to one of them."
            )
        height, width, channels = shape
        if not height * width * channels:
            raise IpslibError(
                f"{name}: wanted an image, got {height} x {width} px in {channels} channels; "
                "leave it out."
            )
        self.name = name
        self.grid = PatchGrid((height, width), patch_size, patch_stride)
        self.n_patches = self.grid.n_patches
        self.patch_shape = (channels, patch_size, patch_size)
        self.dtype = torch.uint8 if dtype == np.uint8 else torch.float32
        self._largest = 65535 if dtype.kind == "u" and dtype.itemsize == 2 else None

    def read(self, patches: Tensor) -> Tensor:
        """Patches by index (n,): (n, C, P, P)."""
        patches = checked_indices(patches, self)
        numbers = np.uint8 if self.dtype == torch.uint8 else np.float32
        out = np.zeros((len(patches), *self.patch_shape), numbers)
        for n, rows, cols in self._windows(patches):
            inside = out[n, :, : rows.stop - rows.start, : cols.stop - cols.start]
            self._copy(rows, cols, inside.transpose(1, 2, 0))
        if self._largest:
            out /= self._largest
        return torch.from_numpy(out)

    def window(self, rows: slice, cols: slice) -> np.ndarray:
        """A window that lies inside the image, with the values stored, (h, w, C)."""
        shape = rows.stop - rows.start, cols.stop - cols.start, self.patch_shape[0]
        out = np.empty(shape, np.uint8 if self.dtype == torch.uint8 else np.float32)
        self._copy(rows, cols, out)
        return out

    def _windows(self, patches: np.ndarray) -> Iterator[tuple[int, slice, slice]]:
        """Where each patch lies on the canvas; neighbours follow each other."""
        (height, width), size = self.grid.canvas, self.grid.patch_size
        corners = self.grid.corners(patches).tolist()
        for n in np.argsort(patches, kind="stable").tolist():
            top, left = corners[n]
            yield n, slice(top, min(top + size, height)), slice(left, min(left + size, width))

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        """Copy a window's pixels into (h, w, C)."""
        raise NotImplementedError


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
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        patch_size: int,
        patch_stride: int | None = None,
        name: str = "array",
    ):
        array = np.asanyarray(array)
        array = array[:, :, None] if array.ndim == 2 else array
        _check_shape(name, array.shape)
        super().__init__(
            name, array.shape, array.dtype, patch_size=patch_size, patch_stride=patch_stride
        )
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


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    colours = (1, 3, 4)
    first = len(shape) == 3 and shape[0] in colours and shape[2] not in colours
    if len(shape) != 3 or first:
        remedy = "move the channels last" if first else "make a source of each image"
        raise IpslibError(
            f"{name}: wanted an image (height, width) or (height, width, channels), got an array "
            f"of {' x '.join(map(str, shape)) or 'one number'}; {remedy}."
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
