"""The published augmentation: colour jitter, then a translation by whole pixels.

Brightness, contrast and saturation change by a factor in 1 - jitter .. 1 + jitter, the hue by
-jitter .. jitter of the colour circle, in random order; the shift is uniform, and what it uncovers
is black (Bergner et al., arXiv 2210.13007).
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.transforms import functional

_ADJUST = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}
_UNCHANGED = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


class Augmentation(NamedTuple):
    """What is done to one image; adjustments in the order in which they are made."""

    adjustments: tuple[tuple[str, float], ...]  # factor, or turn of the hue
    shift: tuple[int, int]  # pixels down and to the right


def draw_augmentation(
    random: np.random.RandomState, *, jitter: float, translate: int
) -> Augmentation:
    """Draw one; a given stream gives the same whatever its strength.

    Args:
        random: the stream of this image in this epoch.
        jitter: from 0 to 0.5.
        translate: largest shift in pixels, along either axis.
    """
    names = [list(_ADJUST)[i] for i in random.permutation(len(_ADJUST))]
    changes = random.uniform(-1, 1, size=len(names)).tolist()
    down, right = random.uniform(-1, 1, size=2)
    return Augmentation(
        tuple((n, _UNCHANGED[n] + jitter * c) for n, c in zip(names, changes, strict=True)),
        (round(translate * down), round(translate * right)),
    )


def augmented(image: Image.Image, augmentation: Augmentation) -> Image.Image:
    """An RGB image with its adjustments and its shift."""
    for name, value in augmentation.adjustments:
        if value != _UNCHANGED[name]:
            image = _ADJUST[name](image, value)
    down, right = augmentation.shift
    if (down, right) != (0, 0):
        moved = Image.new("RGB", image.size)
        moved.paste(image, (right, down))
        image = moved
    return image
