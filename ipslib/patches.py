"""Images as bags of patches: the grid that cuts them, the batches that selection reads, and the
data sets that training takes batches from."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from ipslib.errors import IpslibError

SPLITS = {"train": 0, "test": 1}  # of a data set; the numbers are in keys of random streams
WINDOW_SIZE = 4096  # patches of a batch that selection on a host reads ahead of its iterations


@attrs.frozen
class PatchGrid:
    """Square patches over a canvas, in row-major order; lengths in pixels, height before width.

    The last row and column hang over the edge where the stride does not divide the canvas, so
    that every pixel lies in a patch; what lies outside is zero.
    """

    canvas: tuple[int, int]
    patch_size: int
    patch_stride: int

    def __attrs_post_init__(self) -> None:
        if self.patch_size < 1:
            raise IpslibError(f"patch_size: wanted at least 1 px, got {self.patch_size}.")
        if not 1 <= self.patch_stride <= self.patch_size:
            raise IpslibError(
                f"patch_stride: wanted 1 to {self.patch_size} px, the patch_size, got "
                f"{self.patch_stride}; a larger one leaves gaps between patches."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        size, stride = self.patch_size, self.patch_stride
        height, width = (1 + max(0, -(-(side - size) // stride)) for side in self.canvas)
        return height, width

    @property
    def n_patches(self) -> int:
        return self.shape[0] * self.shape[1]

    def corners(self, patches: np.ndarray) -> np.ndarray:
        """Row and column in pixels of the top-left corner of each patch, (n, 2)."""
        return np.stack(np.divmod(patches, self.shape[1]), axis=-1) * self.patch_stride

    def incidence(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Patch and box of every pair that touches, by patch and then in the boxes' order; boxes
        are (n, 4) rows of top, left, height, width in pixels."""
        row, col, box = self.touching(boxes)
        patch = row * self.shape[1] + col
        order = np.argsort(patch, kind="stable")
        return patch[order], box[order]

    def touching(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of `incidence` as row and column of the patch, and the box, by box; all of the
        boxes' type."""
        start, extent = boxes[:, :2], boxes[:, 2:]
        first = np.maximum((start - self.patch_size) // self.patch_stride + 1, 0)
        ends = np.array(self.shape, boxes.dtype) - 1
        last = np.minimum((start + extent - 1) // self.patch_stride, ends)
        count = np.maximum(last - first + 1, 0)
        box, row = ranges(first[:, 0], count[:, 0])
        nth, col = ranges(first[box, 1], count[box, 1])
        return row[nth], col, box[nth]


def ranges(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges of whole numbers, one behind the other: each number's range, and the number; both of
    the type of `first`."""
    index = np.repeat(np.arange(len(count), dtype=first.dtype), count)
    before = np.cumsum(count, dtype=first.dtype) - count
    return index, np.arange(len(index), dtype=first.dtype) + (first - before)[index]


class PatchBatch(Protocol):
    """B images of N patches each, read patch by patch: no image is ever held whole.

    Floats are pixels in 0..1, unless the batch says that they are `normalised` already. A batch may
    tell which patches are all zero without reading them, see `known_blank`.
    """

    batch_size: int
    n_patches: int

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, C, P, P) uint8 or float, or (n, D)."""
        ...


class LabelledBatch(PatchBatch, Protocol):
    """Images with what is known of them."""

    labels: Mapping[str, Tensor]  # {task: (B,) classes, (B, C) multi-hot or (B,) float numbers}
    boxes: Tensor | None  # (B, R, 4) objects in pixels, see `metrics`; None: not known


class Dataset(Protocol):
    """One split of a data set, as training reads it.

    `uneven` says that classes are as frequent as they happen to be in this split: then balanced
    accuracy and AUC are measured too, and chance goes into records. A set may have
    `sampling_weights` (n,) of the images that an epoch draws, and `deviations` by task of numbers,
    what their unit is; where its configuration has a share `validation`, that is a split too.
    """

    grid: PatchGrid | None  # of every image; None where images differ in size
    chance: Mapping[str, float]  # accuracy of the best constant answer, by task
    uneven: bool
    provenance: Mapping[str, object]  # what the images are, for records

    def __len__(self) -> int: ...

    def augmented(self, *, seed: int, epoch: int) -> "Dataset":
        """The training set as it looks in an epoch, the same whenever asked."""
        ...

    def batch(self, indices: Sequence[int]) -> "LabelledBatch | MixedBatch": ...


def check_augmented(split: str) -> None:
    """Refuse a split that training does not change."""
    if split != "train":
        raise IpslibError(f"split: wanted train, which alone is augmented, got {split}.")


def device_of(batch: PatchBatch) -> torch.device:
    """Where a batch reads its patches, and wants their indices: the host, if it does not say."""
    return getattr(batch, "device", torch.device("cpu"))


def is_normalised(batch: PatchBatch) -> bool:
    """Whether a batch reads patches that are normalised already."""
    return getattr(batch, "normalised", False)


def known_blank(batch: PatchBatch, patches: Tensor) -> Tensor:
    """(B, n) bool: of the patches (n,), those of each image that a batch knows to be all zero
    without reading them, by its own `known_blank`; none where it has none."""
    if hasattr(batch, "known_blank"):
        return batch.known_blank(patches)
    return torch.tensor(False).expand(batch.batch_size, len(patches))


class TensorBatch:
    """A batch that lies in memory: patches (B, N, C, P, P) or features (B, N, D)."""

    def __init__(self, instances: Tensor):
        self.instances, self.device = instances, instances.device
        self.batch_size, self.n_patches = instances.shape[:2]

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        return self.instances[image, patch]


class MixedBatch:
    """Images of several sizes: selection visits them one by one, and what is kept, at most M of
    each, is encoded together; its parts are of one image each."""

    boxes: Tensor | None = None
    grids: Sequence[PatchGrid] = ()  # of each image, where boxes are known
    class_weights: Mapping[str, Tensor] = MappingProxyType({})  # (C,) by task, in the loss

    def __init__(self, parts: Sequence[PatchBatch], *, labels: Mapping[str, Tensor] | None = None):
        self.parts, self.labels, self.batch_size = list(parts), dict(labels or {}), len(parts)
        self.normalised = all(map(is_normalised, self.parts))

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, C, P, P), or (n, D)."""
        nothing = [part.read(patch[:0], patch[:0]) for part in self.parts]
        dtype = reduce(torch.promote_types, [each.dtype for each in nothing])
        return read_by_image(
            nothing[0].new_empty(len(patch), *nothing[0].shape[1:], dtype=dtype),
            image,
            patch,
            lambda i, patches: self.parts[i].read(torch.zeros_like(patches), patches),
        )


def read_by_image(
    out: Tensor, image: Tensor, patch: Tensor, read: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Fill `out` (n, ...) with the patches at pairs of indices (n,), (n,), one `read` an image;
    bytes among floats become floats in 0..1."""
    for i in image.unique().tolist():
        here = (image == i).nonzero()[:, 0]
        values = read(i, patch[here])
        if out.is_floating_point() and values.dtype == torch.uint8:
            values = values / 255
        out[here] = values
    return out


def cut_image(image: np.ndarray | Tensor, grid: PatchGrid) -> Tensor:
    """Cut one image (H, W) or (C, H, W) into its patches (N, C, P, P)."""
    image = torch.as_tensor(image)
    image = image[None] if image.ndim == 2 else image
    if tuple(image.shape[1:]) != tuple(grid.canvas):
        raise IpslibError(
            f"image: wanted {grid.canvas[0]} x {grid.canvas[1]} px as the grid's canvas, got "
            f"{' x '.join(map(str, image.shape[1:]))}; make the grid of the image's size."
        )
    size, stride = grid.patch_size, grid.patch_stride
    overhang = [
        (n - 1) * stride + size - side for n, side in zip(grid.shape, grid.canvas, strict=True)
    ]
    padded = torch.nn.functional.pad(image, (0, overhang[1], 0, overhang[0]))
    tiles = padded.unfold(1, size, stride).unfold(2, size, stride)  # (C, rows, cols, P, P)
    return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)
