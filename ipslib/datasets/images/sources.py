"""Your own images and feature bags as what selection and training read: patches, as needed.

    batch = SourceBatch([open_source(path, patch_size=100) for path in paths])

No image is held whole, but for those that are not TIFF or `.npy` and cannot be read in part.
README.md beside lists what is read and how.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.decoded import PhotoSource, tiff_source
from ipslib.datasets.images.image import (
    ArraySource,
    check_piece,
    checked_indices,
    file_id,
    is_tiff,
    npy_source,
    unreadable,
)
from ipslib.errors import IpslibError, did_you_mean
from ipslib.patches import WINDOW_SIZE, MixedBatch, read_by_image

if TYPE_CHECKING:
    from h5py import Dataset

_IMAGES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


class PatchSource(Protocol):
    """One image of N patches, or one bag of N feature rows. It can be sent to another process."""

    name: str  # what errors call it
    n_patches: int
    patch_shape: tuple[int, ...]  # (C, P, P) or (D,)
    dtype: torch.dtype

    def read(self, patches: Tensor) -> Tensor:
        """Patches by index (n,): (n, C, P, P) uint8 or float, or (n, D)."""
        ...


def open_source(
    image: str | Path | np.ndarray,
    *,
    patch_size: int | None = None,
    patch_stride: int | None = None,
    level: int = 0,
) -> PatchSource:
    """Open an image or a feature bag by what it is.

    Args:
        image: an array or memory map (H, W) or (H, W, C), or a file: `.npy`, TIFF, JPEG, PNG,
            BMP, GIF, WebP, or HDF5 with `features` (N, D).
        patch_size: P in pixels; a feature bag has none.
        patch_stride: in pixels; P if None.
        level: of a pyramidal TIFF, 0 for the largest.

    Raises:
        IpslibError: when it is missing, damaged, or none of these.
    """
    name, kind = "array", "array" if isinstance(image, np.ndarray) else type(image).__name__
    if isinstance(image, str | Path):
        image = file_id(image).path
        name, kind = str(image), image.suffix.lower() or "a file without a suffix"
        if kind in _IMAGES:  # which of them, its content says
            kind = "TIFF" if is_tiff(image) else "photo"
    if kind not in _KINDS:
        raise IpslibError(
            f"{name}: wanted an image or a feature bag, got {kind}; give a numpy array, or a file "
            f"of {', '.join((*_IMAGES, '.npy', '.h5', '.hdf5'))}."
        )
    open_kind, takes = _KINDS[kind]
    options = {"patch_size": patch_size, "patch_stride": patch_stride, "level": level or None}
    given = {option: value for option, value in options.items() if value is not None}
    if not set(takes[:1]) <= given.keys() <= set(takes):
        wanted = f"patch_size in pixels, perhaps {', '.join(takes[1:])}" if takes else "no options"
        raise IpslibError(f"{name}: wanted {wanted}, got {', '.join(given) or 'none'}.")
    return open_kind(image, **given)


def with_channels(source: PatchSource, n_channels: int) -> PatchSource:
    """A source with this many channels: grey makes three. IpslibError when it has others."""
    found, *size = source.patch_shape
    if found != n_channels:
        if (found, n_channels) != (1, 3):
            wanted = f"wanted {n_channels} channels, got {found}"
            raise IpslibError(f"{source.name}: {wanted}; convert the image.")
        source = copy(source)
        source.patch_shape = (n_channels, *size)
    return source


class SourceBatch:
    """B sources that share N and the shape of a patch as a PatchBatch, with labels {task: (B,) or
    (B, C)} for a training step; IpslibError where one is not like the first."""

    boxes: Tensor | None = None

    def __init__(
        self, sources: Sequence[PatchSource], *, labels: Mapping[str, Tensor] | None = None
    ):
        if not sources:
            raise IpslibError("sources: wanted at least one image, got none.")
        self.sources, self.labels = list(sources), dict(labels or {})
        first = self.sources[0]
        self.batch_size, self.n_patches = len(self.sources), first.n_patches
        for i, source in enumerate(self.sources):
            if _size(source) != _size(first):
                raise IpslibError(
                    f"{source.name} (sources[{i}]): wanted {_size(first)} as in {first.name}, got "
                    f"{_size(source)}; batch those that are alike."
                )
        for task, label in self.labels.items():
            if len(label) != self.batch_size:
                wanted = f"wanted {self.batch_size}, one an image, got {len(label)}"
                raise IpslibError(f"labels of {task}: {wanted}.")

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, C, P, P), or (n, D)."""
        dtype = reduce(torch.promote_types, [source.dtype for source in self.sources])
        out = torch.empty(len(patch), *self.sources[0].patch_shape, dtype=dtype)
        return read_by_image(out, image, patch, lambda i, patches: self.sources[i].read(patches))


def batch_of(
    sources: Sequence[PatchSource], *, labels: Mapping[str, Tensor] | None = None
) -> SourceBatch | MixedBatch:
    """B sources of any sizes. Selection visits those that are alike together, if all their patches
    fit its window; else one by one, so that no file is decoded anew for every window."""
    n_patches = sum(source.n_patches for source in sources)
    if n_patches <= WINDOW_SIZE and len({_size(source) for source in sources}) == 1:
        return SourceBatch(sources, labels=labels)
    return MixedBatch([SourceBatch([source]) for source in sources], labels=labels)


def _size(source: PatchSource) -> str:
    return f"{source.n_patches} patches of {' x '.join(map(str, source.patch_shape))}"


class FeatureBag:
    """The features (N, D), or (1, N, D), of one image in an HDF5 file, read row by row as float32;
    `features` names their data set, such as `slide/feat` where a file holds a group a slide.

    The file is open while it is read and no longer: HDF5 lets nobody write to one that is open.
    IpslibError when it is missing or damaged, or holds no such features.
    """

    dtype = torch.float32

    def __init__(self, path: str | Path, *, features: str = "features"):
        self._file, self._features = file_id(path), features
        self.name = str(self._file.path)
        with self._opened() as dataset:
            shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
        self._first = (0,) * (len(shape) == 3 and shape[0] == 1)  # of an axis too many
        shape = shape[len(self._first) :]
        if len(shape) != 2 or dtype.kind != "f" or not all(shape):
            raise IpslibError(
                f"{self.name}: wanted {features!r} as floating-point rows (N, D), got {dtype} "
                f"{shape}; extract the features anew."
            )
        self.n_patches, self.patch_shape = shape[0], shape[1:]
        self._chunk_rows = chunks[-2] if chunks else 1
        n_bytes = self._chunk_rows * shape[1] * dtype.itemsize
        check_piece(self.name, n_bytes, "write it anew in chunks of fewer rows")

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D). Neighbours are read together, and so are the rows of a
        chunk, which HDF5 decompresses as a whole."""
        rows, where = np.unique(checked_indices(patches, self), return_inverse=True)
        together = rows // self._chunk_rows if self._chunk_rows > 1 else rows - np.arange(len(rows))
        out = np.empty((len(rows), *self.patch_shape), np.float32)
        with self._opened() as dataset:
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(together)) + 1):
                if len(run):
                    first, last = rows[run[0]], rows[run[-1]]
                    block = dataset[(*self._first, slice(first, last + 1))]
                    out[run] = block[rows[run] - first]
        return torch.from_numpy(out[where])

    @contextmanager
    def _opened(self) -> Iterator["Dataset"]:
        import h5py

        if file_id(self.name)[:3] != self._file[:3]:  # other rights or links do no harm
            wanted = "the bag that was opened, got a file that was written since"
            raise IpslibError(f"{self.name}: wanted {wanted}; open it again.")
        try:
            with h5py.File(self.name, "r") as file:
                dataset = file.get(self._features)
                if not isinstance(dataset, h5py.Dataset):
                    hint = did_you_mean(self._features, list(file))
                    raise IpslibError(f"{self.name}: wanted {self._features!r}, found none{hint}.")
                yield dataset
        except (OSError, RuntimeError) as error:
            remedy = "copy it from its source again, or extract the features anew"
            raise unreadable(self.name, error, remedy) from error


_CUT = ("patch_size", "patch_stride")
_KINDS = {  # how each is opened, and what it takes
    "array": (ArraySource, _CUT),
    ".npy": (npy_source, _CUT),
    "TIFF": (tiff_source, (*_CUT, "level")),
    "photo": (PhotoSource, _CUT),
    ".h5": (FeatureBag, ()),
    ".hdf5": (FeatureBag, ()),
}
