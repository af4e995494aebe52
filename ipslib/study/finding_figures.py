"""All findings in one figure, and figures of other notebooks made small enough for one page."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image as Picture

from ipslib.study.figures import DIAMOND, GREY, INK
from ipslib.study.findings import AGREES, DISAGREES, OPEN, Finding

_COLOURS = {AGREES: "#2c8fa6", DISAGREES: "#b5387c", OPEN: "#8c8c8c"}
_SHOWN = 700  # px on the page
_KEPT = 2 * _SHOWN  # px in the file, for screens of twice the resolution
_COLOURS_KEPT = 64


def effects_figure(findings: Sequence[Finding]) -> Figure:
    """Draw every effect in points with its 95 % interval, and the published ones as diamonds.

    Those in another unit are left out.
    """
    shown = [finding for finding in findings if finding.effect.unit == "points"]
    height = 1.2 + 0.42 * len(shown)
    figure, ax = plt.subplots(figsize=(10, height), layout="constrained")
    for y, finding in enumerate(shown):
        effect = finding.effect
        style = {"color": _COLOURS[effect.verdict], "lw": 2, "solid_capstyle": "butt"}
        ax.plot([100 * effect.low, 100 * effect.high], [y, y], **style)
        ax.plot(100 * effect.effect, y, "o", ms=6, color=style["color"])
        ax.plot(100 * effect.published, y + 0.25, **DIAMOND)
    ax.axvline(0, color=GREY, lw=1)
    names = [f"{each.notebook.split('_')[0]}  {each.effect.compared}" for each in shown]
    ax.set_yticks(range(len(shown)), names)
    ax.set(ylim=(len(shown) - 0.5, -0.5), xlabel="effect (points)")
    keys = [Line2D([], [], color=c, marker="o", lw=2, label=name) for name, c in _COLOURS.items()]
    keys.append(Line2D([], [], label="published, own scale", **DIAMOND))
    figure.legend(handles=keys, loc="outside upper right", ncols=4, labelcolor=INK)
    return figure


def small_picture(path: Path) -> Image:
    """A PNG shrunk in pixels and colours, shown at the width of a page."""
    with Picture.open(path) as picture:
        picture = picture.convert("RGB")
        if picture.width > _KEPT:
            size = (_KEPT, round(picture.height * _KEPT / picture.width))
            picture = picture.resize(size, Picture.Resampling.LANCZOS)
        shown = min(_SHOWN, picture.width)
        buffer = io.BytesIO()
        picture.quantize(_COLOURS_KEPT, dither=Picture.Dither.NONE).save(
            buffer, "PNG", optimize=True
        )
    return Image(buffer.getvalue(), format="png", width=shown, alt=path.stem)
