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

from ipslib.config import ModelConfig
from ipslib.datasets.images.image import file_id
from ipslib.datasets.slides.annotations import Outlines, covered, read_asap, tumour_share
from ipslib.datasets.slides.bags import SETTINGS, open_hdf5
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
from ipslib.model.encoder import build_encoder, normalised
from ipslib.paths import changed_files, stamp
from ipslib.runtime import chosen_device, prefetched

_FAINT = 0.5  # of the threshold, for what hangs together with strongly stained tissue
_LEAST_AREA, _LEAST_PIXELS = 10_000.0, 8  # of an island of tissue: in µm², and of the mask
_MASK_PIXELS = 2**20  # of an overview that is looked at more finely
_LEAST_SATURATION = 0.05  # Otsu splits noise too: a slide of glass alone has no tissue
_DARKEST = 30  # of 255: padding is black, and its noise would count as strong colour
_FINEST = 0.95  # of the slide's own microns per pixel; finer tiles would be invented
_MAGNIFICATION_MPP = 10.0  # 0.5 microns per pixel are called 20x
OfTumour = tuple[Path | None, Mapping[str, bool | None] | None]  # file of ASAP, and its groups


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
    tile_size: int  # side in pixels, as a network sees it
    size_level0: int  # side in pixels of level 0
    step_level0: int  # from one tile to the next
    mpp: float  # microns per pixel of the tiles
    level: int  # that they are read from
    read_size: int  # side in pixels of that level, resized to tile_size


def find_tissue(slide: Slide, mpp: float = 8.0) -> np.ndarray:
    """Where a slide holds tissue, (H, W) bool, looked for at this many microns per pixel, and, so
    that a tiny piece is seen too, more finely where nothing is found."""
    height, width = slide.shape
    finest = slide.mpp * max(1.0, (height * width / _MASK_PIXELS) ** 0.5)
    mpp = max(mpp, slide.mpp)
    try:
        return tissue_mask(slide.overview(mpp), mpp, name=slide.name)
    except IpslibError:
        if finest >= mpp:
            raise
        return tissue_mask(slide.overview(finest), finest, name=slide.name)


def tissue_mask(image: np.ndarray, mpp: float, *, name: str = "slide") -> np.ndarray:
    """Find tissue, which has colour where glass and a scanner's padding have none.

    Otsu's threshold on saturation: pixels above it are tissue, and so are those above half of it
    that hang together with them. It is the slide's own, so that pale slides keep theirs. Islands
    of less than 10 000 µm² are dropped, where there are larger ones, and holes as small filled.

    Args:
        image: (H, W, 3) uint8, the slide at a low resolution.
        mpp: its microns per pixel.
        name: what errors call the slide.

    Returns:
        (H, W) bool.

    Raises:
        IpslibError: when nothing is found.
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
    if not mask.any():
        raise IpslibError(
            f"{name}: wanted tissue, found none that is stained (saturation up to "
            f"{saturation.max():.2f}); leave the slide out."
        )
    return remove_small_holes(mask, max_size=n_pixels)


def lay_tiles(slide: Slide, tissue: np.ndarray, config: TileConfig) -> TileGrid:
    """Lay a grid of tiles over the tissue of a slide.

    A tile is read from the coarsest level that is fine enough and then resized: sizes follow
    microns per pixel, never a level or a magnification. Tiles begin at the slide's corner and
    may hang over its right and lower edges, where they are white.

    Args:
        slide: the slide.
        tissue: (H, W) bool, over the whole slide.
        config: sizes, and how much of a tile is tissue; of tissue that is smaller than a tile
            each with any is kept.

    Raises:
        IpslibError: when no tile holds enough tissue, or the slide is too coarse.
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
            f"{slide.path}: wanted tiles that are tissue to {config.min_tissue:.0%}, found none; "
            "lower min_tissue, or choose smaller tiles."
        )
    level = slide.level_for(config.mpp)
    read_size = max(1, round(size / slide.levels[level].downsample))
    return TileGrid(coords, config.tile_size, size, step, config.mpp, level, read_size)


def read_tile(slide: Slide, grid: TileGrid, tile: int) -> np.ndarray:
    """One tile, (P, P, 3) uint8."""
    corner = tuple(grid.coords[tile].tolist())
    pixels = slide.read(corner, level=grid.level, shape=(grid.read_size, grid.read_size))
    if grid.read_size == grid.tile_size:
        return pixels
    side = (grid.tile_size, grid.tile_size)
    return np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BILINEAR))


@attrs.frozen(kw_only=True)
class BackboneConfig:
    """A backbone by name. Three stages of a ResNet-50 are CLAM's truncated one, D = 1024.

    `weights: none` is a random network, the same for one seed: it keeps colour and texture, so it
    does for synthetic slides, and for nothing else.
    """

    backbone: str = choice("resnet50", ("resnet18", "resnet50"))
    weights: str = choice("imagenet_v1", ("imagenet_v1", "imagenet_v2", "none"))
    n_stages: int = integer(4, at_most=4)
    seed: int = integer(0, at_least=0)  # of random weights


class Backbone(nn.Module):
    """Tiles (n, P, P, 3) uint8 to features (n, D) float32, without gradient, behind ImageNet's
    normalisation.

    Raises:
        IpslibError: where pretrained weights are neither cached nor downloadable.
    """

    def __init__(self, config: BackboneConfig):
        super().__init__()
        model = ModelConfig(
            encoder=config.backbone, weights=config.weights, n_stages=config.n_stages
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            layers = build_encoder(model, in_channels=3)
        is_projected = isinstance(layers[-1], nn.Linear)  # a random one, behind ResNet-50
        self.layers = layers[:-1] if is_projected else layers
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        images = tiles.to(next(self.parameters()).device).permute(0, 3, 1, 2)  # (n, 3, P, P)
        return self.layers(normalised(images)).float()

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
    """Write a bag for each slide to `<out>/<slide>.h5`.

    A bag is kept if slide, annotations, settings and weights are what it was made of, by content.
    If only annotations have changed its patches are labelled anew, else the bag is made anew, and
    so is one that was interrupted. A slide that cannot be prepared is left out with its reason,
    and the rest goes on.

    Args:
        slides: {name: file}.
        out: folder of the bags.
        tiles, backbone: settings.
        annotations: {name: file of ASAP, or None for a slide known to hold no tumour}; patches of
            other slides get no labels.
        groups: of annotations, see `read_asap`.
        slide_mpp: microns per pixel of level 0, for slides that do not say.
        reader: of the slides, see `Slide`.
        batch_size: tiles that are encoded together.
        workers: threads that read tiles.
        device: of the backbone.
        progress: whether to show bars.

    Raises:
        IpslibError: when the folder holds bags of other settings or weights, or the weights or the
            device are missing.
    """
    out, device, known = Path(out), chosen_device(device), dict(annotations or {})
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
            slide = Slide(path, mpp=slide_mpp, reader=reader)
            of_tumour = (known[name], groups) if name in known else None
            recipe = _recipe(slide, of_tumour, before.get(name, {})) | shared
            features, labels = _changes(before.get(name), recipe)
            if features:
                grid = lay_tiles(slide, find_tissue(slide, tiles.mask_mpp), tiles)
                tumour = of_tumour and _tumour_of(slide, grid.coords, grid.size_level0, *of_tumour)
                blocks = encoded(slide, grid, network, batch_size, workers, progress)
                write_bag(bags[name], slide, grid, blocks, recipe=recipe, tumour=tumour)
            elif labels:
                _label_anew(bags[name], slide, of_tumour, recipe)
            (made if features or labels else reused).append(name)
            if name in before and (features or labels):
                changed[name] = ", ".join(features + labels)
        except (IpslibError, OSError) as error:
            skipped[name] = f"{name}: {error}" if isinstance(error, OSError) else str(error)
            skipped[name] += " A bag made before is still there." * (name in before)
        if progress and bar.disable:  # a log gets a line a slide
            print(f"{name}: {n_done} of {len(slides)} slides", file=sys.stderr, flush=True)
    return Prepared(made, reused, skipped, changed)


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
    official = {name: canonical_name(name) for name in slides}
    return {
        name: files.get(known)
        for name, known in official.items()
        if known not in NOT_EXHAUSTIVE and (known in files or labels.get(name) == 0)
    }


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


def _recipe(slide: Slide, of_tumour: OfTumour | None, before: Mapping) -> dict[str, object]:
    """What one bag is made of, beside what all of a folder share."""
    files = [slide.path]
    if slide.path.suffix.lower() == ".mrxs":  # its pixels lie in a folder beside it
        files += sorted(slide.path.with_suffix("").iterdir())
    known = before.get("slide", {})
    file, groups = of_tumour or (None, None)
    return {
        "slide_mpp": None if slide.states_mpp else slide.mpp,
        "is_standin": is_synthetic(slide.path.parent),
        "slide": {each.name: stamp(each, known.get(each.name)) for each in files},
        "annotations": {} if file is None else {file.name: stamp(file_id(file).path)},
        "annotated": of_tumour is not None,
        "groups": dict(groups or {}),
    }


def _recipe_of(bag: Path, shared: Mapping[str, object]) -> dict:
    """What a bag was made of, which is as all of its folder are to be."""
    with open_hdf5(bag) as file:
        stored = json.loads(file.attrs.get(SETTINGS, "{}"))
    other = {name: stored.get(name) for name, value in shared.items() if stored.get(name) != value}
    if other:
        wanted = {name: shared[name] for name in other}
        raise IpslibError(
            f"{bag}: wanted a bag of {wanted}, got one of {other}; choose another folder, or "
            "remove the bags."
        )
    return stored


def _changes(before: Mapping | None, now: Mapping) -> tuple[list[str], list[str]]:
    """What a bag was not made of, or is no longer: of its features, and of its patch labels."""
    if before is None:
        return list(now["slide"]), []
    features = changed_files(before["slide"], now["slide"])
    features += ["slide_mpp"] * (before["slide_mpp"] != now["slide_mpp"])
    labels = changed_files(before["annotations"], now["annotations"])
    labels += [what for what in ("annotated", "groups") if before[what] != now[what]]
    return features, labels


def _tumour_of(
    slide: Slide, coords: np.ndarray, size: int, file: Path | None, groups: Mapping | None
) -> np.ndarray:
    """Share of each tile that is tumour, (N,)."""
    outlines = Outlines([], []) if file is None else read_asap(file, groups=groups)
    height, width = slide.shape
    inside = [
        (points.max(0) > (0, 0)).all() and (points.min(0) < (width, height)).all()
        for points in outlines.tumour
    ]
    if file is not None and not (inside and all(inside)):
        raise IpslibError(
            f"{file}: wanted outlines of tumour on the slide of {width} x {height} px, got "
            f"{len(inside)}, of which {sum(inside)} lie on it; remove the file of a slide without "
            "tumour, or correct it."
        )
    return tumour_share(outlines, slide.shape, coords, size)


def write_bag(
    path: Path,
    slide: Slide,
    grid: TileGrid,
    features: Iterable[np.ndarray],
    *,
    recipe: Mapping[str, object],
    tumour: np.ndarray | None = None,
) -> None:
    """Write a bag, one HDF5 file in the layout of TRIDENT and CLAM, under a temporary name, and
    rename it when it is whole.

    `features` (N, D) float32 and `coords` (N, 2) int64 with TRIDENT's attributes; CLAM's
    `patch_level` and `downsample` stand beside them where tiles are pixels of a level. Where the
    tumour is known: `tumour_share` (N,) float32 and `patch_labels` (N,) uint8.

    Args:
        path: the file.
        slide, grid: where the tiles are.
        features: (n, D) blocks of rows, N in all, taken one after the other.
        recipe: what the bag is made of, kept as JSON.
        tumour: (N,) share of each tile that is tumour.

    Raises:
        IpslibError: for features that are no numbers.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(part, "w") as file:
        rows, start = None, 0
        for block in features:
            if rows is None:
                shape = len(grid.coords), block.shape[1]
                rows = file.create_dataset("features", shape, np.float32)
            if not np.isfinite(block).all():
                raise IpslibError(f"{slide.path}: wanted numbers as features, got NaN or infinity.")
            rows[start : start + len(block)] = block
            start += len(block)
        rows.attrs.update({"name": path.stem, "encoder": str(recipe.get("backbone", ""))})
        coords = file.create_dataset("coords", data=grid.coords.astype(np.int64))
        coords.attrs.update(_coords_attributes(slide, grid))
        _write_labels(file, tumour, recipe)
    part.replace(path)


def _label_anew(path: Path, slide: Slide, of_tumour: OfTumour | None, recipe: Mapping) -> None:
    """Write a bag with other labels of its patches, as `write_bag` does."""
    part = path.with_name(path.name + ".part")
    shutil.copyfile(path, part)
    with h5py.File(part, "r+") as file:
        coords, size = file["coords"][:], int(file["coords"].attrs["patch_size_level0"])
        tumour = of_tumour and _tumour_of(slide, coords, size, *of_tumour)
        for name in {"tumour_share", "patch_labels"} & set(file):
            del file[name]
        _write_labels(file, tumour, recipe)
    part.replace(path)


def _write_labels(file: h5py.File, tumour: np.ndarray | None, recipe: Mapping) -> None:
    if tumour is not None:
        file["tumour_share"] = tumour.astype(np.float32)
        file["patch_labels"] = (tumour > recipe["min_tumour"]).astype(np.uint8)
        file["patch_labels"].attrs["min_tumour"] = recipe["min_tumour"]
    file.attrs[SETTINGS] = json.dumps(dict(recipe), sort_keys=True)


def _coords_attributes(slide: Slide, grid: TileGrid) -> dict[str, object]:
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
        dims, scales = list(level.shape[::-1]), [level.downsample] * 2
        attributes |= {"patch_level": grid.level, "downsample": scales}
        attributes |= {"downsampled_level_dim": dims, "level_dim": dims}
    return attributes
