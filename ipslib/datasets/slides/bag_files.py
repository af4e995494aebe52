"""Writing a bag of features: one HDF5 file a slide, in the layout of TRIDENT and CLAM."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

from ipslib.datasets.images.files import file_id, unreadable
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.tiles import TileGrid
from ipslib.errors import IpslibError

_MAGNIFICATION_MPP = 10.0  # 0.5 microns per pixel are called 20x
SETTINGS = "settings"  # attribute of the file: what the bag was made with, as JSON


def write_bag(
    path: Path,
    slide: Slide,
    grid: TileGrid,
    features: Iterable[np.ndarray],
    *,
    n_features: int,
    settings: Mapping[str, object],
    tumour: np.ndarray | None = None,
    min_tumour: float = 0.5,
) -> None:
    """Write a bag under a temporary name, and rename it when it is whole.

    `features` (N, D) float32 and `coords` (N, 2) int64 with TRIDENT's attributes; CLAM's
    `patch_level` and `downsample` stand beside them where tiles are pixels of a level. Where the
    tumour is known: `tumour_share` (N,) float32 and `patch_labels` (N,) uint8.

    Args:
        path: the file.
        slide, grid: where the tiles are.
        features: (n, D) blocks of rows, N in all, taken one after the other.
        n_features: D.
        settings: kept as JSON; see `read_settings`.
        tumour: (N,) share of each tile that is tumour.
        min_tumour: the share above which a patch counts as tumour.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    n_tiles = len(grid.coords)
    with h5py.File(part, "w") as file:
        rows = file.create_dataset("features", (n_tiles, n_features), np.float32)
        start = 0
        for block in features:
            rows[start : start + len(block)] = block
            start += len(block)
        if start != n_tiles:
            raise IpslibError(f"{path}: wanted features of {n_tiles} tiles, got {start}.")
        rows.attrs.update({"name": path.stem, "encoder": str(settings.get("backbone", ""))})
        coords = file.create_dataset("coords", data=grid.coords.astype(np.int64))
        coords.attrs.update(coords_attributes(slide, grid))
        if tumour is not None:
            file["tumour_share"] = tumour.astype(np.float32)
            file["patch_labels"] = (tumour > min_tumour).astype(np.uint8)
            file["patch_labels"].attrs["min_tumour"] = min_tumour
        file.attrs[SETTINGS] = json.dumps(dict(settings), sort_keys=True)
    part.replace(path)


def coords_attributes(slide: Slide, grid: TileGrid) -> dict[str, object]:
    """What users of TRIDENT and CLAM look up beside the coordinates."""
    height, width = slide.shape
    level = slide.levels[grid.level]
    attributes = {
        "patch_size": grid.tile_size,
        "patch_size_level0": grid.size_level0,
        "level0_magnification": round(_MAGNIFICATION_MPP / slide.mpp),
        "target_magnification": round(_MAGNIFICATION_MPP / grid.mpp, 2),
        "overlap": round((grid.size_level0 - grid.step_level0) / grid.size_level0 * grid.tile_size),
        "name": slide.name,
        "level0_width": width,
        "level0_height": height,
        "level0_mpp": slide.mpp,
        "mpp": grid.mpp,
    }
    if grid.read_size == grid.tile_size:  # CLAM reads patch_size pixels of patch_level
        attributes |= {
            "patch_level": grid.level,
            "downsample": [level.downsample, level.downsample],
            "downsampled_level_dim": list(level.shape[::-1]),
            "level_dim": list(level.shape[::-1]),
        }
    return attributes


def read_settings(path: Path) -> dict | None:
    """What a bag was made with; None where it does not say.

    Raises:
        IpslibError: when the file is missing or damaged.
    """
    try:
        with h5py.File(file_id(path).path, "r") as file:
            stored = file.attrs.get(SETTINGS)
    except OSError as error:
        raise unreadable(path, error, "remove it, so that it is made anew") from error
    return None if stored is None else json.loads(stored)
