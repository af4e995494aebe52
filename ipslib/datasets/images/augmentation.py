"""What training does to an image, the same to all of its patches: mirrored, turned by quarters,
moved on the grid, its light and colours changed.

Turns are numbered as EXIF numbers orientations, so that an image turned for training is read as
one that a camera turned: exactly, and never whole.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.random import RandomState

Adjustments = tuple[tuple[str, float], ...]  # factor, or turn of the hue, in the order of making

UNCHANGED = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
UPRIGHT = 1  # the turn that changes nothing
TURNS = {  # what is shown: (rows, columns) in reverse, of the stored image or of it (transposed)
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (False, True, True),
    7: (True, True, True),
    8: (True, False, True),
}
_GROUPS = {"none": (1,), "horizontal": (1, 2), "both": (1, 2, 3, 4)}  # by `flips`
FLIPS = tuple(_GROUPS)
_AROUND = {"brightness": 0.0, "contrast": 0.5}  # the light that stays as it is


def draw_turn(random: RandomState, *, flips: str, rotations: bool) -> int:
    """One of the turns that these options allow, each as likely."""
    turns = _GROUPS[flips]
    if rotations:
        turns = (1, 3, 6, 8) if flips == "none" else tuple(TURNS)
    return turns[random.randint(len(turns))]


def draw_shift(random: RandomState, translate: int) -> tuple[int, int]:
    """Pixels down and to the right, each as likely from -translate to translate."""
    down, right = random.randint(-translate, translate + 1, size=2).tolist()
    return down, right


def draw_adjustments(random: RandomState, strengths: Mapping[str, float]) -> Adjustments:
    """Each of `UNCHANGED`, in random order, changed by at most its strength; a given stream gives
    the same whatever the strengths.

    Brightness, contrast and saturation change by a factor in 1 - strength .. 1 + strength, the hue
    by -strength .. strength of the colour circle.
    """
    names = [list(UNCHANGED)[i] for i in random.permutation(len(UNCHANGED))]
    changes = random.uniform(-1, 1, size=len(names)).tolist()
    drawn = zip(names, changes, strict=True)
    return tuple((name, UNCHANGED[name] + strengths[name] * change) for name, change in drawn)


def adjusted(light: np.ndarray, adjustments: Adjustments) -> np.ndarray:
    """Light in 0..1, (h, w, C) float32, adjusted pixel by pixel: contrast is about middle grey and
    not about an image's mean, which a patch does not know."""
    if not adjustments:
        return light
    from torchvision.transforms.v2 import functional  # takes a second

    pixels = torch.from_numpy(light).permute(2, 0, 1)
    for name, value in adjustments:
        if name in _AROUND:
            pixels = (_AROUND[name] + value * (pixels - _AROUND[name])).clamp(0, 1)
        elif value != UNCHANGED[name]:
            pixels = getattr(functional, f"adjust_{name}")(pixels, value)
    return pixels.permute(1, 2, 0).numpy()


def combined(first: int, then: int) -> int:
    """Two turns, one after the other, as one."""
    (rows, cols, transposed), (more_rows, more_cols, swapped) = TURNS[first], TURNS[then]
    rows, cols = (cols, rows) if swapped else (rows, cols)
    both = rows ^ more_rows, cols ^ more_cols, transposed ^ swapped
    return next(turn for turn, what in TURNS.items() if what == both)


def turned_boxes(boxes: np.ndarray, canvas: tuple[int, int], turn: int) -> np.ndarray:
    """Boxes (n, 4) of top, left, height, width on a canvas that is turned, where they lie then."""
    rows, cols, transposed = TURNS[turn]
    top, left, height, width = boxes.T
    if transposed:
        top, left, height, width, canvas = left, top, width, height, canvas[::-1]
    top = canvas[0] - top - height if rows else top
    left = canvas[1] - left - width if cols else left
    return np.stack([top, left, height, width], axis=1)


def shifted_boxes(boxes: np.ndarray, canvas: tuple[int, int], shift: tuple[int, int]) -> np.ndarray:
    """Boxes (n, 4) on a canvas that is moved down and to the right: what of them is still on it; of
    a box that left it, none."""
    start = boxes[:, :2] + shift
    end = np.clip(start + boxes[:, 2:], 0, canvas)
    start = np.clip(start, 0, canvas)
    return np.concatenate([start, end - start], axis=1)
