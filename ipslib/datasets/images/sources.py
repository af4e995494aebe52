"""Your own images and feature bags as what selection and training read: patches, as needed.

    batch = SourceBatch([open_source(path, patch_size=100) for path in paths])

No image is held whole, but for those that are not TIFF or `.npy` and cannot be read in part.
README.md beside lists what is read and how.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import reduce
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.decoded import PhotoSource, tiff_source
from ipslib.datasets.images.files import check_piece, file_id, is_tiff, unreadable
from ipslib.datasets.images.image import ArraySource, checked_indices, npy_source
from ipslib.errors import IpslibError, did_you_mean
from ipslib.patches import read_by_image

if TYPE_CHECKING:
    from h5py import Dataset

_COPY_AGAIN = "copy it from its source again, or extract the features anew"
_IMAGES = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_CHECKED_AT_ONCE = 2**22  # pixels


class PatchSource(Protocol):
    """One image of N patches, or one bag of N feature rows. It can be sent to another process.

    `blank` is True where a patch is known to be all zero without reading it (None: not known).
    """

    name: str  # what errors call it
    n_patches: int
    patch_shape: tuple[int, ...]  # (C, P, P) or (D,)
    dtype: torch.dtype
    blank: Tensor | None  # (N,) bool

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
    name, kind = "array", type(image).__name__
    if isinstance(image, str | Path):
        file = file_id(image).path
        name, kind = str(file), file.suffix.lower() or "a file without a suffix"
        if kind in _IMAGES:  # which of them, its content says
            kind = "TIFF" if is_tiff(file) else "photo"
    elif isinstance(image, np.ndarray):
        kind = "array"
    if kind not in _KINDS:
        raise IpslibError(
            f"{name}: wanted an image or a feature bag, got {kind}"
            f"{did_you_mean(kind, (*_IMAGES, '.npy', '.h5', '.hdf5'))}; an image in memory is "
            "given as a numpy array."
        )
    open_kind, takes = _KINDS[kind]
    given = {"patch_size": patch_size, "patch_stride": patch_stride, "level": level or None}
    given = {option: value for option, value in given.items() if value is not None}
    if not given.keys() <= takes:
        extra = ", ".join(given.keys() - takes)
        raise IpslibError(f"{name}: wanted no {extra} for what it is, got one; leave it out.")
    if "patch_size" in takes - given.keys():
        raise IpslibError(f"{name}: wanted a patch_size in pixels, got none; give one.")
    return open_kind(image, **given)


def checked(source: PatchSource) -> PatchSource:
    """A source that was read once from its first patch to its last, so that what is damaged, or
    no number, is found before any work starts.

    Raises:
        IpslibError: when it cannot be read, or does not hold light.
    """
    n_together = max(1, _CHECKED_AT_ONCE // prod(source.patch_shape))
    for patches in torch.arange(source.n_patches).split(n_together):
        source.read(patches)
    return source


def with_channels(source: PatchSource, n_channels: int) -> PatchSource:
    """A source of images with this many channels: grey is colour of three equal channels.

    Raises:
        IpslibError: when it has others.
    """
    found, *size = source.patch_shape
    if found == n_channels:
        return source
    if (found, n_channels) != (1, 3):
        raise IpslibError(
            f"{source.name}: wanted {n_channels} channels, got {found}; convert the image."
        )
    source = copy(source)
    source.patch_shape = (n_channels, *size)
    return source


class SourceBatch:
    """B sources of equal size as a PatchBatch.

    Args:
        sources: one an image; they share N and the shape of a patch.
        labels: {task: (B,) or (B, C)}, for a training step.

    Raises:
        IpslibError: when there is no source, or one is not like the first.
    """

    def __init__(
        self, sources: Sequence[PatchSource], *, labels: Mapping[str, Tensor] | None = None
    ):
        if not sources:
            raise IpslibError("sources: wanted at least one image, got none; check what was found.")
        self.sources, self.labels = list(sources), dict(labels or {})
        first = self.sources[0]
        for i, source in enumerate(self.sources):
            if _size(source) != _size(first):
                raise IpslibError(
                    f"{source.name} (sources[{i}]): wanted {_size(first)} as in {first.name}, got "
                    f"{_size(source)}; bring the images to one size, or batch those that are "
                    "alike."
                )
        self.batch_size, self.n_patches = len(self.sources), first.n_patches
        for task, label in self.labels.items():
            if len(label) != self.batch_size:
                raise IpslibError(
                    f"labels of {task}: wanted {self.batch_size}, one an image, got {len(label)}."
                )
        known = [source.blank for source in self.sources]
        self.blank = None
        if any(blank is not None for blank in known):
            unknown = torch.zeros(self.n_patches, dtype=torch.bool)
            self.blank = torch.stack([unknown if b is None else b for b in known])  # (B, N)

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, C, P, P), or (n, D)."""
        dtype = reduce(torch.promote_types, [source.dtype for source in self.sources])
        out = torch.empty(len(patch), *self.sources[0].patch_shape, dtype=dtype)
        return read_by_image(out, image, patch, lambda i, patches: self.sources[i].read(patches))


def _size(source: PatchSource) -> str:
    return f"{source.n_patches} patches of {' x '.join(map(str, source.patch_shape))}"


class FeatureBag:
    """The features (N, D), or (1, N, D), of one image in an HDF5 file, read row by row as float32.

    The file is open while it is read and no longer: HDF5 lets nobody write to one that is open.

    Args:
        path: the file.
        features: name of the data set; `slide/feat` where a file holds a group a slide.
        coords: name of the data set of patch corners (N, 2).

    Raises:
        IpslibError: when the file is missing or damaged, or holds no such features.
    """

    blank: Tensor | None = None
    dtype = torch.float32

    def __init__(self, path: str | Path, *, features: str = "features", coords: str = "coords"):
        self._file = file_id(path)
        self.name = str(self._file.path)
        self._features, self._coords = features, coords
        with self._opened(features) as dataset:
            shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
        self._first = (0,) * (len(shape) == 3 and shape[0] == 1)  # of an axis too many
        shape = shape[len(self._first) :]
        if len(shape) != 2 or dtype.kind != "f" or not all(shape):
            raise IpslibError(
                f"{self.name}: wanted {features!r} as floating-point rows (N, D), got "
                f"{dtype} {shape}; extract the features anew."
            )
        self.n_patches, n_features = shape
        self.patch_shape = (n_features,)
        self._chunk_rows = chunks[-2] if chunks else 1
        n_bytes = self._chunk_rows * n_features * dtype.itemsize
        check_piece(self.name, n_bytes, "write it anew in chunks of fewer rows")

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D)."""
        rows, where = np.unique(checked_indices(patches, self), return_inverse=True)
        out = np.empty((len(rows), *self.patch_shape), np.float32)
        with self._opened(self._features) as dataset:
            for run in self._runs(rows):
                first = rows[run.start]
                block = dataset[(*self._first, slice(first, rows[run.stop - 1] + 1))]
                out[run] = block[rows[run] - first]
        return torch.from_numpy(out[where])

    @property
    def coords(self) -> np.ndarray:
        """Corners of the patches as stored, (N, 2)."""
        with self._opened(self._coords) as dataset:
            corners = dataset[:]
        if corners.shape != (self.n_patches, 2):
            raise IpslibError(
                f"{self.name}: wanted {self._coords!r} of shape ({self.n_patches}, 2), got "
                f"{corners.shape}; extract the features anew."
            )
        return corners

    def _runs(self, rows: np.ndarray) -> Iterator[slice]:
        """Cut ascending rows where a read ends: neighbours go together, and so do the rows of a
        chunk, which HDF5 decompresses as a whole."""
        of_run = rows // self._chunk_rows if self._chunk_rows > 1 else rows - np.arange(len(rows))
        cuts = np.flatnonzero(np.diff(of_run)) + 1
        bounds = [0, *cuts.tolist(), len(rows)] if len(rows) else []
        for start, stop in pairwise(bounds):
            yield slice(start, stop)

    @contextmanager
    def _opened(self, name: str) -> Iterator["Dataset"]:
        import h5py

        if file_id(self.name)[:3] != self._file[:3]:  # other rights or links do no harm
            raise IpslibError(
                f"{self.name}: wanted the bag that was opened, got a file that has been written "
                "since; open it again."
            )
        try:
            with h5py.File(self.name, "r") as file:
                dataset = file.get(name)
                if not isinstance(dataset, h5py.Dataset):
                    raise IpslibError(
                        f"{self.name}: wanted a data set {name!r}, found none"
                        f"{did_you_mean(name, list(file))}; name the one that it holds."
                    )
                yield dataset
        except (OSError, RuntimeError) as error:
            raise unreadable(self.name, error, _COPY_AGAIN) from error


_CUT = {"patch_size", "patch_stride"}
_KINDS = {
    "array": (ArraySource, _CUT),
    ".npy": (npy_source, _CUT),
    "TIFF": (tiff_source, _CUT | {"level"}),
    "photo": (PhotoSource, _CUT),
    **dict.fromkeys((".h5", ".hdf5"), (FeatureBag, set())),
}
