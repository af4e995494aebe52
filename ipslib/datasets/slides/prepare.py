"""From slides to bags: tissue, tiles, features, one file a slide; finished slides are skipped."""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch
from tqdm import tqdm

from ipslib.datasets.slides.annotations import Outlines, read_asap, tumour_share
from ipslib.datasets.slides.bag_files import read_settings, write_bag
from ipslib.datasets.slides.camelyon16 import (
    NOT_EXHAUSTIVE,
    canonical_name,
    find_annotations,
    label_slides,
)
from ipslib.datasets.slides.features import Backbone, BackboneConfig
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.tiles import TileGrid, lay_tiles, read_tile
from ipslib.datasets.slides.tissue import MASK_MPP, tissue_mask
from ipslib.datasets.synthetic import is_synthetic
from ipslib.errors import IpslibError
from ipslib.fields import integer, number
from ipslib.runtime import chosen_device, prefetched


@attrs.frozen(kw_only=True)
class TileConfig:
    """How slides are cut."""

    tile_size: int = integer(256, at_least=8)  # px
    mpp: float = number(0.5, at_least=0.05, at_most=20.0)  # microns per pixel of the tiles
    overlap: int = integer(0, at_least=0)  # px of a tile
    min_tissue: float = number(0.1, at_most=1.0)  # share of a tile
    mask_mpp: float = number(MASK_MPP, at_least=0.5, at_most=64.0)  # of the tissue mask
    min_tumour: float = number(0.5, at_most=1.0)  # share above which a patch is tumour


class Prepared(NamedTuple):
    """What became of the slides, by name."""

    made: list[str]
    reused: list[str]
    skipped: dict[str, str]  # slide: a sentence that says why


def prepare_slides(
    slides: Mapping[str, Path],
    out: str | Path,
    *,
    tiles: TileConfig | None = None,
    backbone: BackboneConfig | None = None,
    annotations: Mapping[str, Path | None] | None = None,
    slide_mpp: float | None = None,
    reader: str = "auto",
    batch_size: int = 64,
    workers: int = 2,
    device: str = "cpu",
    progress: bool = True,
) -> Prepared:
    """Write a bag for each slide to `<out>/<slide>.h5`.

    A bag that is there is not made again; one that was interrupted is. A slide that cannot be
    prepared is left out with its reason, and the rest goes on.

    Args:
        slides: {name: file}.
        out: folder of the bags.
        tiles, backbone: settings.
        annotations: {name: file of ASAP, or None for a slide known to hold no tumour}; patches of
            other slides get no labels.
        slide_mpp: microns per pixel of level 0, for slides that do not say.
        reader: of the slides, see `Slide`.
        batch_size: tiles that are encoded together.
        workers: threads that read tiles.
        device: of the backbone.
        progress: whether to show bars.

    Raises:
        IpslibError: when the folder holds bags of other settings, or the weights or the device are
            missing.
    """
    out, annotations, device = Path(out), dict(annotations or {}), chosen_device(device)
    tiles, backbone = tiles or TileConfig(), backbone or BackboneConfig()
    made, reused, skipped = [], [], {}
    missing = {}
    for name, path in slides.items():
        settings = _settings(tiles, backbone, slide_mpp, path)
        if (out / f"{name}.h5").is_file():
            _check_settings(out / f"{name}.h5", settings)
            reused.append(name)
        else:
            missing[name] = (path, settings)
    network = Backbone(backbone).to(device) if missing else None
    hidden = None if progress else True  # None: where there is no terminal
    bar = tqdm(missing.items(), "slides", unit="slide", disable=hidden, dynamic_ncols=True)
    for n_done, (name, (path, settings)) in enumerate(bar, start=1):
        try:
            slide = Slide(path, mpp=slide_mpp, reader=reader)
            grid = _tiles_of(slide, tiles)
            tumour = _tumour_of(slide, grid, annotations[name]) if name in annotations else None
            blocks = encoded(slide, grid, network, batch_size, workers, progress)
            write_bag(
                out / f"{name}.h5", slide, grid, blocks, n_features=backbone.n_features,
                settings=settings, tumour=tumour, min_tumour=tiles.min_tumour,
            )  # fmt: skip
            made.append(name)
        except IpslibError as error:
            skipped[name] = str(error)
        if progress and bar.disable:  # a log gets a line a slide
            print(f"{name}: {n_done} of {len(missing)} slides", file=sys.stderr, flush=True)
    return Prepared(made, reused, skipped)


def known_annotations(
    slides: Mapping[str, Path], folder: str | Path | None, table: Mapping[str, int]
) -> dict[str, Path | None]:
    """Slides of which is known where all their tumour is.

    Args:
        slides: {name: file}.
        folder: of ASAP's XML; None where there is none.
        table: labels as of `read_labels`, for slides whose name says nothing.

    Returns:
        {slide: file, or None for a normal one}; without those not outlined exhaustively.
    """
    files = {} if folder is None else find_annotations(folder)
    labels = label_slides(slides, table).labels
    known: dict[str, Path | None] = {}
    for name in slides:
        official = canonical_name(name)
        if official in NOT_EXHAUSTIVE:
            continue
        if official in files:
            known[name] = files[official]
        elif labels.get(name) == 0:
            known[name] = None
    return known


def encoded(
    slide: Slide,
    grid: TileGrid,
    network: Backbone,
    batch_size: int = 64,
    workers: int = 2,
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """Features of a slide's tiles, (n, D) blocks in order; tiles are read ahead."""
    batches = np.array_split(np.arange(len(grid.coords)), -(-len(grid.coords) // batch_size))
    hidden = None if progress else True
    bar = tqdm(total=len(grid.coords), desc=slide.name, unit="tile", leave=False, disable=hidden)
    with ThreadPoolExecutor(workers, thread_name_prefix="tiles") as pool, bar:

        def read(batch: np.ndarray) -> torch.Tensor:
            pixels = list(pool.map(partial(read_tile, slide, grid), batch.tolist()))
            return torch.from_numpy(np.stack(pixels))

        for pixels in prefetched(read, batches):
            yield network(pixels).cpu().numpy()
            bar.update(len(pixels))


def _tiles_of(slide: Slide, config: TileConfig) -> TileGrid:
    mask_mpp = max(config.mask_mpp, slide.mpp)
    tissue = tissue_mask(slide.overview(mask_mpp), mask_mpp, name=slide.name)
    return lay_tiles(
        slide, tissue, tile_size=config.tile_size, mpp=config.mpp, overlap=config.overlap,
        min_tissue=config.min_tissue,
    )  # fmt: skip


def _tumour_of(slide: Slide, grid: TileGrid, annotation: Path | None) -> np.ndarray:
    outlines = Outlines([], []) if annotation is None else read_asap(annotation)
    return tumour_share(outlines, slide.shape, grid.coords, grid.size_level0)


def _settings(
    tiles: TileConfig, backbone: BackboneConfig, slide_mpp: float | None, path: Path
) -> dict:
    settings = attrs.asdict(tiles) | attrs.asdict(backbone) | {"slide_mpp": slide_mpp}
    return settings | {"is_standin": is_synthetic(path.parent)}


def _check_settings(path: Path, wanted: dict) -> None:
    stored = read_settings(path)
    if stored != wanted:
        other = {k: v for k, v in (stored or {}).items() if wanted.get(k) != v}
        raise IpslibError(
            f"{path}: wanted a bag of the settings asked for, got one of {other or 'none known'}; "
            "choose another folder, or remove the bags."
        )
