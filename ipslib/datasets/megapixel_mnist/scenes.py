"""Drawing scenes: square objects pasted over each other, as whole images or patch by patch.

Most patches that hold ink meet one object only. Such a patch is a window of a sheet on which each
kind of object lies on blank ground, and all windows of a read are gathered at once; only what
lies over another object is pasted piece by piece. On an accelerator `DrawnScenes` pastes and
gathers, from the same tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.patches import PatchGrid, TensorBatch, cut_image, ranges
from ipslib.runtime import is_accelerator, moved, uploaded

_PASTED_VALUES = 4_000_000  # pixels pasted together: more would take memory that training needs
_TOGETHER = 2048  # objects laid out together: a large canvas' many would take memory, too
_SHEET_BYTES = 8_000_000  # a large pool of kinds shall not cost memory: the rest is pasted


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

    def of(self, images: slice) -> "Layer":
        """The objects of some of the images."""
        return self._replace(objects=self.objects[images], corners=self.corners[images])

    def moved(self, by: np.ndarray, canvas: tuple[int, int]) -> "Layer":
        """Its objects moved down and to the right by pixels (B, 1, 2), none beyond the canvas."""
        furthest = np.subtract(canvas, self.kinds.shape[1])
        corners = np.clip(self.corners + by, 0, furthest)
        return self._replace(corners=corners.astype(self.corners.dtype))


def draw_whole(layers: Sequence[Layer], canvas: tuple[int, int], image: int = 0) -> np.ndarray:
    """One of the images (H, W) uint8: its objects pasted in order, each over its whole box."""
    pixels = np.zeros(canvas, np.uint8)
    for kinds, objects, corners in layers:
        size = kinds.shape[1]
        for kind, (row, col) in zip(objects[image], corners[image], strict=True):
            pixels[row : row + size, col : col + size] = kinds[kind]
    return pixels


def shrink(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """An image (H, W) uint8 at this size, where each pixel is the mean of its area."""
    if image.shape == canvas:
        return image
    pixels = torch.from_numpy(image)[None, None].float()  # sums of bytes are exact
    area = torch.nn.functional.interpolate(pixels, canvas, mode="area")[0, 0]
    return (area + 0.5).to(torch.uint8).numpy()


class ShrunkBatch(TensorBatch):
    """Whole images, shrunk to the grid's canvas and then cut; `boxes`, those of the highest layer,
    are rounded outwards."""

    def __init__(
        self, grid: PatchGrid, layers: Sequence[Layer], *, canvas: tuple[int, int], labels: Mapping
    ):
        self.labels, boxes = labels, layers[-1].boxes.astype(np.int64)
        # Filled in place: small arrays kept between large ones would leave holes in memory.
        images = np.empty((len(boxes), *grid.canvas), np.uint8)
        for nth, image in enumerate(images):
            image[:] = shrink(draw_whole(layers, canvas, nth), grid.canvas)
        super().__init__(torch.stack([cut_image(image, grid) for image in images]))
        start, end = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
        start, end = start * grid.canvas // canvas, -(-end * grid.canvas // canvas)
        self.boxes = torch.from_numpy(np.concatenate([start, end - start], axis=-1))


class Sheet:
    """Objects on blank ground so wide that a patch with one object on it is a window of the sheet.

    The sheet is one run of bytes: the ground right of an object is also left of its next row.
    Window w is the patch that begins at byte w; window `blank` has nothing on it. Of the kinds
    (k, S, S) uint8 the first `n_kinds` are on it, as many as fit its limit in bytes.
    """

    def __init__(self, kinds: np.ndarray, patch_size: int, *, limit: int = _SHEET_BYTES):
        size = kinds.shape[1]
        self.patch_size, self.pitch = patch_size, size + patch_size  # bytes from row to row
        self.n_kinds = min(len(kinds), limit // self.pitch**2)
        self.blank = self.n_kinds * self.pitch**2
        self.kinds, self._copies = kinds, {}
        ground = np.zeros((self.n_kinds + 1, self.pitch, self.pitch), np.uint8)
        ground[:-1, patch_size:, :size] = kinds[: self.n_kinds]
        self.windows = np.lib.stride_tricks.as_strided(
            ground, (self.blank + 1, patch_size, patch_size), (1, self.pitch, 1), writeable=False
        )
        self._ground, self.ink = ground, ink_bounds(kinds)

    def window(self, kind: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Which window shows a kind of object at this row and column of the patch."""
        return (kind * self.pitch + self.patch_size - row) * self.pitch - col

    def shown(self, window: np.ndarray) -> np.ndarray:
        """The inverse of `window`: (3, n) kind, row and column."""
        row_of_sheet = (window + self.patch_size - 1) // self.pitch
        kind, below = np.divmod(row_of_sheet, self.pitch)
        return np.stack([kind, self.patch_size - below, row_of_sheet * self.pitch - window])

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The sheet's bytes and those of all kinds, (L,) and (k S S,) uint8; a device that was
        given them once keeps them."""
        if device not in self._copies:
            both = self._ground, self.kinds
            self._copies[device] = tuple(_uploaded(each.flatten(), device) for each in both)
        return self._copies[device]


def ink_bounds(kinds: np.ndarray) -> np.ndarray:
    """The box of each kind's ink: (4, k) of first and last row, first and last column, the last
    not included; of a kind without ink, none that meets anything."""
    bounds = []
    for axis in (2, 1):
        inked = kinds.any(axis=axis)  # (k, S)
        first = np.where(inked.any(axis=1), inked.argmax(axis=1), 2**30)
        bounds += [first, inked.shape[1] - inked[:, ::-1].argmax(axis=1)]
    return np.stack(bounds)


class SceneBatch:
    """Images as a PatchBatch that is drawn patch by patch: layers, the lowest first, and the sheet
    of the lowest one's kinds; `boxes` (B, n, 4) are those of the highest layer.

    Kinds are numbered through all layers. Patch p of image i is number i N + p; those that meet an
    object have a slot 1, 2, ... of the tables, all others share slot 0. An object's row and column
    are those of its corner within the patch.

    Attributes:
        touched: of each slot its patch's number, ascending; of slot 0, which many share, -1.
        ground: of each slot the sheet's window that it begins as.
        pastes: (4, n) slot, kind, row and column of what is pasted over it, by slot.
    """

    def __init__(self, grid: PatchGrid, layers: Sequence[Layer], *, sheet: Sheet, labels: Mapping):
        self.grid, self.labels, self.n_patches = grid, labels, grid.n_patches
        # Nothing is kept that grows faster than what lies on a canvas: no table of all its patches.
        self.sheet, self.boxes = sheet, torch.from_numpy(layers[-1].boxes.astype(np.int64))
        self.batch_size, self.kind_sets = len(self.boxes), [layer.kinds for layer in layers]
        self.kinds = [kind for kinds in self.kind_sets for kind in kinds]
        touched, ground, pastes, n_slots = [[-1]], [[sheet.blank]], [], 1
        for number, *shown in self._meetings(layers):
            is_first = np.diff(number, prepend=-1) > 0
            slot = n_slots - 1 + np.cumsum(is_first, dtype=number.dtype)
            # The first object comes with its ground; whatever else a patch meets is pasted over it.
            gathered = is_first & (shown[0] < sheet.n_kinds)
            windows = np.full(len(number), sheet.blank, number.dtype)
            windows[gathered] = sheet.window(*(each[gathered] for each in shown))
            touched.append(number[is_first])
            ground.append(windows[is_first])
            pastes.append(np.stack([each[~gathered] for each in (slot, *shown)]))
            n_slots += len(touched[-1])
        self.touched = np.concatenate(touched, dtype=number.dtype)
        self.ground = np.concatenate(ground, dtype=number.dtype)
        self.pastes = np.concatenate(pastes, axis=1)

    def _meetings(self, layers: Sequence[Layer]) -> Iterator[np.ndarray]:
        """(4, n) number, kind, row and column of the pairs of a patch and an object that meet, by
        patch and then in drawing order; of a few images at a time, as a large canvas has many."""
        n_objects = sum(layer.objects.shape[1] for layer in layers)
        n_together = max(1, _TOGETHER // max(1, n_objects))
        for start in range(0, self.batch_size, n_together):
            part = slice(start, start + n_together)
            yield self._met([layer.of(part) for layer in layers], start)

    def _met(self, layers: Sequence[Layer], start: int) -> np.ndarray:
        """Those of images from `start` on, by their layers."""
        first = np.cumsum([0, *(len(layer.kinds) for layer in layers)])
        numbered = [each.objects + n for each, n in zip(layers, first[:-1], strict=True)]
        kinds = np.concatenate(numbered, axis=1)  # (b, n)
        boxes = np.concatenate([layer.boxes for layer in layers], axis=1).reshape(-1, 4)
        small = self.batch_size * self.n_patches < 2**31  # half the bytes where they do
        boxes, (rows, cols) = boxes.astype(np.int32 if small else np.int64), self.grid.shape
        row, col, box = self.grid.touching(boxes)
        number = ((start + box // kinds.shape[1]) * rows + row) * cols + col
        order = np.argsort(number, kind="stable")  # they come by box, the order of drawing
        number, row, col, box = (each[order] for each in (number, row, col, box))
        met = np.empty((4, len(order)), boxes.dtype)
        met[0], met[1] = number, kinds.ravel()[box]
        met[2] = boxes[box, 0] - self.grid.patch_stride * row
        met[3] = boxes[box, 1] - self.grid.patch_stride * col
        return met

    @property
    def blank_share(self) -> float:
        """How many of all patches no object's box meets."""
        return 1 - (len(self.touched) - 1) / (self.batch_size * self.n_patches)

    def slots(self, number: np.ndarray) -> np.ndarray:
        """Of patches by their numbers."""
        number = number.astype(self.touched.dtype)  # of another type, the table would be copied
        slot = np.searchsorted(self.touched, number, side="right") - 1
        return np.where(self.touched[slot] == number, slot, 0)

    def known_blank(self, patches: Tensor) -> Tensor:
        """(B, n) bool: those of the patches (n,) that no object's box meets."""
        first = self.n_patches * np.arange(self.batch_size)[:, None]
        return torch.from_numpy(self.slots(first + patches.numpy()) == 0)

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """(n, 1, P, P) uint8."""
        slot = self.slots(image.numpy() * self.n_patches + patch.numpy())
        out, size = self.sheet.windows[self.ground[slot]], self.grid.patch_size
        pasted, slot = self.pastes[0], slot.astype(self.pastes.dtype)
        first, end = (np.searchsorted(pasted, slot, side) for side in ("left", "right"))
        nth, paste = ranges(first, end - first)
        for n, kind, row, col in zip(nth.tolist(), *self.pastes[1:, paste].tolist(), strict=True):
            pixels = self.kinds[kind]
            seen = pixels[max(-row, 0) : size - row, max(-col, 0) : size - col]
            out[n, max(row, 0) : row + len(pixels), max(col, 0) : col + len(pixels)] = seen
        return torch.from_numpy(out[:, None])

    def on(self, device: torch.device | str) -> "SceneBatch | DrawnScenes":
        """This batch where a network is: on an accelerator its patches are drawn there."""
        device = torch.device(device)
        return DrawnScenes(self, device) if is_accelerator(device) else self


class DrawnScenes:
    """A batch of scenes on a device, as a PatchBatch: what patches show is a table of places in one
    run of bytes.

    The run is the sheet, which stays on the device with the patterns, and behind it the patches
    that lie under several objects, pasted once for a batch. Reading patches, whichever and in
    whatever order, is then one gather, of a shape that the caller knows, and nothing comes back to
    the host. More patches are known to be blank than on the host, since reading cannot tell there.
    """

    def __init__(self, batch: SceneBatch, device: torch.device):
        self.device, self.grid = device, batch.grid
        self.labels, self.boxes, self._blank = batch.labels, batch.boxes, _without_ink(batch)
        self.batch_size, self.n_patches = batch.batch_size, batch.n_patches
        size, pitch = self.grid.patch_size, batch.sheet.pitch
        sheet, lowest = batch.sheet.on(device)
        others = [_uploaded(kinds.ravel(), device) for kinds in batch.kind_sets[1:]]
        window = batch.ground.astype(np.int64)
        n_pastes = np.bincount(batch.pastes[0], minlength=len(window))
        is_pasted = n_pastes > 0  # such a slot has a cell behind the sheet
        n_cells = np.count_nonzero(is_pasted)
        pixels = sheet.new_empty(len(sheet) + n_cells * size * pitch)
        pixels[: len(sheet)] = sheet
        n_windows = len(pixels) - (size - 1) * pitch - size + 1
        self._windows = pixels.as_strided((n_windows, size, size), (1, pitch, 1))
        cells = pixels[len(sheet) :].view(-1, size, pitch)[:, :, :size]
        if n_cells:
            cells[:] = self._windows[_uploaded(window[is_pasted], device)]
            self._paste(cells, torch.cat([lowest, *others]), batch, n_pastes)
        window[is_pasted] = len(sheet) + np.arange(n_cells) * size * pitch
        windows = np.full(self.batch_size * self.n_patches, window[0])
        windows[batch.touched[1:]] = window[1:]
        self._window = _uploaded(windows, device)

    def _paste(self, cells: Tensor, kinds: Tensor, batch: SceneBatch, n_pastes: np.ndarray) -> None:
        """Draw the patches (n_cells, P, P) that lie under several objects, whose kinds' bytes lie
        one behind the other, in rounds in which no cell is pasted over twice."""
        slot, kind, row, col = batch.pastes
        _, nth = ranges(np.zeros_like(n_pastes), n_pastes)
        cell = np.cumsum(n_pastes > 0)[slot] - 1
        sides = np.array([len(pixels) for pixels in batch.kinds])
        first = np.cumsum(sides**2) - sides**2
        table = np.stack([cell, first[kind], row, col, sides[kind]])
        table = _uploaded(table[:, np.argsort(nth, kind="stable")], self.device)
        pixel = torch.arange(cells.shape[1], device=self.device)
        at_once = max(1, _PASTED_VALUES // cells[0].numel())
        for each_round in table.split(np.bincount(nth).tolist(), dim=1):
            for part in each_round.split(at_once, dim=1):
                cell, (first, row, col, side) = part[0], part[1:, :, None, None]  # (m, 1, 1)
                y, x = pixel[:, None] - row, pixel - col  # (m, P, 1), (m, 1, P)
                covered = (y >= 0) & (y < side) & (x >= 0) & (x < side)  # (m, P, P)
                source = (first + y * side + x).clamp_(0, len(kinds) - 1)
                cells[cell] = torch.where(covered, kinds[source], cells[cell])

    def known_blank(self, patches: Tensor) -> Tensor:
        """(B, n) bool: those of the patches (n,) that no object's ink meets."""
        return self._blank[:, patches]

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """(n, 1, P, P) uint8 on the device; indices may be on the host or there."""
        number = moved(image, self.device) * self.n_patches + moved(patch, self.device)
        return self._windows[self._window[number]][:, None]


def _uploaded(values: np.ndarray, device: torch.device) -> Tensor:
    return uploaded(torch.from_numpy(values), device)


def _without_ink(batch: SceneBatch) -> Tensor:
    """(B, N) bool: True where no object's ink meets the patch, though its box may."""
    bounds = [batch.sheet.ink, *map(ink_bounds, batch.kind_sets[1:])]
    on_ground = np.flatnonzero(batch.ground != batch.sheet.blank)  # slots
    slot = np.concatenate([on_ground, batch.pastes[0]])
    shown = np.concatenate([batch.sheet.shown(batch.ground[on_ground]), batch.pastes[1:]], axis=1)
    (kind, row, col), size = shown, batch.grid.patch_size
    top, bottom, left, right = np.concatenate(bounds, axis=1)[:, kind]
    meets = (row + top < size) & (row + bottom > 0) & (col + left < size) & (col + right > 0)
    blank = torch.ones(batch.batch_size, batch.n_patches, dtype=torch.bool)
    blank.view(-1)[torch.from_numpy(batch.touched[slot[meets]]).long()] = False
    return blank
