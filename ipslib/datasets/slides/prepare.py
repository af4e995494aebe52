"""From slides to bags: tissue, tiles, features of a frozen network, one file a slide. A bag that is
there is kept if it was made of the same slide, annotations, settings and weights."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import attrs
import h5py
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.filters import apply_hysteresis_threshold, threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects
from torch import Tensor, nn
from tqdm import tqdm

from ipslib.config import OTHER_ENCODERS, OTHER_WEIGHTS, WEIGHTS, ModelConfig
from ipslib.datasets.images.image import file_id
from ipslib.datasets.slides.annotations import covered, read_asap, tumour_share
from ipslib.datasets.slides.bags import SETTINGS, open_bag_file
from ipslib.datasets.slides.camelyon16 import (
    NOT_EXHAUSTIVE,
    canonical_name,
    find_annotations,
    label_slides,
)
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.synthetic import is_synthetic
from ipslib.errors import IpslibError
from ipslib.fields import choice, integer, number
from ipslib.model.encoder import build_encoder, normalised, pixel_statistics
from ipslib.paths import changed_files, stamp
from ipslib.runtime import chosen_device, prefetched

_FAINT = 0.5  # of the threshold, for what hangs together with strongly stained tissue
_LEAST_AREA, _LEAST_PIXELS = 10_000.0, 8  # of an island of tissue: in µm², and of the mask
_MASK_PIXELS = 2**20  # of an overview that is looked at more finely
_LEAST_SATURATION = 0.05  # Otsu splits noise too: a slide of glass alone has no tissue
_DARKEST = 30  # of 255: padding is black, and its noise would count as strong colour
_FINEST = 0.95  # of the slide's own microns per pixel; finer tiles would be invented
_MAGNIFICATION_MPP = 10.0  # 0.5 microns per pixel are called 20x


@attrs.frozen(kw_only=True)
class TileConfig:
    """How slides are cut."""

    tile_size: int = integer(256, at_least=8)  # px
    mpp: float = number(0.5, at_least=0.05, at_most=20.0)  # microns per pixel; 0.5 is called 20x
    overlap: int = integer(0, at_least=0)  # of neighbours, in px of a tile
    min_tissue: float = number(0.1, at_most=1.0)  # share of a tile; 0 keeps those with any
    mask_mpp: float = number(8.0, at_least=0.5, at_most=64.0)  # of the tissue mask
    min_tumour: float = number(0.5, at_most=1.0)  # share above which a patch is tumour

    def __attrs_post_init__(self) -> None:
        if self.overlap >= self.tile_size:
            raise IpslibError(
                f"overlap: wanted 0 to {self.tile_size - 1} px, got {self.overlap}; a tile has "
                f"{self.tile_size}."
            )


class TileGrid(NamedTuple):
    """N tiles of a slide, row by row."""

    coords: np.ndarray  # (N, 2) x and y of the top-left corner, pixels of level 0
    config: TileConfig
    size_level0: int  # side in pixels of level 0
    step_level0: int  # from one tile to the next
    level: int  # that they are read from
    read_size: int  # side in pixels of that level, resized to the config's


def find_tissue(slide: Slide, mpp: float = 8.0) -> np.ndarray:
    """Where a slide holds tissue, (H, W) bool, looked for at this many microns per pixel, and, so
    that a tiny piece is seen too, more finely where nothing is found."""
    height, width = slide.shape
    mpp = max(mpp, slide.mpp)
    finest = slide.mpp * max(1.0, (height * width / _MASK_PIXELS) ** 0.5)
    tissue = tissue_mask(slide.overview(mpp), mpp)
    if not tissue.any() and finest < mpp:
        return tissue_mask(slide.overview(finest), finest)
    return tissue


def tissue_mask(image: np.ndarray, mpp: float) -> np.ndarray:
    """Find tissue, which has colour where glass and a scanner's padding have none.

    Otsu's threshold on saturation: pixels above it are tissue, and so are those above half of it
    that hang together with them. It is the slide's own, so that pale slides keep theirs. Islands
    of less than 10 000 µm² are dropped, where there are larger ones, and holes as small filled.

    Args:
        image: (H, W, 3) uint8, the slide at a low resolution.
        mpp: its microns per pixel.
    """
    smooth = gaussian_filter(image, sigma=(1, 1, 0))
    strongest = smooth.max(axis=2).astype(np.float32)
    saturation = (strongest - smooth.min(axis=2)) / np.maximum(strongest, 1)  # that of HSV
    saturation[strongest < _DARKEST] = 0
    threshold = max(threshold_otsu(saturation), _LEAST_SATURATION)
    mask = apply_hysteresis_threshold(saturation, _FAINT * threshold, threshold)
    n_pixels = int(_LEAST_AREA / mpp**2)
    large = remove_small_objects(mask, max_size=n_pixels)
    mask = large if large.any() else remove_small_objects(mask, max_size=_LEAST_PIXELS)
    return remove_small_holes(mask, max_size=n_pixels) if mask.any() else mask


def lay_tiles(slide: Slide, tissue: np.ndarray, config: TileConfig) -> TileGrid:
    """Lay a grid of tiles over the tissue of a slide, (H, W) bool.

    A tile is read from the coarsest level that is fine enough and then resized: sizes follow
    microns per pixel, never a level or a magnification. Tiles begin at the slide's corner and
    may hang over its right and lower edges, where they are white. Of tissue that is smaller than a
    tile each tile with any is kept. IpslibError when none holds enough, or the slide is too coarse.
    """
    if config.mpp < slide.mpp * _FINEST:
        raise IpslibError(
            f"{slide.path}: wanted {config.mpp:g} microns per pixel, got a slide of "
            f"{slide.mpp:.3g}; choose a coarser mpp."
        )
    scale = config.mpp / slide.mpp
    size = round(config.tile_size * scale)
    step = max(1, round((config.tile_size - config.overlap) * scale))
    height, width = slide.shape
    y, x = np.meshgrid(np.arange(0, height, step), np.arange(0, width, step), indexing="ij")
    coords = np.stack([x.ravel(), y.ravel()], axis=1)
    share = covered(tissue, slide.shape, coords, size)
    is_tiny = tissue.mean() * height * width < size**2  # all tissue is less than a tile
    coords = coords[(share >= config.min_tissue * (not is_tiny)) & (share > 0)]
    if not len(coords):
        raise IpslibError(
            f"{slide.path}: wanted tiles that are tissue to {config.min_tissue:.0%}, found none of "
            f"{len(share)}; lower min_tissue, choose smaller tiles, or leave a slide of glass out."
        )
    level = slide.level_for(config.mpp)
    read_size = max(1, round(size / slide.levels[level].downsample))
    return TileGrid(coords, config, size, step, level, read_size)


def read_tile(slide: Slide, grid: TileGrid, tile: int) -> np.ndarray:
    """One tile, (P, P, 3) uint8."""
    corner = tuple(grid.coords[tile].tolist())
    pixels = slide.read(corner, level=grid.level, shape=(grid.read_size, grid.read_size))
    if grid.read_size == grid.config.tile_size:
        return pixels
    side = (grid.config.tile_size, grid.config.tile_size)
    return np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BILINEAR))


@attrs.frozen(kw_only=True)
class BackboneConfig:
    """A backbone by name, as the encoder of a network is named. Three stages of a ResNet-50 are
    CLAM's truncated one, D = 1024.

    `weights: none` is a random network, the same for one seed: it keeps colour and texture, so it
    does for synthetic slides, and for nothing else.
    """

    backbone: str = choice("resnet50", ("resnet18", "resnet50"), **OTHER_ENCODERS)
    weights: str = choice("imagenet_v1", WEIGHTS, **OTHER_WEIGHTS)
    n_stages: int = integer(4, at_most=4)
    seed: int = integer(0, at_least=0)  # of random weights


class Backbone(nn.Module):
    """Tiles (n, P, P, 3) uint8 to features (n, D) float32, without gradient, normalised as the
    images of its weights; IpslibError where these are neither cached nor downloadable."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        model = ModelConfig(
            encoder=config.backbone, weights=config.weights, n_stages=config.n_stages
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            layers = build_encoder(model, in_channels=3)
        # Behind ResNet-50 stands a random projection.
        self.layers = layers[:-1] if config.backbone == "resnet50" else layers
        self.requires_grad_(False).eval()
        if "/" not in config.backbone:
            self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        images = tiles.to(next(self.parameters()).device).permute(0, 3, 1, 2)  # (n, 3, P, P)
        return self.layers(normalised(images, pixel_statistics(self.layers))).float()

    def sha256(self) -> str:
        """Of all its weights."""
        digest = hashlib.sha256()
        for value in self.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Prepared(NamedTuple):
    """What became of the slides, by name."""

    made: list[str]
    reused: list[str]
    skipped: dict[str, str]  # slide: a sentence that says why
    changed: dict[str, str]  # of those made, the ones that were there: what has changed since


def prepare_slides(
    slides: Mapping[str, Path],
    out: str | Path,
    *,
    tiles: TileConfig | None = None,
    backbone: BackboneConfig | None = None,
    annotations: Mapping[str, Path | None] | None = None,
    groups: Mapping[str, bool | None] | None = None,
    slide_mpp: float | None = None,
    reader: str = "auto",
    batch_size: int = 64,
    workers: int = 2,
    device: str = "cpu",
    progress: bool = True,
) -> Prepared:
    """Write a bag for each slide, {name: file}, to `<out>/<name>.h5`.

    A bag is kept if slide, annotations, settings and weights are what it was made of, by content.
    If only annotations have changed its patches are labelled anew, else the bag is made anew, and
    so is one that was interrupted. A slide that cannot be prepared is left out with its reason,
    and the rest goes on.

    Args:
        annotations: {name: file of ASAP, or None for a slide known to hold no tumour}; patches of
            other slides get no labels.
        groups: of annotations, as of `read_asap`.
        slide_mpp, reader: as of `Slide`.
        batch_size: tiles that are encoded together.
        workers: threads that read tiles.
        progress: whether to show bars, or in a log a line a slide.

    Raises:
        IpslibError: when the folder holds bags of other settings or weights, or the weights or the
            device are missing.
    """
    out, device, annotations = Path(out), chosen_device(device), annotations or {}
    tiles, backbone = tiles or TileConfig(), backbone or BackboneConfig()
    network = Backbone(backbone).to(device)
    shared = attrs.asdict(tiles) | attrs.asdict(backbone) | {"weights_sha256": network.sha256()}
    made, reused, skipped, changed = [], [], {}, {}
    bags = {name: out / f"{name}.h5" for name in slides}
    before = {name: _recipe_of(bag, shared) for name, bag in bags.items() if bag.is_file()}
    hidden = None if progress else True  # None: where there is no terminal
    bar = tqdm(slides.items(), "slides", unit="slide", disable=hidden, dynamic_ncols=True)
    for n_done, (name, path) in enumerate(bar, start=1):
        try:
            slide, old = Slide(path, mpp=slide_mpp, reader=reader), before.get(name, {})
            file, is_annotated = annotations.get(name), name in annotations
            recipe = shared | _recipe(slide, old.get("slide", {}), file, is_annotated, groups or {})
            features = _changes(old, recipe, "slide", "slide_mpp")
            labels = _changes(old, recipe, "annotations", "annotated", "groups")
            grid, blocks = None, ()
            if features:
                grid = lay_tiles(slide, find_tissue(slide, tiles.mask_mpp), tiles)
                blocks = encoded(slide, grid, network, batch_size, workers, progress)
            if features or labels:
                _write_bag(bags[name], slide, recipe, file, grid, blocks)
                made.append(name)
                changed |= {name: ", ".join(features + labels)} if old else {}
            else:
                reused.append(name)
        except (IpslibError, OSError) as error:
            skipped[name] = f"{name}: {error}" if isinstance(error, OSError) else str(error)
            skipped[name] += " A bag made before is still there." * (name in before)
        if progress and bar.disable:  # a log gets a line a slide
            print(f"{name}: {n_done} of {len(slides)} slides", file=sys.stderr, flush=True)
    return Prepared(made, reused, skipped, changed)


def known_annotations(
    slides: Mapping[str, Path], folder: str | Path | None, table: Mapping[str, int]
) -> dict[str, Path | None]:
    """Slides, {name: file}, of which is known where all their tumour is: {name: file of ASAP below
    the folder, or None for a normal one}; without those not outlined exhaustively. The table, as of
    `read_labels`, is for slides whose name says nothing."""
    files = {} if folder is None else find_annotations(folder)
    labels = label_slides(slides, table)[0]
    known = {}
    for name in slides:
        official = canonical_name(name)
        if official not in NOT_EXHAUSTIVE and (official in files or labels.get(name) == 0):
            known[name] = files.get(official)
    return known


def encoded(
    slide: Slide, grid: TileGrid, network: Backbone, batch_size: int, workers: int, progress: bool
) -> Iterator[np.ndarray]:
    """Features of a slide's tiles, (n, D) blocks in order; tiles are read ahead."""
    n_tiles, hidden = len(grid.coords), None if progress else True
    bar = tqdm(total=n_tiles, desc=slide.name, unit="tile", leave=False, disable=hidden)
    with ThreadPoolExecutor(workers, thread_name_prefix="tiles") as pool, bar:

        def read(batch: np.ndarray) -> torch.Tensor:
            pixels = list(pool.map(partial(read_tile, slide, grid), batch.tolist()))
            return torch.from_numpy(np.stack(pixels))

        batches = np.array_split(np.arange(n_tiles), -(-n_tiles // batch_size))
        for pixels in prefetched(read, batches):
            yield network(pixels).cpu().numpy()
            bar.update(len(pixels))


def _recipe(
    slide: Slide, stamps: Mapping, file: Path | None, is_annotated: bool, groups: Mapping
) -> dict[str, object]:
    """What one bag is made of, beside what all of a folder share; stamps are known ones."""
    files = [slide.path]
    if slide.path.suffix.lower() == ".mrxs":  # its pixels lie in a folder beside it
        files += sorted(slide.path.with_suffix("").iterdir())
    return {
        "slide_mpp": None if slide.states_mpp else slide.mpp,
        "is_standin": is_synthetic(slide.path.parent),
        "slide": {each.name: stamp(each, stamps.get(each.name)) for each in files},
        "annotations": {} if file is None else {file.name: stamp(file_id(file).path)},
        "annotated": is_annotated,
        "groups": dict(groups) if is_annotated else {},
    }


def _recipe_of(bag: Path, shared: Mapping[str, object]) -> dict:
    """What a bag was made of, which is as all of its folder are to be."""
    with open_bag_file(bag) as file:
        stored = json.loads(file.attrs.get(SETTINGS, "{}"))
    other = {name: stored.get(name) for name, value in shared.items() if stored.get(name) != value}
    if other:
        wanted = {name: shared[name] for name in other}
        raise IpslibError(
            f"{bag}: wanted a bag of {wanted}, got one of {other}; choose another folder, or "
            "remove the bags."
        )
    return stored


def _changes(before: Mapping, now: Mapping, files: str, *fields: str) -> list[str]:
    """What a bag was not made of, or is no longer: some of its files, and fields."""
    changed = [field for field in fields if before.get(field) != now[field]]
    return changed_files(before.get(files, {}), now[files]) + changed


def _tumour_of(
    slide: Slide, coords: np.ndarray, size: int, file: Path | None, groups: Mapping
) -> np.ndarray:
    """Share of each tile that is tumour, (N,)."""
    if file is None:
        return np.zeros(len(coords))
    outlines, (height, width) = read_asap(file, groups=groups), slide.shape
    inside = [
        (points.max(0) > (0, 0)).all() and (points.min(0) < (width, height)).all()
        for points in outlines.tumour
    ]
    if not (inside and all(inside)):
        raise IpslibError(
            f"{file}: wanted outlines of tumour on the slide of {width} x {height} px, got "
            f"{len(inside)}, of which {sum(inside)} lie on it; remove the file of a slide without "
            "tumour, or correct it."
        )
    return tumour_share(outlines, slide.shape, coords, size)


def _write_bag(
    path: Path,
    slide: Slide,
    recipe: Mapping[str, object],
    annotations: Path | None,
    grid: TileGrid | None,
    blocks: Iterable[np.ndarray],
) -> None:
    """Write a bag, one HDF5 file in the layout of TRIDENT and CLAM, under a temporary name, and
    rename it when it is whole; without a grid the one that is there, with other labels.

    `features` (N, D) float32, of blocks (n, D), and `coords` (N, 2) int64 with TRIDENT's
    attributes. Where the tumour is known: `tumour_share` (N,) float32, `patch_labels` (N,) uint8.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if grid is None:
        shutil.copyfile(path, part)
    with h5py.File(part, "r+" if grid is None else "w") as file:
        if grid is not None:
            file["coords"] = grid.coords.astype(np.int64)
            file["coords"].attrs.update(_coords_attributes(slide, grid))
        for name in {"tumour_share", "patch_labels"} & set(file):
            del file[name]
        if recipe["annotated"]:
            coords, size = file["coords"][:], int(file["coords"].attrs["patch_size_level0"])
            tumour = _tumour_of(slide, coords, size, annotations, recipe["groups"])
            file["tumour_share"] = tumour.astype(np.float32)
            file["patch_labels"] = (tumour > recipe["min_tumour"]).astype(np.uint8)
            file["patch_labels"].attrs["min_tumour"] = recipe["min_tumour"]
        start = 0
        for block in blocks:
            if not np.isfinite(block).all():
                raise IpslibError(f"{slide.path}: wanted numbers as features, got NaN or infinity.")
            shape = len(grid.coords), block.shape[1]
            rows = file.require_dataset("features", shape, np.float32)
            rows[start : start + len(block)] = block
            start += len(block)
        file["features"].attrs.update({"name": path.stem, "encoder": str(recipe["backbone"])})
        file.attrs[SETTINGS] = json.dumps(dict(recipe), sort_keys=True)
    part.replace(path)


def _coords_attributes(slide: Slide, grid: TileGrid) -> dict[str, object]:
    """What users of TRIDENT and CLAM look up beside the coordinates."""
    height, width = slide.shape
    tile_size, level = grid.config.tile_size, slide.levels[grid.level]
    attributes = {
        "patch_size": tile_size,
        "patch_size_level0": grid.size_level0,
        "level0_magnification": round(_MAGNIFICATION_MPP / slide.mpp),
        "target_magnification": round(_MAGNIFICATION_MPP / grid.config.mpp, 2),
        "overlap": round((grid.size_level0 - grid.step_level0) / grid.size_level0 * tile_size),
        "name": slide.name,
        "level0_width": width,
        "level0_height": height,
        "level0_mpp": slide.mpp,
        "mpp": grid.config.mpp,
    }
    if grid.read_size == tile_size:  # CLAM reads patch_size pixels of patch_level
        dims, scales = list(level.shape[::-1]), [level.downsample] * 2
        attributes |= {"patch_level": grid.level, "downsample": scales}
        attributes |= {"downsampled_level_dim": dims, "level_dim": dims}
    return attributes
