"""Scenes drawn on an accelerator: what patches show is a table of places in one run of bytes.

The bytes are the sheet, which stays on the device with the patterns, and behind it the patches
that lie under several objects, pasted once for a batch. Reading patches, whichever and in
whatever order, is then one gather, of a shape that the caller knows, and nothing comes back to
the host. The bytes drawn are those of `SceneBatch`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.patches import PatchGrid
from ipslib.runtime import moved, uploaded

_PASTED_VALUES = 4_000_000  # pixels pasted together: more would take memory that training needs


class Pasting(NamedTuple):
    """Which objects are pasted over which cells, sorted by the round in which that is done."""

    n_cells: int
    ground: np.ndarray  # (n_cells,) the sheet's window that each cell begins as
    cell: np.ndarray  # (n,)
    kind: np.ndarray  # (n,) first byte of the object among those of all kinds
    row: np.ndarray  # (n,) of the object's corner within the patch, negative above it
    col: np.ndarray  # (n,)
    size: np.ndarray  # (n,) side of the object in pixels
    rounds: np.ndarray  # pastes of each round; in one, no cell is pasted over twice


class DrawnScenes:
    """A batch of scenes on a device, as a PatchBatch.

    Args:
        grid: of every image.
        sheet: (L,) uint8 on the device, rows `pitch` bytes apart.
        pitch: bytes from row to row.
        kinds: uint8 on the device, the pixels of all kinds of objects one behind the other.
        pasting: what is not on the sheet.
        windows: (B N,) for every patch its window of the sheet; behind the sheet's, cell by cell.
        blank: (B, N) bool, on the host.
        labels: {task: (B,) or (B, C)}, on the host.
        boxes: (B, n, 4), on the host.
    """

    def __init__(self, grid: PatchGrid, *, sheet: Tensor, pitch: int, kinds: Tensor,
                 pasting: Pasting, windows: np.ndarray, blank: Tensor, labels: dict,
                 boxes: Tensor):  # fmt: skip
        self.grid, self.device, self.labels, self.boxes = grid, sheet.device, labels, boxes
        self.blank, (self.batch_size, self.n_patches) = blank, blank.shape
        size = grid.patch_size
        pixels = sheet.new_empty(len(sheet) + pasting.n_cells * size * pitch)
        pixels[: len(sheet)] = sheet
        n_windows = len(pixels) - (size - 1) * pitch - size + 1
        self._windows = pixels.as_strided((n_windows, size, size), (1, pitch, 1))
        cells = pixels[len(sheet) :].view(pasting.n_cells, size, pitch)[:, :, :size]
        self._paste(cells, kinds, pasting)
        self._window = uploaded(torch.from_numpy(windows), self.device)

    def _paste(self, cells: Tensor, kinds: Tensor, pasting: Pasting) -> None:
        """Draw the patches (n_cells, P, P) that lie under several objects."""
        if not pasting.n_cells:
            return
        size, at_once = cells.shape[1], max(1, _PASTED_VALUES // cells[0].numel())
        pixel = torch.arange(size, device=self.device)
        cells[:] = self._windows[uploaded(torch.from_numpy(pasting.ground), self.device)]
        table = uploaded(torch.from_numpy(np.stack(pasting[2:7])), self.device)  # (5, n)
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
