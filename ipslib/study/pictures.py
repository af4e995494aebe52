"""Pictures small enough for version control."""

import io

import numpy as np
from PIL import Image

_COLOURS = 256
_SAME, _NEARLY_ALL = 12, 99.9  # of 255 levels; % of the pixels


def smaller_png(png: bytes) -> bytes:
    """A PNG of 256 colours of its own; the picture itself where that would show, as in
    photographs and colour bars, or be no smaller. Width and height stay.
    """
    with Image.open(io.BytesIO(png)) as image:
        if image.mode == "P":
            return png
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
    drawn = on_white.convert("RGB")
    few = drawn.quantize(_COLOURS)
    apart = np.abs(np.asarray(drawn, np.int16) - np.asarray(few.convert("RGB"), np.int16))
    if np.percentile(apart.max(axis=2), _NEARLY_ALL) > _SAME:
        return png
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)
