"""Your own images and feature bags as what selection and training read: patches, as needed.

    batch = SourceBatch([open_source(path, patch_size=100) for path in paths])

No image is held whole, but for JPEG and PNG, which cannot be read in part.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.bag import FeatureBag
from ipslib.datasets.images.folders import file_id
from ipslib.datasets.images.image import ArraySource, npy_source
from ipslib.datasets.images.photo import PhotoSource
from ipslib.datasets.images.tiff import tiff_source
from ipslib.errors import IpslibError, did_you_mean
from ipslib.patches import read_by_image


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
        image: an array or memory map (H, W) or (H, W, C), or a file: `.npy`, TIFF, JPEG, PNG, or
            HDF5 with `features` (N, D).
        patch_size: P in pixels; a feature bag has none.
        patch_stride: in pixels; P if None.
        level: of a pyramidal TIFF, 0 for the largest.

    Raises:
        IpslibError: when it is missing, damaged, or none of these.
    """
    kind = Path(image).suffix.lower() if isinstance(image, str | Path) else "array"
    if kind not in _KINDS:
        hint = did_you_mean(kind, [known for known in _KINDS if known != "array"])
        raise IpslibError(
            f"{file_id(image).path}: wanted an image or a feature bag, got "
            f"{kind or 'a file without a suffix'}{hint}."
        )
    open_kind, takes = _KINDS[kind]
    name = "array" if kind == "array" else str(image)
    given = {"patch_size": patch_size, "patch_stride": patch_stride, "level": level or None}
    given = {option: value for option, value in given.items() if value is not None}
    if not given.keys() <= takes:
        extra = ", ".join(given.keys() - takes)
        raise IpslibError(f"{name}: wanted no {extra} for what it is, got one; leave it out.")
    if "patch_size" in takes - given.keys():
        raise IpslibError(f"{name}: wanted a patch_size in pixels, got none; give one.")
    return open_kind(image, **given)


_CUT = {"patch_size", "patch_stride"}
_KINDS = {
    "array": (ArraySource, _CUT),
    ".npy": (npy_source, _CUT),
    **dict.fromkeys((".tif", ".tiff"), (tiff_source, _CUT | {"level"})),
    **dict.fromkeys((".jpg", ".jpeg", ".png"), (PhotoSource, _CUT)),
    **dict.fromkeys((".h5", ".hdf5"), (FeatureBag, set())),
}


class SourceBatch:
    """B sources of equal size as a PatchBatch.

    Args:
        sources: one an image; they share N, the shape of a patch and its type.
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
                    f"{_size(source)}; bring the images to one size and type, or batch those "
                    "that are alike."
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
        first = self.sources[0]
        out = torch.empty(len(patch), *first.patch_shape, dtype=first.dtype)
        return read_by_image(out, image, patch, lambda i, patches: self.sources[i].read(patches))


def _size(source: PatchSource) -> str:
    shape = " x ".join(map(str, source.patch_shape))
    return f"{source.n_patches} patches of {shape} {str(source.dtype).removeprefix('torch.')}"
