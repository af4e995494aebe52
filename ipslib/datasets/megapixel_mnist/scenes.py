"""Drawing scenes: square objects pasted over each other, as whole images or patch by patch.

Most patches that hold ink meet one object only. Such a patch is a window of a sheet on which each
kind of object lies on blank ground, and all windows of a read are gathered at once; only what
lies over another object is pasted piece by piece. On an accelerator `DrawnScenes` pastes and
gathers, from the same tables.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.patches import PatchGrid, ranges
from ipslib.runtime import is_accelerator, moved, uploaded

_PASTED_VALUES = 4_000_000  # pixels pasted together: more would take memory that training needs
_SHEET_BYTES = 8_000_000  # a large pool of kinds shall not cost memory: the rest is pasted


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


class Layer(NamedTuple):
    """Square objects of one size on B images, pasted in order."""

    kinds: np.ndarray  # (k, S, S) uint8
    objects: np.ndarray  # (B, n) indices into the kinds
    corners: np.ndarray  # (B, n, 2) rows and columns in pixels

    @property
    def boxes(self) -> np.ndarray:
        """(B, n, 4) of top, left, height, width in pixels."""
        size = self.kinds.shape[1]
        return np.concatenate([self.corners, np.full_like(self.corners, size)], axis=2)


class Meetings(NamedTuple):
    """Pairs of a patch and an object that meet, by patch and then in drawing order."""

    number: np.ndarray  # (n,) patch p of image i is i N + p
    layer: np.ndarray  # (n,)
    kind: np.ndarray  # (n,) of the layer's
    row: np.ndarray  # (n,) of the object's corner within the patch, in pixels
    col: np.ndarray  # (n,)


class Sheet:
    """Objects on blank ground so wide that a patch with one object on it is a window of the sheet.

    The sheet is one run of bytes: the ground right of an object is also left of its next row.
    Window w is the patch that begins at byte w; window `blank` has nothing on it.

    Args:
        kinds: (k, S, S) uint8; the first `n_kinds` of them, as many as fit, are on the sheet.
        patch_size: side of a patch in pixels.
        limit: of the sheet's size in bytes.
    """

    def __init__(self, kinds: np.ndarray, patch_size: int, *, limit: int = _SHEET_BYTES):
        size = kinds.shape[1]
        self.patch_size, self.pitch = patch_size, size + patch_size  # bytes from row to row
        self.n_kinds = min(len(kinds), limit // self.pitch**2)
        self.blank = self.n_kinds * self.pitch**2
        self._kinds, self._copies = kinds, {}
        ground = np.zeros((self.n_kinds + 1, self.pitch, self.pitch), np.uint8)
        ground[:-1, patch_size:, :size] = kinds[: self.n_kinds]
        self.windows = np.lib.stride_tricks.as_strided(
            ground, (self.blank + 1, patch_size, patch_size), (1, self.pitch, 1), writeable=False
        )
        self._ground, self.ink = ground, ink_bounds(kinds)

    def window(self, kind: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Which window shows a kind of object at this row and column of the patch."""
        return (kind * self.pitch + self.patch_size - row) * self.pitch - col

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The sheet's bytes and those of all kinds, (L,) and (k S S,) uint8; a device that was
        given them once keeps them."""
        if device not in self._copies:
            self._copies[device] = tuple(
                uploaded(torch.from_numpy(each.flatten()), device)
                for each in (self._ground, self._kinds)
            )
        return self._copies[device]


def ink_bounds(kinds: np.ndarray) -> np.ndarray:
    """The box of each kind's ink: (4, k) of first and last row, first and last column, the last
    not included; of a kind without ink, none that meets anything."""
    never = 2**30
    bounds = []
    for axis in (2, 1):
        inked = kinds.any(axis=axis)  # (k, S)
        first = np.where(inked.any(axis=1), inked.argmax(axis=1), never)
        bounds += [first, inked.shape[1] - inked[:, ::-1].argmax(axis=1)]
    return np.stack(bounds)


class Pasting(NamedTuple):
    """Which objects are pasted over which cells, sorted by the round in which that is done."""

    ground: np.ndarray  # (n_cells,) the sheet's window that each cell begins as
    cell: np.ndarray  # (n,)
    kind: np.ndarray  # (n,) first byte of the object among those of all kinds
    row: np.ndarray  # (n,) of the object's corner within the patch, negative above it
    col: np.ndarray  # (n,)
    size: np.ndarray  # (n,) side of the object in pixels
    rounds: np.ndarray  # pastes of each round; in one, no cell is pasted over twice


class DrawnScenes:
    """A batch of scenes on an accelerator, as a PatchBatch: what patches show is a table of places
    in one run of bytes, those of `SceneBatch`.

    The run is the sheet, which stays on the device with the patterns, and behind it the patches
    that lie under several objects, pasted once for a batch. Reading patches, whichever and in
    whatever order, is then one gather, of a shape that the caller knows, and nothing comes back to
    the host.

    Args:
        sheet: (L,) uint8 on the device, rows `pitch` bytes apart.
        kinds: uint8 on the device, the pixels of all kinds of objects one behind the other.
        pasting: what is not on the sheet.
        windows: (B N,) for every patch its window of the sheet; behind the sheet's, cell by cell.
        blank, labels, boxes: as of the SceneBatch, on the host.
    """

    def __init__(self, grid: PatchGrid, *, sheet: Tensor, pitch: int, kinds: Tensor,
                 pasting: Pasting, windows: np.ndarray, blank: Tensor, labels: dict,
                 boxes: Tensor):  # fmt: skip
        self.grid, self.device, self.labels, self.boxes = grid, sheet.device, labels, boxes
        self.blank, (self.batch_size, self.n_patches) = blank, blank.shape
        size = grid.patch_size
        pixels = sheet.new_empty(len(sheet) + len(pasting.ground) * size * pitch)
        pixels[: len(sheet)] = sheet
        n_windows = len(pixels) - (size - 1) * pitch - size + 1
        self._windows = pixels.as_strided((n_windows, size, size), (1, pitch, 1))
        cells = pixels[len(sheet) :].view(-1, size, pitch)[:, :, :size]
        self._paste(cells, kinds, pasting)
        self._window = uploaded(torch.from_numpy(windows), self.device)

    def _paste(self, cells: Tensor, kinds: Tensor, pasting: Pasting) -> None:
        """Draw the patches (n_cells, P, P) that lie under several objects."""
        if not len(cells):
            return
        size, at_once = cells.shape[1], max(1, _PASTED_VALUES // cells[0].numel())
        pixel = torch.arange(size, device=self.device)
        cells[:] = self._windows[uploaded(torch.from_numpy(pasting.ground), self.device)]
        table = uploaded(torch.from_numpy(np.stack(pasting[1:6])), self.device)  # (5, n)
        for each_round in table.split(pasting.rounds.tolist(), dim=1):
            for part in each_round.split(at_once, dim=1):
                cell, (first, row, col, side) = part[0], part[1:, :, None, None]  # (m, 1, 1)
                y, x = pixel[:, None] - row, pixel - col  # (m, P, 1), (m, 1, P)
                covered = (y >= 0) & (y < side) & (x >= 0) & (x < side)  # (m, P, P)
                source = (first + y * side + x).clamp_(0, len(kinds) - 1)
                cells[cell] = torch.where(covered, kinds[source], cells[cell])

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """(n, 1, P, P) uint8 on the device; indices may be on the host or there."""
        number = moved(image, self.device) * self.n_patches + moved(patch, self.device)
        return self._windows[self._window[number]][:, None]


class SceneBatch:
    """Images as a PatchBatch that is drawn patch by patch: layers, the lowest first, and the sheet
    of the lowest one's kinds; `boxes` (B, n, 4) are those of the highest layer."""

    def __init__(self, grid: PatchGrid, layers: Sequence[Layer], *, sheet: Sheet, labels: Mapping):
        self.grid, self.labels, self.n_patches = grid, labels, grid.n_patches
        boxes = [layer.boxes for layer in layers]
        self.batch_size, self.boxes = len(boxes[-1]), torch.from_numpy(boxes[-1])
        self._sheet, self._kinds = sheet, [layer.kinds for layer in layers]
        self._index_pastes(layers, sheet, np.concatenate(boxes, axis=1))
        blank = torch.from_numpy(self._slot == 0)
        self.blank = blank.view(self.batch_size, self.n_patches)

    def _index_pastes(self, layers: Sequence[Layer], sheet: Sheet, boxes: np.ndarray) -> None:
        """Sort out what every patch shows. Patch p of image i is number i N + p; those that meet
        an object have a slot 1, 2, ... of the tables, all others share slot 0."""
        self._met, box = self._meetings(layers, boxes)
        number, layer, kind, row, col = self._met
        is_first = np.diff(number, prepend=-1) > 0
        slot = np.cumsum(is_first)
        n_slots = np.count_nonzero(is_first)
        self._slot = np.zeros(self.batch_size * self.n_patches, np.int32)
        self._slot[number] = slot
        # The first object comes with its ground; whatever else a patch meets is pasted over it.
        gathered = is_first & (layer == 0) & (kind < sheet.n_kinds)
        self._ground = np.full(n_slots + 1, sheet.blank)
        self._ground[slot[gathered]] = sheet.window(*(x[gathered] for x in (kind, row, col)))
        over = np.flatnonzero(~gathered)
        self._n_pastes = np.bincount(slot[over], minlength=n_slots + 1)
        self._first_paste = np.cumsum(self._n_pastes) - self._n_pastes
        row, col, height, width = row[over], col[over], *boxes.reshape(-1, 4)[box[over], 2:].T
        top, left, size = np.maximum(row, 0), np.maximum(col, 0), self.grid.patch_size
        in_patch = top, row + height, left, col + width
        in_object = top - row, size - row, left - col, size - col
        self._pastes = np.stack([layer[over], kind[over], *in_patch, *in_object])

    def _meetings(self, layers: Sequence[Layer], boxes: np.ndarray) -> tuple[Meetings, np.ndarray]:
        """All pairs, and the box of each."""
        n_boxes = boxes.shape[1]
        rows, cols = self.grid.shape
        boxes = boxes.reshape(-1, 4)
        row, col, box = self.grid.touching(boxes)
        number = (box // n_boxes * rows + row) * cols + col
        order = np.argsort(number * len(boxes) + box)
        row, col, box = row[order], col[order], box[order]
        stride = self.grid.patch_stride
        kind = np.concatenate([layer.objects for layer in layers], axis=1).ravel()[box]
        counts = [layer.objects.shape[1] for layer in layers]
        layer = np.repeat(np.arange(len(layers)), counts)[box % n_boxes]
        row, col = boxes[box, 0] - row * stride, boxes[box, 1] - col * stride
        return Meetings(number[order], layer, kind, row, col), box

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """(n, 1, P, P) uint8."""
        slot = self._slot[image.numpy() * self.n_patches + patch.numpy()]
        out, kinds = self._sheet.windows[self._ground[slot]], self._kinds
        nth, paste = ranges(self._first_paste[slot], self._n_pastes[slot])
        for n, layer, kind, r0, r1, c0, c1, s0, s1, t0, t1 in zip(
            nth.tolist(), *self._pastes[:, paste].tolist(), strict=True
        ):
            out[n, r0:r1, c0:c1] = kinds[layer][kind, s0:s1, t0:t1]
        return torch.from_numpy(out[:, None])

    def on(self, device: torch.device | str) -> "SceneBatch | DrawnScenes":
        """This batch where a network is: on an accelerator its patches are drawn there."""
        device = torch.device(device)
        return self.drawn_on(device) if is_accelerator(device) else self

    def drawn_on(self, device: torch.device) -> DrawnScenes:
        """This batch with its patches drawn on a device; fewer of them are unknown to be blank,
        since reading cannot tell there."""
        sheet, lowest = self._sheet.on(device)
        others = [uploaded(torch.from_numpy(kinds.ravel()), device) for kinds in self._kinds[1:]]
        pasting, size = self._pasting(), self.grid.patch_size
        window = self._ground.copy()
        cells = np.arange(len(pasting.ground)) * size * self._sheet.pitch
        window[self._n_pastes > 0] = len(sheet) + cells
        return DrawnScenes(
            self.grid, sheet=sheet, pitch=self._sheet.pitch, kinds=torch.cat([lowest, *others]),
            pasting=pasting, windows=window[self._slot], blank=self._without_ink(),
            labels=self.labels, boxes=self.boxes,
        )  # fmt: skip

    def _pasting(self) -> Pasting:
        """The pastes cell by cell, a cell for every slot that has some."""
        layer, kind, r0, r1, c0, _, s0, _, t0, _ = self._pastes
        cell = np.repeat(np.cumsum(self._n_pastes > 0) - 1, self._n_pastes)
        nth = np.arange(len(cell)) - np.repeat(self._first_paste, self._n_pastes)
        row, col = r0 - s0, c0 - t0
        sizes = np.array([kinds.shape[1] for kinds in self._kinds])
        starts = np.cumsum([0, *(kinds.size for kinds in self._kinds)])
        columns = (cell, starts[layer] + kind * sizes[layer] ** 2, row, col, r1 - row)
        by_round = np.argsort(nth, kind="stable")
        ground, columns = self._ground[self._n_pastes > 0], (each[by_round] for each in columns)
        return Pasting(ground, *columns, rounds=np.bincount(nth))

    def _without_ink(self) -> Tensor:
        """(B, N) bool: True where no object's ink meets the patch, though its box may."""
        bounds = [self._sheet.ink, *(ink_bounds(kinds) for kinds in self._kinds[1:])]
        first = np.cumsum([0, *(each.shape[1] for each in bounds)])
        number, layer, kind, row, col = self._met
        top, bottom, left, right = np.concatenate(bounds, axis=1)[:, first[layer] + kind]
        size = self.grid.patch_size
        meets = (row + top < size) & (row + bottom > 0) & (col + left < size) & (col + right > 0)
        blank = torch.ones(self.batch_size * self.n_patches, dtype=torch.bool)
        blank[torch.from_numpy(number[meets])] = False
        return blank.view(self.batch_size, self.n_patches)
