"""Figures of slides: how one becomes a bag, and the curves of what networks find."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from sklearn.metrics import roc_curve

from ipslib.datasets.slides.bags import SlideBag
from ipslib.datasets.slides.evaluation import FALSE_POSITIVE_RATES
from ipslib.datasets.slides.prepare import find_tissue
from ipslib.datasets.slides.slide import Slide
from ipslib.study.arm_figures import arm_colours
from ipslib.study.figures import CHANCE_LINE, row_legend
from ipslib.study.maps import BOX_COLOUR, ROW_WIDTH, bare
from ipslib.study.slide_runs import Answered

_TUMOUR = "#c8430a"
_REFERENCE = (0, (4, 1.5))
_SHOWN_PIXELS = 400  # of an overview's longer side: about one on a screen each
_COLOUR_STEP = 8  # of 255: what is finer is noise, which takes most of a picture's bytes
_HALO = [withStroke(linewidth=2.5, foreground="#00000090")]


def slide_overview(slide: Slide) -> np.ndarray:
    """A slide as figures show it, (H, W, 3) uint8: small, and in steps of colour from the one
    that it has most of, so that even ground is of one colour."""
    overview = slide.overview(max(slide.shape) * slide.mpp / _SHOWN_PIXELS)
    ground = np.median(overview, axis=(0, 1))
    steps = np.round((overview - ground) / _COLOUR_STEP)
    return np.clip(ground + steps * _COLOUR_STEP, 0, 255).astype(np.uint8)


def slide_to_bag(
    slide: Slide, bag: SlideBag, outlines: Sequence[np.ndarray] = (), *, title: str = ""
) -> Figure:
    """Draw a slide, the tissue that is found on it, and the tiles that become its bag.

    Args:
        slide: the slide.
        bag: made of it.
        outlines: of tumour, each (n, 2) x and y in pixels of level 0.
        title: of the figure.
    """
    tissue, overview, (height, width) = find_tissue(slide), slide_overview(slide), slide.shape
    size = (ROW_WIDTH, ROW_WIDTH / 3 * height / width + 0.7)
    figure, row = plt.subplots(1, 3, figsize=size, layout="constrained")
    extent = (0, width, height, 0)
    for ax in row:
        ax.imshow(overview, extent=extent, interpolation="nearest")
        ax.set(xlim=(0, width), ylim=(height, 0))
        bare(ax)
    row[0].set_title("slide")
    for points in outlines:
        row[0].add_patch(
            Polygon(points, fill=False, edgecolor=BOX_COLOUR, linewidth=1.4, path_effects=_HALO)
        )
    row[1].set_title("tissue")
    shade = np.zeros((*tissue.shape, 4))
    shade[~tissue] = (0.25, 0.25, 0.25, 0.8)
    row[1].imshow(shade, extent=extent)
    row[2].set_title(f"{bag.n_patches} tiles")
    _draw_tiles(row[2], bag)
    keys = [
        Line2D([], [], color=BOX_COLOUR, label="outline of the tumour", path_effects=_HALO),
        Line2D([], [], color="#333333", linewidth=0.8, label="tile"),
        Line2D([], [], color=_TUMOUR, label="tile labelled as tumour"),
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=3, handlelength=1.4)
    figure.suptitle(title)
    return figure


def _draw_tiles(ax: Axes, bag: SlideBag) -> None:
    size, labels = bag.size_level0, bag.patch_labels
    is_tumour = np.zeros(bag.n_patches, bool) if labels is None else labels.numpy()
    for which, colour, linewidth in ((~is_tumour, "#333333", 0.3), (is_tumour, _TUMOUR, 1.4)):
        tiles = [Rectangle(tuple(corner), size, size) for corner in bag.coords()[which]]
        style = {"facecolor": "none", "edgecolor": colour, "linewidth": linewidth}
        ax.add_collection(PatchCollection(tiles, **style))


def finding_curves(answered: Sequence[Answered], *, title: str = "") -> Figure:
    """Draw the ROC curve of slides and the FROC curve of metastases, a line a run.

    Args:
        answered: the runs; ways are told apart by colour.
        title: of the figure.
    """
    ways = list(dict.fromkeys(each.way for each in answered))
    colours = dict(zip(ways, arm_colours(len(ways)), strict=True))
    figure, (roc, free) = plt.subplots(1, 2, figsize=(ROW_WIDTH, 4.2), layout="constrained")
    for each in reversed(answered):  # the reference on top, dashed, so that both are seen
        style = {"color": colours[each.way], "alpha": 0.75}
        style["linestyle"] = _REFERENCE if each.way == ways[0] else "-"
        labels, scores = [a.label for a in each.answers], [a.score for a in each.answers]
        false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
        roc.plot(100 * false, 100 * true, **style)
        if each.froc:
            free.step(each.froc.false_positives, 100 * each.froc.sensitivity, where="post", **style)
    roc.plot([0, 100], [0, 100], **CHANCE_LINE)
    roc.set(title="slides", xlabel="normal slides called tumour (%)", ylim=(0, 102), xlim=(-1, 101))
    roc.set_ylabel("tumour slides called tumour (%)")
    free.set(title="metastases", xlabel="false positives a slide", ylim=(0, 102))
    free.set_ylabel("metastases found (%)")
    free.set_xscale("symlog", linthresh=FALSE_POSITIVE_RATES[0])
    free.set_xlim(-0.01, 2 * FALSE_POSITIVE_RATES[-1])
    free.set_xticks([0, *FALSE_POSITIVE_RATES], ["0", "¼", "½", "1", "2", "4", "8"])
    free.minorticks_off()
    keys = [
        Line2D([], [], color=colour, label=way, linestyle=_REFERENCE if way == ways[0] else "-")
        for way, colour in colours.items()
    ]
    keys.append(Line2D([], [], label="chance", **CHANCE_LINE))
    row_legend(figure, keys)
    figure.suptitle(title, x=0.99, ha="right")
    return figure
