"""Heat maps over a slide: the score of every patch, in its place on the overview."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from scipy.stats import rankdata

from ipslib.errors import IpslibError, did_you_mean
from ipslib.study.maps import (
    ATTENTION_COLOURS,
    BOX_COLOUR,
    LARGEST_SIDE,
    SCALES,
    attention_values,
    bare,
)

_HALO = [withStroke(linewidth=2.5, foreground="#00000090")]


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
    alpha: float = 0.6,
    title: str = "",
) -> Figure:
    """Draw a slide beside itself with its patches coloured, and tumour outlined on both.

    Args:
        overview: (H, W, 3) uint8, the whole slide.
        scores, coords, size, shape: as of `heat_map`; with a scale of attention they add up to 1.
        outlines: of tumour, each (n, 2) x and y in pixels of level 0.
        scale: `rank`, `linear` or `log`, as of attention maps, or `score` as it is, 0 to 1.
        alpha: opacity of the colours.
        title: of the figure.
    """
    names = SCALES | {"score": "score"}
    if scale not in names:
        raise IpslibError(f"scale: no scale {scale!r}{did_you_mean(scale, names)}.")
    heat = heat_map(_values(scores, scale), coords, size, shape, pixels=overview.shape[:2])
    side = LARGEST_SIDE * overview.shape[0] / overview.shape[1]
    figure, axes = plt.subplots(
        1, 2, figsize=(2 * LARGEST_SIDE + 0.9, side + 0.5), layout="constrained"
    )
    extent = (0, shape[1], shape[0], 0)  # in pixels of level 0
    for ax in axes:
        ax.imshow(overview, extent=extent, interpolation="nearest")
        for points in outlines:
            outline = Polygon(points, fill=False, edgecolor=BOX_COLOUR, linewidth=1.2)
            outline.set(path_effects=_HALO, zorder=3)
            ax.add_patch(outline)
        bare(ax)
    limits = {"vmin": 0, "vmax": 1} if scale in ("rank", "score") else {}
    norm = "log" if scale == "log" else None
    shown = axes[1].imshow(
        heat, extent=extent, cmap=ATTENTION_COLOURS, alpha=alpha, norm=norm,
        interpolation="nearest", zorder=2, **limits,
    )  # fmt: skip
    bar = figure.colorbar(shown, ax=axes.tolist(), shrink=0.9, pad=0.015, aspect=28)
    bar.set_label(names[scale])
    bar.outline.set_visible(False)
    if scale == "rank":
        bar.set_ticks([0, 1], labels=["least", "most"])
    figure.suptitle(title)
    return figure


def _values(scores: np.ndarray, scale: str) -> np.ndarray:
    if scale == "score":
        return np.asarray(scores, float)
    if scale == "rank":  # as `attention_values`, of a quarter of a million patches too
        return (rankdata(scores) - 1) / max(len(scores) - 1, 1)
    return attention_values(scores, scale)
