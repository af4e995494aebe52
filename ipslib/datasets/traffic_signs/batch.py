"""Photographs of traffic signs as a batch of patches, with their signs' boxes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.traffic_signs.annotations import Box
from ipslib.datasets.traffic_signs.classes import Example
from ipslib.datasets.traffic_signs.image import SignImage
from ipslib.model.imagenet import normalised
from ipslib.patches import PatchGrid

NO_BOX = (-1, -1, 0, 0)  # touches no patch


class SignBatch(SourceBatch):
    """B photographs as a PatchBatch of normalised patches; they are decoded here, so that a batch
    can be made ahead.

    Args:
        sources: the photographs, of one grid.
        boxes: of each, (n, 4) of top, left, height, width in pixels of the canvas.
        labels: (B,) class indices.
        threads: that decode at once.

    Attributes:
        boxes: (B, R, 4) int64; where an image has fewer than R >= 1, the rest are `NO_BOX`.
        roi: (B, N) bool, True where a patch touches a box.
    """

    normalised = True

    def __init__(
        self,
        sources: Sequence[SignImage],
        boxes: Sequence[np.ndarray],
        labels: Tensor,
        *,
        threads: int = 1,
    ):
        super().__init__(sources, labels={"sign": labels})
        self.grid = sources[0].grid
        self.boxes = padded(boxes)
        self.roi = torch.stack([touched(self.grid, each) for each in boxes])
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(lambda source: source.pixels, sources))

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, 3, P, P) float32, normalised."""
        return normalised(super().read(image, patch))


def padded(boxes: Sequence[np.ndarray]) -> Tensor:
    """Boxes of images (n, 4) as one tensor (B, R, 4), filled up with `NO_BOX`."""
    out = np.full((len(boxes), max(1, *map(len, boxes)), 4), NO_BOX, np.int64)
    for i, each in enumerate(boxes):
        out[i, : len(each)] = each
    return torch.from_numpy(out)


def touched(grid: PatchGrid, boxes: np.ndarray) -> Tensor:
    """Which patches touch any of the boxes (n, 4): (N,) bool."""
    patches, _ = grid.incidence(boxes)
    out = torch.zeros(grid.n_patches, dtype=torch.bool)
    out[torch.from_numpy(patches)] = True
    return out


def boxes_on_canvas(
    example: Example, canvas: tuple[int, int], shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """An image's boxes on the canvas that it is brought to and shifted on.

    Returns:
        (n, 4) int64 of top, left, height, width in whole pixels, outward; what lies outside the
        canvas is cut off, and a box that lies outside whole becomes `NO_BOX`.
    """
    out = [_on_canvas(box, example.size, canvas, shift) for box in example.boxes]
    return np.array(out, np.int64).reshape(-1, 4)


def _on_canvas(
    box: Box, stored: tuple[int, int], canvas: tuple[int, int], shift: tuple[int, int]
) -> tuple[int, ...]:
    scale = np.array(canvas) / np.array(stored)
    start = np.floor(np.array([box.y_min, box.x_min]) * scale) + shift
    stop = np.ceil(np.array([box.y_max, box.x_max]) * scale) + shift
    start, stop = np.clip(start, 0, canvas), np.clip(stop, 0, canvas)
    if (stop <= start).any():
        return NO_BOX
    return tuple(np.concatenate([start, stop - start]).astype(int).tolist())
