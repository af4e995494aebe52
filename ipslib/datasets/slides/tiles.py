"""Tiles of a slide: a grid over its tissue, of one size in microns whatever the scanner."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from ipslib.datasets.slides.slide import Slide
from ipslib.errors import IpslibError

_FINEST = 0.95  # of the slide's own microns per pixel; finer tiles would be invented


class TileGrid(NamedTuple):
    """N tiles of a slide, row by row."""

    coords: np.ndarray  # (N, 2) x and y of the top-left corner, pixels of level 0
    tile_size: int  # side in pixels, as a network sees it
    size_level0: int  # side in pixels of level 0
    step_level0: int  # from one tile to the next
    mpp: float  # microns per pixel of the tiles
    level: int  # that they are read from
    read_size: int  # side in pixels of that level, resized to tile_size


def lay_tiles(
    slide: Slide,
    tissue: np.ndarray,
    *,
    tile_size: int = 256,
    mpp: float = 0.5,
    overlap: int = 0,
    min_tissue: float = 0.1,
) -> TileGrid:
    """Lay a grid of tiles over the tissue of a slide.

    A tile is read from the coarsest level that is fine enough and then resized: sizes follow
    microns per pixel, never a level or a magnification. Tiles begin at the slide's corner and
    may hang over its right and lower edges, where they are white.

    Args:
        slide: the slide.
        tissue: (H, W) bool, over the whole slide.
        tile_size: side in pixels.
        mpp: microns per pixel of the tiles; 0.5 is what is called 20x.
        overlap: of neighbours, in pixels of a tile.
        min_tissue: share of a tile that is tissue at least; 0 keeps those with any.

    Raises:
        IpslibError: when no tile holds enough tissue, or the slide is too coarse.
    """
    if mpp < slide.mpp * _FINEST:
        raise IpslibError(
            f"{slide.path}: wanted {mpp:g} microns per pixel, got a slide of {slide.mpp:.3g}; "
            "choose a coarser mpp."
        )
    if not 0 <= overlap < tile_size:
        raise IpslibError(f"overlap: wanted 0 to {tile_size - 1} px, got {overlap}.")
    scale = mpp / slide.mpp
    size, step = round(tile_size * scale), max(1, round((tile_size - overlap) * scale))
    height, width = slide.shape
    y, x = np.meshgrid(np.arange(0, height, step), np.arange(0, width, step), indexing="ij")
    coords = np.stack([x.ravel(), y.ravel()], axis=1)
    share = covered(tissue, slide.shape, coords, size)
    coords = coords[(share >= min_tissue) & (share > 0)]
    if not len(coords):
        raise IpslibError(
            f"{slide.path}: wanted tiles that are tissue to {min_tissue:.0%}, found none; lower "
            "min_tissue, or choose smaller tiles."
        )
    level = slide.level_for(mpp)
    read_size = max(1, round(size / slide.levels[level].downsample))
    return TileGrid(coords, tile_size, size, step, mpp, level, read_size)


def read_tile(slide: Slide, grid: TileGrid, tile: int) -> np.ndarray:
    """One tile, (P, P, 3) uint8."""
    corner = tuple(grid.coords[tile].tolist())
    pixels = slide.read(corner, level=grid.level, shape=(grid.read_size, grid.read_size))
    if grid.read_size == grid.tile_size:
        return pixels
    side = (grid.tile_size, grid.tile_size)
    return np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BILINEAR))


def covered(mask: np.ndarray, shape: tuple[int, int], coords: np.ndarray, size: int) -> np.ndarray:
    """Which share of each tile a mask covers.

    Args:
        mask: (H, W) bool, of any size over the whole slide.
        shape: height and width of the slide at level 0.
        coords: (N, 2) x and y of the tiles at level 0.
        size: their side in pixels of level 0.

    Returns:
        (N,) shares from 0 to 1, exact for the mask; what hangs over the slide is not covered.
    """
    area = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    area[1:, 1:] = mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    rows, cols = mask.shape[0] / shape[0], mask.shape[1] / shape[1]  # mask pixels to one of level 0
    left, top = coords[:, 0], coords[:, 1]
    right, bottom = np.minimum(left + size, shape[1]), np.minimum(top + size, shape[0])

    def up_to(y: np.ndarray, x: np.ndarray) -> np.ndarray:  # linear between pixels, so exact
        return map_coordinates(area, [y * rows, x * cols], order=1, mode="nearest")

    inside = up_to(bottom, right) - up_to(top, right) - up_to(bottom, left) + up_to(top, left)
    return np.clip(inside / (size * rows * size * cols), 0, 1)
