"""Feature bags in HDF5: one row of features for each patch of an image that was encoded before.

A file is open while it is read and no longer: HDF5 lets nobody write to one that is open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.folders import check_piece, file_id, load_package, unreadable
from ipslib.datasets.images.image import checked_indices
from ipslib.errors import IpslibError, did_you_mean

if TYPE_CHECKING:
    from h5py import Dataset

_COPY_AGAIN = "copy it from its source again, or extract the features anew"


class FeatureBag:
    """The features (N, D), or (1, N, D), of one image in an HDF5 file, read row by row as float32.

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
        h5py = load_package("h5py", self._file.path)
        if file_id(self.name) != self._file:
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
