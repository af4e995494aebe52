"""The slides of a study: where they lie, real or synthetic, and how they are drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke

from ipslib.datasets.maps import (
    ATTENTION_COLOURS,
    BOX_COLOUR,
    LARGEST_SIDE,
    SCALES,
    attention_values,
    bare,
)
from ipslib.datasets.slides.camelyon16 import find_annotations, find_slides, read_labels
from ipslib.datasets.slides.prepare import (
    BackboneConfig,
    TileConfig,
    known_annotations,
    prepare_slides,
)
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import write_synthetic
from ipslib.datasets.synthetic import make_once, synthetic_folder
from ipslib.errors import IpslibError, did_you_mean
from ipslib.paths import from_project

# Colour is enough to tell the drawn tumour, and random weights keep colour.
_BACKBONE = BackboneConfig(backbone="resnet18", weights="none", n_stages=2)
_SHOWN_PIXELS = 400  # of an overview's longer side: about one on a screen each
_COLOUR_STEP = 8  # of 255: what is finer is noise, which takes most of a picture's bytes
_HALO = [withStroke(linewidth=2.5, foreground="#00000090")]


class SlideMaterial(NamedTuple):
    """Where slides, their bags, labels and outlines lie."""

    slides: Path | None  # None: no pictures can be shown
    bags: Path
    labels: Path | None
    annotations: Path | None  # None: it is not known where the tumour is
    is_synthetic: bool

    @property
    def outlines(self) -> dict[str, Path]:
        """Files of ASAP by the canonical name of their slide."""
        return {} if self.annotations is None else find_annotations(self.annotations)

    def open_slide(self, name: str) -> Slide | None:
        """A slide by name; None where slides are not at hand."""
        if self.slides is None or not self.slides.is_dir():
            return None
        path = find_slides(self.slides).get(name)
        return path and Slide(path)


def find_material(
    slides: str, bags: str, labels: str, annotations: str, *, standin: Mapping[str, float]
) -> SlideMaterial:
    """Take the bags that are named, or draw and prepare synthetic slides, once.

    Args:
        slides, bags, labels, annotations: paths, relative to the project; an empty `bags` asks
            for synthetic slides.
        standin: `n_train`, `n_test`, `side` and `mpp` as of `write_synthetic`, and `tile_size`.

    Raises:
        IpslibError: when what is named is not there.
    """
    if not bags:
        return _synthetic_material(**standin)
    given = {"labels": labels, "annotations": annotations}
    if not from_project(bags).exists():
        options = " ".join(f"--{name} {path}" for name, path in given.items() if path)
        raise IpslibError(
            f"{bags}: wanted bags of CAMELYON16, found none; put its slides into "
            f"{slides or 'SLIDES'} and call: python -m ipslib slides prepare "
            f"{slides or 'SLIDES'} {bags} {options}".rstrip()
        )
    for name, path in given.items():
        if path and not from_project(path).exists():
            raise IpslibError(
                f"{name}: wanted {path} of CAMELYON16, found none; copy it there, or leave {name} "
                "empty."
            )
    paths = (slides, bags, labels, annotations)
    places = [from_project(path) if path else None for path in paths]
    return SlideMaterial(*places, is_synthetic=False)


def _synthetic_material(
    n_train: int, n_test: int, side: int, mpp: float, tile_size: int
) -> SlideMaterial:
    drawn = {"n_train": n_train, "n_test": n_test, "side": side, "mpp": mpp}
    name = f"slides_{n_train}_{n_test}_{side}px_{mpp:g}um_{tile_size}px"
    tiles = TileConfig(tile_size=tile_size, mpp=mpp)
    bags = f"bags_{tile_size}px"

    def make(folder: Path) -> None:
        places = write_synthetic(folder, **drawn)
        found = find_slides(places.images)
        known = known_annotations(found, places.annotations, read_labels(places.reference))
        prepare_slides(
            found, folder / bags, tiles=tiles, backbone=_BACKBONE, annotations=known,
            batch_size=256, progress=False,
        )  # fmt: skip

    folder = make_once(synthetic_folder(name), make)
    places = write_synthetic(folder, **drawn)  # is there already
    files = (places.images, folder / bags, places.reference, places.annotations)
    return SlideMaterial(*files, is_synthetic=True)


def slide_overview(slide: Slide) -> np.ndarray:
    """A slide as figures show it, (H, W, 3) uint8: small, and in steps of colour from the one
    that it has most of, so that even ground is of one colour."""
    overview = slide.overview(max(slide.shape) * slide.mpp / _SHOWN_PIXELS)
    ground = np.median(overview, axis=(0, 1))
    steps = np.round((overview - ground) / _COLOUR_STEP)
    return np.clip(ground + steps * _COLOUR_STEP, 0, 255).astype(np.uint8)


def draw_slide(
    ax: Axes, overview: np.ndarray, shape: tuple[int, int], outlines: Sequence[np.ndarray] = ()
) -> None:
    """Draw an overview (H, W, 3) uint8 on axes in pixels of level 0, whose height and width
    `shape` gives, and outlines of tumour, each (n, 2) x and y in these pixels."""
    height, width = shape
    ax.imshow(overview, extent=(0, width, height, 0), interpolation="nearest")
    for points in outlines:
        outline = Polygon(points, fill=False, edgecolor=BOX_COLOUR, linewidth=1.3)
        outline.set(path_effects=_HALO, zorder=3)
        ax.add_patch(outline)
    ax.set(xlim=(0, width), ylim=(height, 0))
    bare(ax)


def heat_map(
    scores: np.ndarray,
    coords: np.ndarray,
    size: int,
    shape: tuple[int, int],
    *,
    pixels: tuple[int, int],
) -> np.ndarray:
    """Scores of patches as an image of the whole slide.

    Args:
        scores: (N,), of all patches or of those that were kept.
        coords: (N, 2) x and y of their corners in pixels of level 0.
        size: their side in pixels of level 0.
        shape: height and width of level 0.
        pixels: height and width of the map.

    Returns:
        (H, W) float, the mean over the patches that lie over a pixel; NaN where none does.

    Raises:
        IpslibError: when scores and corners do not belong together.
    """
    scores, coords = np.asarray(scores, float), np.asarray(coords)
    if coords.shape != (len(scores), 2) or not len(scores):
        raise IpslibError(
            f"wanted one (x, y) corner a score, got corners of {coords.shape} and scores of "
            f"{scores.shape}."
        )
    per_pixel = np.array(pixels) / np.array(shape)
    first = np.round(coords[:, ::-1] * per_pixel).astype(int)
    # A patch is a pixel at least: what is smaller would vanish.
    last = np.maximum(np.round((coords[:, ::-1] + size) * per_pixel).astype(int), first + 1)
    total, count = np.zeros(pixels), np.zeros(pixels, int)
    for score, (top, left), (bottom, right) in zip(scores, first, last, strict=True):
        total[top:bottom, left:right] += score
        count[top:bottom, left:right] += 1
    return np.divide(total, count, out=np.full(pixels, np.nan), where=count > 0)


def draw_heat_map(
    overview: np.ndarray,
    scores: np.ndarray,
    coords: np.ndarray,
    size: int,
    shape: tuple[int, int],
    *,
    outlines: Sequence[np.ndarray] = (),
    scale: str = "rank",
    title: str = "",
) -> Figure:
    """Draw a slide beside itself with its patches coloured, and tumour outlined on both.

    Args:
        overview: (H, W, 3) uint8, the whole slide.
        scores, coords, size, shape: as of `heat_map`; with a scale of attention they add up to 1.
        outlines: of tumour, each (n, 2) x and y in pixels of level 0.
        scale: `rank`, `linear` or `log`, as of attention maps, or `score` as it is, 0 to 1.
        title: of the figure.
    """
    names = SCALES | {"score": "score"}
    if scale not in names:
        raise IpslibError(f"scale: no scale {scale!r}{did_you_mean(scale, names)}.")
    values = scores if scale == "score" else attention_values(scores, scale)
    heat = heat_map(values, coords, size, shape, pixels=overview.shape[:2])
    inches = (2 * LARGEST_SIDE + 0.9, LARGEST_SIDE * shape[0] / shape[1] + 0.5)
    figure, axes = plt.subplots(1, 2, figsize=inches, layout="constrained")
    for ax in axes:
        draw_slide(ax, overview, shape, outlines)
    limits = {"vmin": 0, "vmax": 1} if scale in ("rank", "score") else {}
    limits |= {"norm": "log"} if scale == "log" else {}
    extent = (0, shape[1], shape[0], 0)
    style = {"cmap": ATTENTION_COLOURS, "alpha": 0.6, "interpolation": "nearest", "zorder": 2}
    shown = axes[1].imshow(heat, extent=extent, **style, **limits)
    bar = figure.colorbar(shown, ax=axes.tolist(), shrink=0.9, pad=0.015, aspect=28)
    bar.set_label(names[scale])
    bar.outline.set_visible(False)
    if scale == "rank":
        bar.set_ticks([0, 1], labels=["least", "most"])
    figure.suptitle(title)
    return figure
