"""Bags as other tools write them: CLAM, TRIDENT, STAMP, ACMIL, IPS and torchmil.

A layout is where features, corners and patch labels lie: in one HDF5 file, in a group of it, or in
files that stand beside each other in folders. ACMIL and IPS keep a group a slide, whose attribute
`label` is the slide's class.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.files import FileId, file_id, opened, unreadable
from ipslib.datasets.images.image import checked_indices
from ipslib.datasets.images.sources import FeatureBag
from ipslib.errors import IpslibError

FEATURES = ("features", "feats", "feat", "img")
LABELS = ("patch_labels", "labels")
HDF5, ARRAYS = (".h5", ".hdf5"), (".npy", ".npz", ".pt")
# Folders beside that of the features which hold corners, or patch labels, under the same name.
_BESIDE = {"coords": ("coords", "h5_files", "patches"), "patch_labels": ("patch_labels",)}
_ANEW = "copy it from its source again, or extract the features anew"


class Stored(NamedTuple):
    """An array in a file: a data set of HDF5, or a key, or the only one there is."""

    path: Path
    name: str | None = None

    def load(self) -> np.ndarray:
        """All of it."""
        if self.path.suffix.lower() not in HDF5:
            return np.asarray(opened(_open_rows, file_id(self.path), self.name))
        try:
            with h5py.File(self.path, "r") as file:
                return file[self.name][()]
        except (OSError, KeyError) as error:
            raise unreadable(self.path, error, _ANEW) from error


class Layout(NamedTuple):
    """Where a bag lies."""

    features: Stored
    coords: Stored | None
    patch_labels: Stored | None
    attributes: dict  # of the corners, the features and the slide's group, by name


def find_layout(path: str | Path, slide: str | None = None) -> Layout:
    """Find features, corners and patch labels of one slide.

    Args:
        path: HDF5, `.npy`, `.npz` or `.pt`.
        slide: its group, where a file holds several slides.

    Raises:
        IpslibError: when the file is missing, damaged, or holds no features of that slide.
    """
    path = file_id(path).path
    suffix = path.suffix.lower()
    if suffix in HDF5:
        return _hdf5_layout(path, slide)
    if suffix not in ARRAYS:
        raise IpslibError(
            f"{path}: wanted a bag ({', '.join(HDF5 + ARRAYS)}), got {suffix or 'no suffix'}; "
            "convert it to one of them."
        )
    names = opened(_names, file_id(path))
    stored = {what: Stored(path, name) for what, name in _found(names).items()}
    stored.setdefault("features", Stored(path, names[0] if len(names) == 1 else None))
    return _completed(path, stored, {})


def slides_of(path: Path) -> list[str | None]:
    """The slides in a file: the groups of an HDF5, or [None] for a file that is one slide."""
    if path.suffix.lower() not in HDF5:
        return [None]
    try:
        with h5py.File(path, "r") as file:
            groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
            return groups if groups and not _found(list(file)) else [None]
    except OSError as error:
        raise unreadable(path, error, _ANEW) from error


def _hdf5_layout(path: Path, slide: str | None) -> Layout:
    try:
        with h5py.File(path, "r") as file:
            group = file if slide is None else file.get(slide, {})
            found = _found(list(group))
            present = ", ".join(list(group)[:5]) or "nothing"
            attributes = dict(group.attrs) if found else {}
            for name in found.values():
                attributes |= group[name].attrs
    except OSError as error:
        raise unreadable(path, error, _ANEW) from error
    if "features" not in found:
        of_slide = "" if slide is None else f" of slide {slide!r}"
        raise IpslibError(
            f"{path}: wanted a data set {' or '.join(FEATURES)}{of_slide}, found {present}; name "
            "the slide where the file holds a group for each, or extract the features."
        )
    stored = {
        what: Stored(path, name if slide is None else f"{slide}/{name}")
        for what, name in found.items()
    }
    return _completed(path, stored, attributes)


def _completed(path: Path, stored: dict[str, Stored], attributes: dict) -> Layout:
    """With what stands in files of its own, beside that of the features."""
    coords = stored.get("coords") or _beside(path, "coords")
    if coords is not None and coords.path != path and coords.path.suffix.lower() in HDF5:
        try:
            with h5py.File(coords.path, "r") as file:
                attributes = dict(file[coords.name].attrs) | attributes
        except (OSError, KeyError) as error:
            raise unreadable(coords.path, error, _ANEW) from error
    labels = stored.get("patch_labels") or _beside(path, "patch_labels")
    return Layout(stored["features"], coords, labels, attributes)


def _found(names: list[str]) -> dict[str, str]:
    """Which of the names are features, corners and patch labels."""
    found = {"features": next((name for name in FEATURES if name in names), None)}
    found["coords"] = "coords" if "coords" in names else None
    found["patch_labels"] = next((name for name in LABELS if name in names), None)
    return {what: name for what, name in found.items() if name}


def _beside(path: Path, what: str) -> Stored | None:
    """The same slide's file in a folder beside that of its features, or one above."""
    stems = (path.stem, f"{path.stem}_patches")
    for root in (path.parent.parent, path.parent.parent.parent):
        for folder in _BESIDE[what]:
            for name in (f"{stem}{suffix}" for stem in stems for suffix in HDF5 + ARRAYS):
                other = root / folder / name
                if other.is_file() and other != path:
                    is_hdf5 = other.suffix.lower() in HDF5
                    return Stored(other, what) if is_hdf5 else Stored(other)
    return None


class ArrayRows:
    """Features (N, D) or (1, N, D) of any floating type in `.npy`, `.npz` or `.pt`, as float32.

    `.npy` and `.pt` are mapped; an `.npz` is unpacked whole, one at a time.
    """

    blank: Tensor | None = None
    dtype = torch.float32

    def __init__(self, stored: Stored):
        self._file, self._key = file_id(stored.path), stored.name
        self.name = str(self._file.path)
        rows = self._rows()
        if rows.ndim != 2 or rows.dtype.kind != "f" or not rows.size:
            raise IpslibError(
                f"{self.name}: wanted features as floating-point rows (N, D), got {rows.dtype} "
                f"{rows.shape}; extract the features anew."
            )
        self.n_patches, self.patch_shape = rows.shape[0], rows.shape[1:]

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D)."""
        picked = self._rows()[checked_indices(patches, self)]
        return torch.from_numpy(picked.astype(np.float32))

    def _rows(self) -> np.ndarray:
        rows = opened(_open_rows, self._file, self._key)
        return rows[0] if rows.ndim == 3 and len(rows) == 1 else rows


def open_rows(stored: Stored) -> FeatureBag | ArrayRows:
    """Features as a source of rows."""
    if stored.path.suffix.lower() in HDF5:
        return FeatureBag(stored.path, features=stored.name)
    return ArrayRows(stored)


def _names(path: Path) -> list[str]:
    """Keys of an archive; none of a file that is one array."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return list(archive)
        if path.suffix.lower() == ".pt":
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return list(loaded) if isinstance(loaded, dict) else []
    except Exception as error:  # zip, pickle and numpy have errors of their own
        raise unreadable(path, error, _ANEW) from error
    return []


def _open_rows(path: Path, key: str | None) -> np.ndarray:
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            return _unpacked(file_id(path), key)
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return np.asarray(loaded if key is None else loaded[key])
    except IpslibError:
        raise
    except Exception as error:
        raise unreadable(path, error, _ANEW) from error


@lru_cache(maxsize=1)
def _unpacked(file: FileId, key: str | None) -> np.ndarray:
    with np.load(file.path, allow_pickle=False) as archive:
        return archive[key or next(iter(archive))]


def paths_of_bags(folder: Path) -> Iterator[Path]:
    """Bags in a folder, or the one file."""
    if folder.is_file():
        yield folder
    yield from (p for p in sorted(folder.glob("*")) if p.suffix.lower() in HDF5 + ARRAYS)
