"""A slide as a bag of features, and a set of labelled bags as what training reads."""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.slides.bag_files import SETTINGS
from ipslib.datasets.slides.camelyon16 import canonical_name, stored_class
from ipslib.datasets.slides.config import TASK
from ipslib.datasets.slides.layouts import find_layout, open_rows, paths_of_bags, slides_of
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch


class SlideBag:
    """The features of one slide, read row by row, with what else is known of its patches.

    Args:
        path: HDF5, `.npy`, `.npz` or `.pt`, in the layout of CLAM, TRIDENT, STAMP, ACMIL, IPS,
            torchmil or `ipslib slides prepare`.
        slide: name of the slide's group, where the file holds several.

    Raises:
        IpslibError: when the file is missing or damaged, or holds no features.
    """

    def __init__(self, path: str | Path, *, slide: str | None = None):
        self.layout = find_layout(path, slide)
        self._rows = open_rows(self.layout.features)
        self.slide = Path(path).stem if slide is None else slide
        self.name = self._rows.name if slide is None else f"{self._rows.name}, slide {slide}"
        self.n_patches, self.patch_shape = self._rows.n_patches, self._rows.patch_shape
        self.dtype, self.blank = self._rows.dtype, self._rows.blank

    def read(self, patches: Tensor) -> Tensor:
        """Rows by index (n,): (n, D) float32."""
        return self._rows.read(patches)

    def coords(self, *, mpp: float | None = None) -> np.ndarray | None:
        """Corners (N, 2), x and y in pixels of level 0; None where they are not stored.

        Args:
            mpp: microns per pixel of level 0, for a bag whose corners are in microns (STAMP).
        """
        if self.layout.coords is None:
            return None
        corners = self._checked("coords", self.layout.coords.load(), (self.n_patches, 2))
        unit = self.layout.attributes.get("unit", "px")
        if unit in ("um", b"um"):
            if mpp is None:
                raise IpslibError(
                    f"{self.name}: wanted corners in pixels, got microns; give mpp, the microns "
                    "per pixel of the slide's largest level."
                )
            return np.round(corners / mpp).astype(np.int64)
        return corners

    @property
    def size_level0(self) -> int | None:
        """Side of a patch in pixels of level 0; None where the bag does not say."""
        stored = self.layout.attributes
        if "patch_size_level0" in stored:
            return int(stored["patch_size_level0"])
        if "patch_size" in stored and "downsample" in stored:  # CLAM: pixels of a level
            return round(float(stored["patch_size"]) * float(np.ravel(stored["downsample"])[0]))
        return None

    @property
    def is_standin(self) -> bool:
        """Whether the slide was drawn, as its bag says."""
        return json.loads(self.layout.attributes.get(SETTINGS, "{}")).get("is_standin", False)

    @property
    def label(self) -> int | None:
        """Class of the slide, where its group says it, as ACMIL's and IPS's do."""
        stored = self.layout.attributes
        return stored_class(stored["label"]) if "label" in stored else None

    @cached_property
    def patch_labels(self) -> Tensor | None:
        """True where a patch is tumour, (N,) bool; None where it is not known."""
        if self.layout.patch_labels is None:
            return None
        labels = self.layout.patch_labels.load().reshape(-1)
        return torch.from_numpy(self._checked("patch_labels", labels, (self.n_patches,)) > 0)

    def _checked(self, what: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        array = array[0] if array.ndim == len(shape) + 1 and len(array) == 1 else array
        if array.shape != shape:
            raise IpslibError(
                f"{self.name}: wanted {what} of shape {shape}, got {array.shape}; prepare the bag "
                "anew."
            )
        return array


class BagBatch(MixedBatch):
    """Bags as a batch; each is a `SourceBatch` of its own in `parts`, since bags differ in N.

    Attributes:
        labels: {task: (B,) class indices}.
        roi: of each bag, (N,) bool, True where a patch is tumour; None where it is not known.
    """

    def __init__(self, bags: Sequence[SlideBag], labels: Mapping[str, Tensor]):
        super().__init__([SourceBatch([bag]) for bag in bags], labels=labels)
        self._bags = list(bags)

    @property
    def roi(self) -> list[Tensor | None]:
        return [bag.patch_labels for bag in self._bags]


class BagDataset:
    """Labelled bags, opened by name and streamed from disk: no bag is ever held whole.

    Args:
        bags: a folder of bags, a file with a group a slide, or bags by the name of their slide.
        labels: {slide: class index}; names are matched as CAMELYON16 spells them. As the bags say
            if None.
        names: the slides of this set; all with a label if None.
        task: name of the labels.
        n_classes: of the labels.
        also_skipped: what was left out before, to be told with the rest.

    Attributes:
        names: slides in order.
        skipped: {slide: a sentence}, bags without a label, labels without a bag, unreadable bags.

    Raises:
        IpslibError: when no labelled bag is left.
    """

    grid = None  # bags differ in N, and their patches lie on no common grid
    uneven = True

    def __init__(
        self,
        bags: str | Path | Mapping[str, SlideBag],
        labels: Mapping[str, int] | None = None,
        *,
        names: Collection[str] | None = None,
        task: str = TASK,
        n_classes: int = 2,
        also_skipped: Mapping[str, str] | None = None,
    ):
        self.task, self.n_classes = task, {task: n_classes}
        opened, self.skipped = (dict(bags), {}) if isinstance(bags, Mapping) else open_bags(bags)
        self.skipped |= also_skipped or {}
        labels = stored_labels(opened) if labels is None else labels
        labels = {canonical_name(name): label for name, label in labels.items()}
        wanted = None if names is None else {canonical_name(name) for name in names}
        if wanted is not None:
            opened = {name: bag for name, bag in opened.items() if canonical_name(name) in wanted}
            labels = {name: label for name, label in labels.items() if name in wanted}
        present = {canonical_name(name) for name in [*opened, *self.skipped]}
        for name in labels.keys() - present:
            self.skipped[name] = f"{name}: wanted a bag for its label, found none; prepare it."
        self._bags: list[SlideBag] = []
        self.names: list[str] = []
        for name, bag in sorted(opened.items()):
            if (reason := self._unfit(name, bag, labels)) is None:
                self._bags.append(bag)
                self.names.append(name)
            else:
                self.skipped[name] = reason
        self.skipped = dict(sorted(self.skipped.items()))
        if not self._bags:
            first = next(iter(self.skipped.values()), "there is no bag.")
            raise IpslibError(f"bags: wanted bags with labels, got none; the first: {first}")
        self.labels = torch.tensor([labels[canonical_name(name)] for name in self.names])

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

    def batch(self, indices: Sequence[int]) -> BagBatch:
        """Bags of any size as one batch."""
        labels = {self.task: self.labels[list(indices)]}
        return BagBatch([self._bags[i] for i in indices], labels)

    def _unfit(self, name: str, bag: SlideBag, labels: Mapping[str, int]) -> str | None:
        label = labels.get(canonical_name(name))
        if label is None:
            return f"{name}: wanted a label for its bag, found none; add it, or ignore the bag."
        if not 0 <= label < self.n_classes[self.task]:
            return f"{name}: wanted a label from 0 to {self.n_classes[self.task] - 1}, got {label}."
        if self._bags and bag.patch_shape != self._bags[0].patch_shape:
            return (
                f"{name}: wanted {self._bags[0].patch_shape[0]} features a patch as in "
                f"{self.names[0]}, got {bag.patch_shape[0]}; prepare both alike."
            )
        return None


def stored_labels(bags: Mapping[str, SlideBag]) -> dict[str, int]:
    """Classes of the slides whose bags say them."""
    said = {name: bag.label for name, bag in bags.items()}
    return {name: label for name, label in said.items() if label is not None}


def open_bags(place: str | Path) -> tuple[dict[str, SlideBag], dict[str, str]]:
    """All bags of a folder, or of a file with a group a slide.

    Returns:
        {slide: bag}, and {slide: a sentence} for those that cannot be read.

    Raises:
        IpslibError: when there is no such folder or file, or nothing in it.
    """
    bags, skipped = {}, {}
    for path in paths_of_bags(Path(place)):
        try:
            for slide in slides_of(path):
                name = path.stem if slide is None else slide
                try:
                    bags[name] = SlideBag(path, slide=slide)
                except IpslibError as error:
                    skipped[name] = str(error)
        except IpslibError as error:
            skipped[path.stem] = str(error)
    if not bags and not skipped:
        raise IpslibError(
            f"{place}: wanted a folder of feature bags, found none; prepare them, or correct the "
            "path."
        )
    return bags, skipped
