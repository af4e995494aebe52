"""Drawing scenes: square objects pasted over each other, as whole images or patch by patch.

Most patches that hold ink meet one object only. Such a patch is one window of a sheet on which
the objects lie on blank ground, so a whole read is one gather; only what lies on top of other
objects is pasted piece by piece.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.data.patches import PatchGrid, ranges


class Scene(NamedTuple):
    """Objects on a canvas, pasted in order, each over its whole box."""

    boxes: np.ndarray  # (n, 4) of top, left, height, width in pixels
    objects: Sequence[np.ndarray]  # n of (height, width) uint8

    def draw(self, canvas: tuple[int, int]) -> np.ndarray:
        """The whole image (H, W) uint8."""
        image = np.zeros(canvas, np.uint8)
        for (top, left, height, width), each in zip(self.boxes, self.objects, strict=True):
            image[top : top + height, left : left + width] = each
        return image


class Sheet:
    """Objects on blank ground so wide that a patch with one object on it is a window of the sheet.

    The sheet is one run of bytes: the ground right of an object is also left of its next row.
    Window w is the patch that begins at byte w.

    Args:
        objects: (n, S, S) uint8.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, objects: np.ndarray, patch_size: int):
        n, self.size = objects.shape[:2]
        self.pitch = pitch = self.size + patch_size  # bytes from one row to the next
        ground = np.zeros((n + 1, pitch, pitch), np.uint8)
        ground[:n, patch_size:, : self.size] = objects
        self.first = np.arange(n) * pitch**2 + patch_size * pitch  # each object's own corner
        self.blank = n * pitch**2
        self.windows = np.lib.stride_tricks.as_strided(
            ground, (self.blank + 1, patch_size, patch_size), (1, pitch, 1), writeable=False
        )


class Layer(NamedTuple):
    """Objects of one sheet on B images, pasted in order."""

    sheet: Sheet
    objects: np.ndarray  # (B, n) indices into the sheet
    corners: np.ndarray  # (B, n, 2) rows and columns in pixels

    @property
    def boxes(self) -> np.ndarray:
        """(B, n, 4) of top, left, height, width in pixels."""
        return np.concatenate([self.corners, np.full_like(self.corners, self.sheet.size)], axis=2)


class SceneBatch:
    """Images as a PatchBatch that is drawn patch by patch.

    Args:
        grid: of every image.
        layers: what is pasted, the lowest first.
        labels: {task: (B,) or (B, C)}.

    Attributes:
        boxes: (B, n, 4) of top, left, height, width in pixels, of the highest layer.
    """

    def __init__(self, grid: PatchGrid, layers: Sequence[Layer], labels: Mapping[str, Tensor]):
        self.grid, self.labels, self.n_patches = grid, labels, grid.n_patches
        boxes = [layer.boxes for layer in layers]
        self.batch_size, self.boxes = len(boxes[-1]), torch.from_numpy(boxes[-1])
        self._windows = [layer.sheet.windows for layer in layers]
        self._index_pastes(layers, np.concatenate(boxes, axis=1))
        blank = torch.from_numpy(self._slot == 0)
        self.blank = blank.view(self.batch_size, self.n_patches)

    def _index_pastes(self, layers: Sequence[Layer], boxes: np.ndarray) -> None:
        """Sort out what every patch shows. Patch p of image i is number i N + p; those that meet
        an object have a slot 1, 2, ... of the tables, all others share slot 0."""
        number, box, row, col = self._meetings(boxes)
        counts = [layer.objects.shape[1] for layer in layers]
        layer = np.repeat(np.arange(len(layers)), counts)[box % boxes.shape[1]]
        own = np.concatenate([each.sheet.first[each.objects] for each in layers], axis=1).ravel()
        pitch = np.array([each.sheet.pitch for each in layers])[layer]
        window = own[box] - row * pitch - col

        is_first = np.diff(number, prepend=-1) > 0
        slot = np.cumsum(is_first)
        n_slots = np.count_nonzero(is_first)
        self._slot = np.zeros(self.batch_size * self.n_patches, np.int32)
        self._slot[number] = slot
        # The first object comes with its ground; whatever else a patch meets is pasted over it.
        gathered = is_first & (layer == 0)
        self._ground = np.full(n_slots + 1, layers[0].sheet.blank)
        self._ground[slot[gathered]] = window[gathered]
        over = np.flatnonzero(~gathered)
        row, col, height, width = row[over], col[over], *boxes.reshape(-1, 4)[box[over], 2:].T
        spans = [np.maximum(row, 0), row + height, np.maximum(col, 0), col + width]
        self._pastes = np.stack([layer[over], window[over], *spans])
        self._n_pastes = np.bincount(slot[over], minlength=n_slots + 1)
        self._first_paste = np.cumsum(self._n_pastes) - self._n_pastes

    def _meetings(self, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Pairs of a patch and a box that meet, by patch and then in drawing order: the patch's
        number, the box, and the box's row and column within the patch."""
        n_boxes = boxes.shape[1]
        rows, cols = self.grid.shape
        boxes = boxes.reshape(-1, 4)
        row, col, box = self.grid.touching(boxes)
        number = (box // n_boxes * rows + row) * cols + col
        order = np.argsort(number * len(boxes) + box)
        row, col, box = row[order], col[order], box[order]
        stride = self.grid.patch_stride
        return number[order], box, boxes[box, 0] - row * stride, boxes[box, 1] - col * stride

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """(n, 1, P, P) uint8."""
        slot = self._slot[image.numpy() * self.n_patches + patch.numpy()]
        out, windows = self._windows[0][self._ground[slot]], self._windows
        nth, paste = ranges(self._first_paste[slot], self._n_pastes[slot])
        for n, layer, window, r0, r1, c0, c1 in zip(
            nth.tolist(), *self._pastes[:, paste].tolist(), strict=True
        ):
            out[n, r0:r1, c0:c1] = windows[layer][window, r0:r1, c0:c1]
        return torch.from_numpy(out[:, None])
