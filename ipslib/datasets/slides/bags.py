"""Bags of features, one a slide, as other tools write them: CLAM, TRIDENT, STAMP, ACMIL, IPS and
torchmil; and sets of labelled bags, which training reads.

Features, corners and patch labels lie in one HDF5 file, in a group of it, or in files that stand
beside each other in folders. ACMIL and IPS keep a group a slide, whose attribute `label` is the
slide's class.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from pickle import UnpicklingError
from zipfile import is_zipfile

import h5py
import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.image import FileId, checked_indices, file_id, unreadable
from ipslib.datasets.images.sources import FeatureBag, SourceBatch, batch_of
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
_NAMES = {
    "features": ("features", "feats", "feat", "img"),
    "coords": ("coords",),
    "patch_labels": ("patch_labels", "labels"),
}
# Folders beside that of the features which hold the others under the same name.
_BESIDE = {"coords": ("coords", "h5_files", "patches"), "patch_labels": ("patch_labels",)}
_ANEW = "copy it from its source again, or extract the features anew"
_STAMP_TILE, _STAMP_MICRONS = 224, 256.0  # of STAMP's first version: a tile in its px, and in µm
_ALL_ROWS, _SOME_ROWS = 1024, 32  # bags of at most so many are compared by all, others by some
_ROWS = 4096  # of a bag that are read together
_TOLERANCE = 1e-2  # of features that one bag holds in 16 bits


@contextmanager
def open_bag_file(path: Path) -> Iterator[Mapping]:
    """What a file holds by name, HDF5's while it is open; IpslibError where it cannot be read."""
    if path.suffix.lower() not in _HDF5:
        yield _arrays(file_id(path))
        return
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError) as error:
        raise unreadable(path, error, _ANEW) from error


@lru_cache(maxsize=1)  # an .npz, and a .pt of torch before 1.6, is held whole; others are mapped
def _arrays(file: FileId) -> dict[str, np.ndarray | Tensor]:
    """The arrays of a file that is not HDF5; one that is alone may have no name."""
    path, suffix = file.path, file.path.suffix.lower()
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        if suffix == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
        loaded = loaded if isinstance(loaded, dict) else {"": loaded}
        tensors = {str(name): each for name, each in loaded.items() if isinstance(each, Tensor)}
        return {name: each.detach().to_dense() for name, each in tensors.items()}
    except Exception as error:  # zip, pickle and numpy have errors of their own
        is_unsafe = isinstance(error, UnpicklingError) and "global" in str(error).lower()
        if is_unsafe or "Object arrays" in str(error):
            raise IpslibError(
                f"{path}: wanted arrays alone, got Python objects, which could run code and are "
                "not opened; save the features as one array or tensor."
            ) from error
        raise unreadable(path, error, _ANEW) from error


def _load(path: Path, name: str) -> tuple[np.ndarray, dict]:
    """An array of a file, with its attributes."""
    with open_bag_file(path) as file:
        return np.asarray(file[name]), dict(getattr(file[name], "attrs", {}))


def _beside(path: Path, what: str) -> Iterator[tuple[Path, str]]:
    """The same slide's files in folders beside that of its features, or one above, and the name of
    the array in each."""
    names = [f"{path.stem}{of}{suffix}" for of in ("", "_patches") for suffix in (*_HDF5, ".npy")]
    for root in (path.parent.parent, path.parent.parent.parent):
        for folder in _BESIDE[what]:
            for other in (root / folder / name for name in names):
                if other.is_file() and other != path:
                    yield other, "" if other.suffix == ".npy" else what


class _ArrayRows:
    """Features (N, D) or (1, N, D) of any floating type in `.npy`, `.npz` or `.pt`, as float32."""

    def __init__(self, path: Path, name: str):
        self._file, self._key, self.name = file_id(path), name, str(path)
        rows = self._rows()
        if rows.ndim != 2 or "float" not in str(rows.dtype) or 0 in rows.shape:
            raise IpslibError(
                f"{self.name}: wanted features as floating-point rows (N, D), got {rows.dtype} "
                f"{tuple(rows.shape)}; extract the features anew."
            )
        self.n_patches, self.patch_shape = rows.shape[0], tuple(rows.shape[1:])

    def read(self, patches: Tensor) -> Tensor:
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

    Attributes:
        attributes: of the slide's group, the features and the corners, by name.
        settings: what a bag of `ipslib slides prepare` was made with and of; empty for others.
        is_synthetic: whether the slide was drawn, as its bag says.
        n_known: how much is known, to compare two bags of a slide.

    Raises:
        IpslibError: when the file is missing or damaged, or holds no features of that slide.
    """

    dtype = torch.float32

    def __init__(self, path: str | Path, *, slide: str | None = None):
        path = file_id(path).path
        is_hdf5 = path.suffix.lower() in _HDF5
        if path.suffix.lower() not in _HDF5 + _ARRAYS:
            raise IpslibError(
                f"{path}: wanted a bag ({', '.join(_HDF5 + _ARRAYS)}), got "
                f"{path.suffix or 'no suffix'}; convert it to one of them."
            )
        self.slide = path.stem if slide is None else slide
        self.name = str(path) if slide is None else f"{path}, slide {slide}"
        self._stored: dict[str, tuple[Path, str]] = {}  # file and name of an array
        with open_bag_file(path) as file:
            group = file if slide is None else file.get(slide)
            arrays = dict(group) if isinstance(group, Mapping) else {}
            self.attributes = dict(getattr(group, "attrs", {}))
            for what, names in _NAMES.items():
                if name := next((name for name in names if name in arrays), None):
                    self._stored[what] = path, name if slide is None else f"{slide}/{name}"
                    self.attributes |= getattr(arrays[name], "attrs", {})
        if not is_hdf5 and len(arrays) == 1:
            self._stored["features"] = path, next(iter(arrays))
        if "features" not in self._stored:
            raise IpslibError(
                f"{self.name}: wanted an array {' or '.join(_NAMES['features'])}, found "
                f"{', '.join(list(arrays)[:5]) or 'nothing'}; name the slide where the file holds "
                "a group for each, or extract the features."
            )
        for what in _BESIDE.keys() - self._stored.keys():
            if other := next(_beside(path, what), None):
                self._stored[what] = other
        if self.size_level0 is None and "coords" in self._stored:
            corners, _ = _load(*self._stored["coords"])
            for others, said in (_load(*other) for other in _beside(path, "coords")):
                if np.array_equal(others, corners):  # the same ones, of which more is said
                    self.attributes = said | self.attributes
        self.n_known = len(self._stored) + (self.size_level0 is not None)
        self.settings = json.loads(self.attributes.get(SETTINGS, "{}"))
        self.is_synthetic = self.settings.get("is_standin", False)
        _, name = self._stored["features"]
        self._rows = FeatureBag(path, features=name) if is_hdf5 else _ArrayRows(path, name)
        self.n_patches, self.patch_shape = self._rows.n_patches, self._rows.patch_shape

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D) float32; IpslibError where one is no number."""
        rows = self._rows.read(patches)
        is_sound = rows.sum().isfinite()  # one pass, which nearly always does
        if not is_sound and (bad := patches[~rows.isfinite().all(dim=1)].tolist()):
            raise IpslibError(
                f"{self.name}: wanted numbers as features, got NaN or infinity in row {bad[0]}; "
                f"{_ANEW}."
            )
        return rows

    def blocks(self) -> Iterator[Tensor]:
        """All rows in their order, some at a time: (n, D) float32."""
        for rows in torch.arange(self.n_patches).split(_ROWS):
            yield self.read(rows)

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
        """Corners (N, 2), x and y in pixels of level 0; None where they are not stored. The microns
        per pixel of level 0 are for a bag whose corners are in microns (STAMP)."""
        corners = self._loaded("coords", (self.n_patches, 2))
        if corners is None:
            return None
        # STAMP's first version says nothing, and counts pixels of 256/224 µm, tile by tile.
        is_stamp = self._stored["features"][1] == "feats" and self.size_level0 is None
        if self.attributes.get("unit") in ("um", b"um") or "tile_size_um" in self.attributes:
            microns = 1.0
        elif is_stamp and corners.any() and not (corners % _STAMP_TILE).any():
            microns = _STAMP_MICRONS / _STAMP_TILE
        else:
            return corners
        if mpp is None:
            raise IpslibError(
                f"{self.name}: wanted corners in pixels, got STAMP's in microns; give mpp, the "
                "microns per pixel of the slide's largest level."
            )
        return np.round(corners * microns / mpp).astype(np.int64)

    @cached_property
    def patch_labels(self) -> Tensor | None:
        """True where a patch is tumour, (N,) bool; None where it is not known."""
        labels = self._loaded("patch_labels", (self.n_patches,))
        return None if labels is None else torch.from_numpy(labels > 0)

    def _loaded(self, what: str, shape: tuple[int, ...]) -> np.ndarray | None:
        if what not in self._stored:
            return None
        array, _ = _load(*self._stored[what])
        array = array.reshape(-1) if len(shape) == 1 else array
        array = array[0] if array.shape == (1, *shape) else array
        least = 0 if what == "patch_labels" else -np.inf  # -1 is often written for unknown
        if array.shape != shape or not (np.isfinite(array) & (array >= least)).all():
            got = array.shape if array.shape != shape else "NaN, infinity or less"
            raise IpslibError(
                f"{self.name}: wanted {what} of shape {shape}, numbers from {least}, got {got}; "
                "prepare the bag anew, or leave them out."
            )
        return array

    @property
    def size_level0(self) -> int | None:
        """Side of a patch in pixels of level 0, as TRIDENT or CLAM says it; None where the bag does
        not."""
        said = self.attributes
        if "patch_size_level0" in said:
            return int(said["patch_size_level0"])
        if "patch_size" in said and "downsample" in said:  # CLAM: pixels of a level
            return round(float(said["patch_size"]) * float(np.ravel(said["downsample"])[0]))
        return None


def open_bags(
    place: str | Path, *, every_row: bool = False
) -> tuple[dict[str, SlideBag], dict[str, str]]:
    """All bags of a folder, or of a file with a group a slide: {slide: bag}, and {slide or file: a
    sentence} for those that are not read; IpslibError when there is none.

    Of several bags of a slide the one that says most is taken; none, where two say as much and
    their features differ. Some rows of each are looked at for NaN, on request all.
    """
    place, bags, skipped = Path(place), {}, {}
    paths = [place] if place.is_file() else sorted(place.glob("[!.]*"))
    paths = [path for path in paths if path.suffix.lower() in _HDF5 + _ARRAYS]
    for file, slide in ((path, slide) for path in paths for slide in _slides_in(path)):
        name = slide or file.stem
        try:
            bag = SlideBag(file, slide=slide)
            _ = bag.probe_sha256  # rows that cannot be read are told now
            for _ in bag.blocks() if every_row else ():
                pass  # that they can be read is enough
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
    with suppress(IpslibError), open_bag_file(path) as file:  # opening the bag tells the error
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
        if groups and not set(_NAMES["features"]) & set(file):
            return groups
    return [None]


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

    Attributes:
        names: slides in order.
        labels: (S,) classes.
        skipped: {slide: a sentence}, bags without a label, labels without a bag, unreadable bags.
        in_channels: D, features of a patch.
        chance: the share of the most frequent class.

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
    ):
        self.task, self.n_classes = task, {task: n_classes}
        opened, skipped = (bags, {}) if isinstance(bags, Mapping) else open_bags(bags)
        labels = by_slide((stored_labels(opened) if labels is None else labels).items())
        for name in labels.keys() - set(map(canonical_name, [*opened, *skipped])):
            skipped[name] = f"{name}: wanted a bag for its label, found none; prepare it."
        self.names, self._bags, classes = [], [], []
        for name, bag in sorted(opened.items()):
            said, first = labels.get(canonical_name(name)), (self._bags or [bag])[0]
            label, (width,) = said_class(said), first.patch_shape
            if said is None:
                wanted, got = "a label for its bag", "none"
            elif label not in range(n_classes):
                wanted, got = f"a label from 0 to {n_classes - 1}", repr(said)
            elif bag.patch_shape != first.patch_shape:
                wanted, got = f"{width} features a patch as in {first.name}", bag.patch_shape[0]
            else:
                self.names.append(name)
                self._bags.append(bag)
                classes.append(label)
                continue
            skipped[name] = f"{name}: wanted {wanted}, got {got}; correct it, or ignore the bag."
        self.skipped = dict(sorted(skipped.items()))
        if not self._bags:
            first = next(iter(self.skipped.values()), "there is no bag.")
            raise IpslibError(f"bags: wanted bags with labels, got none; the first: {first}")
        self.labels, self.in_channels = torch.tensor(classes), self._bags[0].patch_shape[0]
        self.chance = {task: self.labels.bincount().max().item() / len(self)}

    @property
    def provenance(self) -> dict[str, object]:
        """What the slides are."""
        source = "standin" if any(bag.is_synthetic for bag in self._bags) else "real"
        return {"slide_source": source, "n_slides": len(self), "n_skipped": len(self.skipped)}

    def __len__(self) -> int:
        return len(self._bags)

    def __getitem__(self, index: int) -> SlideBag:
        return self._bags[index]

    def augmented(self, *, seed: int, epoch: int) -> "BagDataset":
        """Itself: features are frozen."""
        return self

    def batch(self, indices: Sequence[int]) -> SourceBatch | MixedBatch:
        """Bags of any size as one batch."""
        labels = {self.task: self.labels[list(indices)]}
        return batch_of([self._bags[i] for i in indices], labels=labels)


def stored_labels(bags: Mapping[str, SlideBag]) -> dict[str, int]:
    """Classes of the slides whose bags say them."""
    said = {name: said_class(bag.attributes.get("label")) for name, bag in bags.items()}
    return {canonical_name(name): label for name, label in said.items() if label is not None}


def label_bags(opened: Mapping[str, SlideBag], labels: str | Path | None = None) -> Labelled:
    """Labels of slides: from a CSV where they stand in it, else as their bags say (ACMIL, IPS),
    else from their names; errors as of `read_labels`."""
    return label_slides(opened, stored_labels(opened) | (read_labels(labels) if labels else {}))


def _open_labelled(
    place: str | Path, labels: str | Path | None
) -> tuple[dict[str, SlideBag], dict[str, int], dict[str, str], str]:
    """Bags and labels by slide, what is left out, and a hash of labels and features."""
    opened, unreadable = open_bags(place)
    labelled, skipped = label_bags(opened, labels)
    if not labelled:
        first = next(iter((skipped | unreadable).values()))
        raise IpslibError(f"{place}: wanted bags with labels, got none; the first: {first}")
    lines = [
        f"{canonical_name(name)} {label} {opened[name].n_patches} {opened[name].probe_sha256}\n"
        for name, label in sorted(labelled.items())
    ]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return opened, labelled, unreadable | skipped, digest


def describe_bags(bags: str | Path, labels: str | Path | None = None) -> SlidesConfig:
    """Read a folder of bags, or a file with a group a slide, into a configuration. Labels are a CSV
    such as `reference.csv`; without it test slides have one where their bags say it. IpslibError
    when no bag has a label."""
    opened, labelled, _, digest = _open_labelled(bags, labels)
    return SlidesConfig(
        bags=inside_project(bags),
        labels="" if labels is None else inside_project(labels),
        bags_sha256=digest,
        in_channels=opened[min(labelled)].patch_shape[0],
        standin=any(opened[name].is_synthetic for name in labelled),
    )


def open_slides(config: SlidesConfig, split: str) -> BagDataset:
    """The official `train` or `test` set; what is left out, of either set, is in its `skipped`.
    IpslibError when the bags or labels have changed, or none is of this split."""
    labels = from_project(config.labels) if config.labels else None
    opened, labelled, skipped, digest = _open_labelled(from_project(config.bags), labels)
    if digest != config.bags_sha256:
        raise IpslibError(
            f"{config.bags}: wanted the bags and labels that this run was described with, got "
            "others; describe them anew."
        )
    of_split = {name: label for name, label in labelled.items() if split_of(name) == split}
    if not of_split:
        raise IpslibError(
            f"{config.bags}: wanted bags of the {split} set, got none; name them as CAMELYON16 "
            "does, normal_001 and tumor_001 to train and test_001 to test, and give the labels "
            "of the latter."
        )
    for name in labelled:
        if split_of(name) is None:
            skipped[name] = f"{name}: wanted a name that says its set, got another; rename its bag."
    dataset = BagDataset({name: opened[name] for name in of_split}, of_split)
    dataset.skipped = dict(sorted((skipped | dataset.skipped).items()))
    return dataset
