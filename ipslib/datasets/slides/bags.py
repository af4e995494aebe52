"""Bags of features, one a slide, as other tools write them: CLAM, TRIDENT, STAMP, ACMIL, IPS and
torchmil; and sets of labelled bags, which training reads.

Features, corners and patch labels lie in one HDF5 file, in a group of it, or in files that stand
beside each other in folders. ACMIL and IPS keep a group a slide, whose attribute `label` is the
slide's class.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple
from zipfile import is_zipfile

import h5py
import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.image import FileId, checked_indices, file_id, unreadable
from ipslib.datasets.images.sources import FeatureBag, SourceBatch
from ipslib.datasets.slides.camelyon16 import (
    TASK,
    Labelled,
    SlidesConfig,
    by_slide,
    canonical_name,
    label_slides,
    read_labels,
    said_class,
    split_of,
)
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch
from ipslib.paths import from_project, inside_project

SETTINGS = "settings"  # attribute of a file of ours: what the bag was made with and of, as JSON
_HDF5, _ARRAYS = (".h5", ".hdf5"), (".npy", ".npz", ".pt")
_FEATURES, _COORDS = ("features", "feats", "feat", "img"), ("coords",)
_LABELS = ("patch_labels", "labels")
# Folders beside that of the features which hold corners, or patch labels, under the same name.
_BESIDE = {_COORDS: ("coords", "h5_files", "patches"), _LABELS: ("patch_labels",)}
_ANEW = "copy it from its source again, or extract the features anew"
_STAMP_TILE, _STAMP_MICRONS = 224, 256.0  # of STAMP's first version: a tile in its px, and in µm
_ALL_ROWS, _SOME_ROWS = 1024, 32  # bags of at most so many are compared by all, others by some
_ROWS = 4096  # of a bag that are read together
_TOLERANCE = 1e-2  # of features that one bag holds in 16 bits


class Stored(NamedTuple):
    """An array in a file by its name, which is empty where it is the only one."""

    path: Path
    name: str

    def load(self) -> np.ndarray:
        """All of it."""
        if not _is_hdf5(self.path):
            return np.asarray(_arrays(file_id(self.path))[self.name])
        with open_hdf5(self.path) as file:
            return file[self.name][()]


class Layout(NamedTuple):
    """Where a bag lies."""

    features: Stored
    coords: Stored | None
    patch_labels: Stored | None
    attributes: dict  # of the corners, the features and the slide's group, by name


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in _HDF5


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open while it is read; IpslibError where it cannot be."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError) as error:
        raise unreadable(path, error, _ANEW) from error


@lru_cache(maxsize=1)  # an .npz, and a .pt of torch before 1.6, is held whole; others are mapped
def _arrays(file: FileId) -> dict[str, np.ndarray | Tensor]:
    """The arrays of a file that is not HDF5."""
    path, suffix = file.path, file.path.suffix.lower()
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        if suffix == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        loaded = loaded if isinstance(loaded, dict) else {"": loaded}
        return {
            name: each.detach().to_dense()
            for name, each in loaded.items()
            if isinstance(each, Tensor)
        }
    except Exception as error:  # zip, pickle and numpy have errors of their own
        is_unsafe = isinstance(error, UnpicklingError) and "global" in str(error).lower()
        if is_unsafe or "Object arrays" in str(error):
            raise IpslibError(
                f"{path}: wanted arrays alone, got Python objects, which could run code and are "
                "not opened; save the features as one array or tensor."
            ) from error
        raise unreadable(path, error, _ANEW) from error


def _layout(path: Path, slide: str | None) -> Layout:
    arrays, attributes = _contents(path, slide)
    found = {}
    for known in (_FEATURES, _COORDS, _LABELS):
        name = next((name for name in known if name in arrays), None)
        if name is not None:
            found[known] = Stored(path, name if slide is None else f"{slide}/{name}")
            attributes |= arrays[name]
    if not _is_hdf5(path) and len(arrays) == 1:
        found[_FEATURES] = Stored(path, next(iter(arrays)))
    if _FEATURES not in found:
        of_slide = "" if slide is None else f" of slide {slide!r}"
        raise IpslibError(
            f"{path}: wanted an array {' or '.join(_FEATURES)}{of_slide}, found "
            f"{', '.join(list(arrays)[:5]) or 'nothing'}; name the slide where the file holds a "
            "group for each, or extract the features."
        )
    coords = found.get(_COORDS) or next(_beside(path, _COORDS), None)
    labels = found.get(_LABELS) or next(_beside(path, _LABELS), None)
    if coords and _size_in(attributes) is None:  # another file says it of the same corners
        for other in filter(lambda other: _is_hdf5(other.path), _beside(path, _COORDS)):
            if np.array_equal(other.load(), coords.load()):
                with open_hdf5(other.path) as file:
                    attributes = dict(file[other.name].attrs) | attributes
    return Layout(found[_FEATURES], coords, labels, attributes)


def _contents(path: Path, slide: str | None) -> tuple[dict[str, dict], dict]:
    """Arrays of a file or of a slide's group, each with its attributes, and those of the group."""
    if not _is_hdf5(path):
        return {name: {} for name in _arrays(file_id(path))}, {}
    with open_hdf5(path) as file:
        group = file if slide is None else file.get(slide)
        if group is None:
            return {}, {}
        return {name: dict(item.attrs) for name, item in group.items()}, dict(group.attrs)


def _beside(path: Path, known: tuple[str, ...]) -> Iterator[Stored]:
    """The same slide's files in folders beside that of its features, or one above."""
    names = [f"{path.stem}{of}{suffix}" for of in ("", "_patches") for suffix in (*_HDF5, ".npy")]
    for root in (path.parent.parent, path.parent.parent.parent):
        for folder in _BESIDE[known]:
            for other in (root / folder / name for name in names):
                if other.is_file() and other != path:
                    yield Stored(other, known[0] if _is_hdf5(other) else "")


def _size_in(said: Mapping) -> int | None:
    """Side of a patch in pixels of level 0, as TRIDENT or CLAM says it."""
    if "patch_size_level0" in said:
        return int(said["patch_size_level0"])
    if "patch_size" in said and "downsample" in said:  # CLAM: pixels of a level
        return round(float(said["patch_size"]) * float(np.ravel(said["downsample"])[0]))
    return None


class ArrayRows:
    """Features (N, D) or (1, N, D) of any floating type in `.npy`, `.npz` or `.pt`, as float32."""

    def __init__(self, stored: Stored):
        self._file, self._key = file_id(stored.path), stored.name
        self.name = str(self._file.path)
        rows = self._rows()
        if rows.ndim != 2 or "float" not in str(rows.dtype) or 0 in rows.shape:
            raise IpslibError(
                f"{self.name}: wanted features as floating-point rows (N, D), got {rows.dtype} "
                f"{tuple(rows.shape)}; extract the features anew."
            )
        self.n_patches, self.patch_shape = rows.shape[0], tuple(rows.shape[1:])

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D)."""
        picked = self._rows()[checked_indices(patches, self)]
        is_tensor = isinstance(picked, Tensor)  # of a type, perhaps, that numpy does not know
        return picked.float() if is_tensor else torch.from_numpy(picked.astype(np.float32))

    def _rows(self) -> np.ndarray | Tensor:
        rows = _arrays(self._file)[self._key]
        return rows[0] if rows.ndim == 3 and len(rows) == 1 else rows


class SlideBag:
    """The features of one slide, read row by row, with what else is known of its patches.

    Args:
        path: HDF5, `.npy`, `.npz` or `.pt`, in the layout of CLAM, TRIDENT, STAMP, ACMIL, IPS,
            torchmil or `ipslib slides prepare`.
        slide: name of the slide's group, where the file holds several.

    Raises:
        IpslibError: when the file is missing or damaged, or holds no features of that slide.
    """

    blank: Tensor | None = None
    dtype = torch.float32

    def __init__(self, path: str | Path, *, slide: str | None = None):
        path = file_id(path).path
        if path.suffix.lower() not in _HDF5 + _ARRAYS:
            raise IpslibError(
                f"{path}: wanted a bag ({', '.join(_HDF5 + _ARRAYS)}), got "
                f"{path.suffix or 'no suffix'}; convert it to one of them."
            )
        self.layout = _layout(path, slide)
        stored = self.layout.features
        rows = FeatureBag(path, features=stored.name) if _is_hdf5(path) else None
        self._rows = rows or ArrayRows(stored)
        self.slide = path.stem if slide is None else slide
        self.name = str(path) if slide is None else f"{path}, slide {slide}"
        self.n_patches, self.patch_shape = self._rows.n_patches, self._rows.patch_shape

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D) float32; IpslibError where one is no number."""
        rows = self._rows.read(patches)
        if not rows.sum().isfinite():  # one pass over what is nearly always sound
            bad = patches[~rows.isfinite().all(dim=1)].tolist()
            if bad:
                raise IpslibError(
                    f"{self.name}: wanted numbers as features, got NaN or infinity in row "
                    f"{bad[0]}; {_ANEW}."
                )
        return rows

    def probe(self) -> Tensor:
        """Rows that tell this bag from another of the slide: all of a small one, some of a large
        one, which all change where a bag is made anew."""
        n_rows = self.n_patches if self.n_patches <= _ALL_ROWS else _SOME_ROWS
        return self.read(torch.linspace(0, self.n_patches - 1, n_rows).long())

    @cached_property
    def probe_sha256(self) -> str:
        """Hash of `probe`."""
        return hashlib.sha256(self.probe().numpy().tobytes()).hexdigest()

    def coords(self, *, mpp: float | None = None) -> np.ndarray | None:
        """Corners (N, 2), x and y in pixels of level 0; None where they are not stored.

        Args:
            mpp: microns per pixel of level 0, for a bag whose corners are in microns (STAMP).
        """
        if self.layout.coords is None:
            return None
        corners = self._checked("coords", self.layout.coords.load(), (self.n_patches, 2))
        microns = self._microns(corners)
        if microns is None:
            return corners
        if mpp is None:
            raise IpslibError(
                f"{self.name}: wanted corners in pixels, got STAMP's in microns; give mpp, the "
                "microns per pixel of the slide's largest level."
            )
        return np.round(corners * microns / mpp).astype(np.int64)

    def _microns(self, corners: np.ndarray) -> float | None:
        """What the corners count, where it is not pixels but STAMP's unit: its first version says
        nothing and counts pixels of 256/224 µm, tile by tile."""
        said = self.layout.attributes
        if said.get("unit") in ("um", b"um") or "tile_size_um" in said:
            return 1.0
        is_stamp = self.layout.features.name == "feats" and self.size_level0 is None
        if is_stamp and corners.any() and not (corners % _STAMP_TILE).any():
            return _STAMP_MICRONS / _STAMP_TILE
        return None

    @property
    def size_level0(self) -> int | None:
        """Side of a patch in pixels of level 0; None where the bag does not say."""
        return _size_in(self.layout.attributes)

    @property
    def settings(self) -> dict:
        """What a bag of `ipslib slides prepare` was made with and of; empty for others."""
        return json.loads(self.layout.attributes.get(SETTINGS, "{}"))

    @property
    def is_standin(self) -> bool:
        """Whether the slide was drawn, as its bag says."""
        return self.settings.get("is_standin", False)

    @property
    def label(self) -> int | None:
        """Class of the slide, where its group says it, as ACMIL's and IPS's do."""
        return said_class(self.layout.attributes.get("label"))

    @cached_property
    def patch_labels(self) -> Tensor | None:
        """True where a patch is tumour, (N,) bool; None where it is not known."""
        if self.layout.patch_labels is None:
            return None
        labels = self.layout.patch_labels.load().reshape(-1)
        labels = self._checked("patch_labels", labels, (self.n_patches,))
        if (labels < 0).any():
            raise IpslibError(
                f"{self.name}: wanted patch_labels of 0 or more, got {labels.min()}, which is "
                "often written for unknown; leave the labels out."
            )
        return torch.from_numpy(labels > 0)

    @property
    def n_known(self) -> int:
        """How much is known beside the features, to compare two bags of a slide."""
        layout = self.layout
        known = layout.coords, layout.patch_labels, self.size_level0
        return sum(each is not None for each in known)

    def _checked(self, what: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        array = array[0] if array.ndim == len(shape) + 1 and len(array) == 1 else array
        if array.shape != shape or not np.isfinite(array).all():
            got = array.shape if array.shape != shape else "NaN or infinity in it"
            raise IpslibError(
                f"{self.name}: wanted {what} of shape {shape}, got {got}; prepare the bag anew."
            )
        return array


def open_bags(
    place: str | Path, *, every_row: bool = False
) -> tuple[dict[str, SlideBag], dict[str, str]]:
    """All bags of a folder, or of a file with a group a slide.

    Of several bags of a slide the one that says most is taken; none, where two say as much and
    their features differ. Some rows of each are looked at for NaN, on request all.

    Returns:
        {slide: bag}, and {slide or file: a sentence} for those that are not read.

    Raises:
        IpslibError: when there is no such folder or file, or nothing in it.
    """
    place, bags, skipped = Path(place), {}, {}
    paths = [place] if place.is_file() else sorted(place.glob("[!.]*"))
    for path in paths:
        if path.suffix.lower() in _HDF5 + _ARRAYS:
            try:
                slides = _slides_in(path)
            except IpslibError as error:
                slides, skipped[path.stem] = [], str(error)
            for slide in slides:
                name = path.stem if slide is None else slide
                try:
                    bag = SlideBag(path, slide=slide)
                    _ = bag.probe_sha256  # rows that cannot be read are told now
                    for rows in torch.arange(bag.n_patches * every_row).split(_ROWS):
                        bag.read(rows)
                    bags.setdefault(canonical_name(name), []).append(bag)
                except IpslibError as error:
                    skipped[name] = str(error)
    if not bags and not skipped:
        raise IpslibError(
            f"{place}: wanted a folder of feature bags, found none; prepare them, or correct the "
            "path."
        )
    return {bag.slide: bag for bag in _fullest(bags.values(), skipped)}, skipped


def _slides_in(path: Path) -> list[str | None]:
    """The slides in a file: the groups of an HDF5, or [None] for a file that is one slide."""
    if not _is_hdf5(path):
        return [None]
    with open_hdf5(path) as file:
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
        return [None] if set(_FEATURES) & set(file) or not groups else groups


def _fullest(bags: Iterable[list[SlideBag]], skipped: dict[str, str]) -> Iterator[SlideBag]:
    """Of several bags of a slide the one that says most; of the others, `skipped` says so."""
    for several in bags:
        best, *others = sorted(several, key=lambda bag: bag.n_known, reverse=True)
        for other in others:
            one, two = best.probe(), other.probe()
            is_same = one.shape == two.shape and one.allclose(two, _TOLERANCE, _TOLERANCE)
            if not is_same and other.n_known == best.n_known:
                skipped[best.slide] = (
                    f"{best.slide}: wanted one bag of the slide, got {best.name} and {other.name} "
                    "of other features; remove the one that is out of date."
                )
                break
            skipped[Path(other.name).name] = (
                f"{other.name}: not read, since {best.name} is of the same slide"
                f"{' and says more' * (other.n_known < best.n_known)}; {len(one)} rows compared "
                f"are {'the same' if is_same else 'others'}."
            )
        else:
            yield best


class BagDataset:
    """Labelled bags, opened by name and streamed from disk: no bag is ever held whole.

    Args:
        bags: a folder of bags, a file with a group a slide, or bags by the name of their slide.
        labels: {slide: class}, as of a data frame's columns: a whole number of any type, or
            normal and tumor; names are matched as CAMELYON16 spells them. As the bags say if None.
        task: name of the labels.
        n_classes: of the labels.
        also_skipped: what was left out before, to be told with the rest.

    Attributes:
        names: slides in order.
        labels: (S,) classes.
        skipped: {slide: a sentence}, bags without a label, labels without a bag, unreadable bags.

    Raises:
        IpslibError: when no labelled bag is left, or two labels of one slide differ.
    """

    grid = None  # bags differ in N, and their patches lie on no common grid
    uneven = True

    def __init__(
        self,
        bags: str | Path | Mapping[str, SlideBag],
        labels: Mapping[str, object] | None = None,
        *,
        task: str = TASK,
        n_classes: int = 2,
        also_skipped: Mapping[str, str] | None = None,
    ):
        self.task, self.n_classes = task, {task: n_classes}
        opened, self.skipped = (dict(bags), {}) if isinstance(bags, Mapping) else open_bags(bags)
        self.skipped |= also_skipped or {}
        labels = by_slide((stored_labels(opened) if labels is None else labels).items())
        for name in labels.keys() - set(map(canonical_name, [*opened, *self.skipped])):
            self.skipped[name] = f"{name}: wanted a bag for its label, found none; prepare it."
        self.names, self._bags, classes = [], [], []
        for name, bag in sorted(opened.items()):
            said = labels.get(canonical_name(name))
            if reason := self._unfit(name, bag, said):
                self.skipped[name] = reason
                continue
            self.names.append(name)
            self._bags.append(bag)
            classes.append(said_class(said))
        self.skipped = dict(sorted(self.skipped.items()))
        if not self._bags:
            first = next(iter(self.skipped.values()), "there is no bag.")
            raise IpslibError(f"bags: wanted bags with labels, got none; the first: {first}")
        self.labels = torch.tensor(classes)

    @property
    def in_channels(self) -> int:
        """D, the length of a row of features."""
        return self._bags[0].patch_shape[0]

    @property
    def is_standin(self) -> bool:
        """Whether any of its slides was drawn: no result of it is one of real slides."""
        return any(bag.is_standin for bag in self._bags)

    @property
    def chance(self) -> dict[str, float]:
        """Share of the most frequent class: the accuracy of naming it always."""
        return {self.task: self.labels.bincount().max().item() / len(self)}

    @property
    def provenance(self) -> dict[str, object]:
        """What the slides are."""
        source = "standin" if self.is_standin else "real"
        return {"slide_source": source, "n_slides": len(self), "n_skipped": len(self.skipped)}

    def __len__(self) -> int:
        return len(self._bags)

    def __getitem__(self, index: int) -> SlideBag:
        return self._bags[index]

    def augmented(self, *, seed: int, epoch: int) -> "BagDataset":
        """Itself: features are frozen."""
        return self

    def batch(self, indices: Sequence[int]) -> MixedBatch:
        """Bags of any size as one batch."""
        labels = {self.task: self.labels[list(indices)]}
        return MixedBatch([SourceBatch([self._bags[i]]) for i in indices], labels=labels)

    def _unfit(self, name: str, bag: SlideBag, said: object) -> str | None:
        label, n_classes = said_class(said), self.n_classes[self.task]
        if said is None:
            return f"{name}: wanted a label for its bag, found none; add it, or ignore the bag."
        if label is None or not 0 <= label < n_classes:
            return f"{name}: wanted a label from 0 to {n_classes - 1}, got {said!r}; correct it."
        if self._bags and bag.patch_shape != self._bags[0].patch_shape:
            return (
                f"{name}: wanted {self._bags[0].patch_shape[0]} features a patch as in "
                f"{self.names[0]}, got {bag.patch_shape[0]}; prepare both alike."
            )
        return None


def describe_bags(bags: str | Path, labels: str | Path | None = None) -> SlidesConfig:
    """Read a folder of bags into a configuration.

    Args:
        bags: folder, or a file with a group a slide.
        labels: CSV such as `reference.csv`; without it test slides have a label where their bags
            say it.

    Raises:
        IpslibError: when there is no bag with a label, or the CSV is not as it should be.
    """
    opened, _ = open_bags(bags)
    labelled = label_bags(opened, labels)
    if not labelled.labels:
        reason = next(iter(labelled.skipped.values()), "there is none that can be read.")
        raise IpslibError(f"{bags}: wanted bags with labels, got none; the first: {reason}")
    return SlidesConfig(
        bags=inside_project(bags),
        labels="" if labels is None else inside_project(labels),
        bags_sha256=_digest(opened, labelled),
        in_channels=opened[min(labelled.labels)].patch_shape[0],
        standin=any(opened[name].is_standin for name in labelled.labels),
    )


def open_slides(config: SlidesConfig, split: str) -> BagDataset:
    """The official `train` or `test` set.

    What is left out, of either set, is in its `skipped`.

    Raises:
        IpslibError: when the bags or labels have changed, or none is of this split.
    """
    opened, unreadable = open_bags(from_project(config.bags))
    labelled = label_bags(opened, from_project(config.labels) if config.labels else None)
    if _digest(opened, labelled) != config.bags_sha256:
        raise IpslibError(
            f"{config.bags}: wanted the bags and labels that this run was described with, got "
            "others; describe them anew."
        )
    labels = {name: each for name, each in labelled.labels.items() if split_of(name) == split}
    if not labels:
        raise IpslibError(
            f"{config.bags}: wanted bags of the {split} set, got none; name them as CAMELYON16 "
            "does, normal_001 and tumor_001 to train and test_001 to test, and give the labels "
            "of the latter."
        )
    skipped = unreadable | labelled.skipped
    for name in labelled.labels:
        if split_of(name) is None:
            skipped[name] = f"{name}: wanted a name that says its set, got another; rename its bag."
    return BagDataset({name: opened[name] for name in labels}, labels, also_skipped=skipped)


def label_bags(opened: Mapping[str, SlideBag], labels: str | Path | None = None) -> Labelled:
    """Labels of slides: from a CSV where they stand in it, else as their bags say (ACMIL, IPS),
    else from their names.

    Raises:
        IpslibError: when the CSV is missing, or a row says no class.
    """
    table = {} if labels is None else read_labels(labels)
    return label_slides(opened, stored_labels(opened) | table)


def stored_labels(bags: Mapping[str, SlideBag]) -> dict[str, int]:
    """Classes of the slides whose bags say them."""
    said = {canonical_name(name): bag.label for name, bag in bags.items()}
    return {name: label for name, label in said.items() if label is not None}


def _digest(opened: Mapping[str, SlideBag], labelled: Labelled) -> str:
    """Hash of labels and features."""
    said = [
        f"{canonical_name(name)} {label} {opened[name].n_patches} {opened[name].probe_sha256}\n"
        for name, label in sorted(labelled.labels.items())
    ]
    return hashlib.sha256("".join(said).encode()).hexdigest()
