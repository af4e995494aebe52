"""Synthetic traffic signs: drawn scenes in the very format, awkward lines and all.

It lets everything run where the real photographs are not. Its folder is marked, and results on it
say nothing about the real task.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ipslib.datasets.megapixel_mnist.randomness import SPLITS, stream
from ipslib.datasets.synthetic import make_synthetic
from ipslib.datasets.traffic_signs.annotations import ANNOTATIONS, CLASSES, LIMITS
from ipslib.datasets.traffic_signs.classes import PUBLISHED_COUNTS, SET_OF
from ipslib.datasets.traffic_signs.drawing import DrawnSign, draw_scene
from ipslib.errors import IpslibError

_FORMAT = 1  # of what is drawn: raise it when a drawing changes
_SMALLEST_SIDE = 64
_JPEG_QUALITY = 92  # with colours at full size: signs are small
_STAMPS = {"train": 1000000000, "test": 1100000000}  # camera times, which begin the file names
_KINDS = {"PRIORITY_ROAD": "INFORMATION", "PASS_RIGHT_SIDE": "MANDATORY"}
_OTHERS = tuple(_KINDS)


class _Shot(NamedTuple):
    """What an image is to show, and how its line is written."""

    signs: tuple[str, ...]
    visibility: str = "VISIBLE"
    awkward: str = ""


# What the filter leaves out, and what cannot be used: as many of them in every set.
_LEFT_OUT = (
    _Shot(("PRIORITY_ROAD",)),
    _Shot(("PASS_RIGHT_SIDE", "PRIORITY_ROAD"), awkward="misc"),
    _Shot(("70_SIGN",), visibility="BLURRED"),
)
_BROKEN = tuple(
    _Shot(("50_SIGN",), awkward=awkward)
    for awkward in ("inverted", "missing image", "torn image", "no colon", "no line")
)


def write_synthetic(
    folder: str | Path,
    n_train: int,
    n_test: int,
    *,
    size: tuple[int, int] = (240, 320),
    shares: Sequence[float] | None = None,
    seed: int = 0,
    awkward: bool = True,
) -> Path:
    """Draw the two sets, or find the very same one drawn before; of several processes one draws.

    Args:
        folder: for `Set1`, `Set2` and the marker.
        n_train: images of `Set1` that the filter keeps; each class has at least one.
        n_test: likewise of `Set2`.
        size: height and width in pixels; the published photographs are (960, 1280).
        shares: of the four classes, in their order; those of the published sets if None.
        seed: of the drawings.
        awkward: add images that the filter leaves out or that are broken, and lines to repair.

    Returns:
        The folder.

    Raises:
        IpslibError: for too few or too small images, when the folder holds something else, and
            when it cannot be written.
    """
    if min(n_train, n_test) < len(CLASSES) or min(size) < _SMALLEST_SIDE:
        raise IpslibError(
            f"synthetic signs: wanted at least {len(CLASSES)} images a set, of sides of at least "
            f"{_SMALLEST_SIDE} px, got {n_train} and {n_test} of {size[0]} x {size[1]} px."
        )
    counts = {"train": n_train, "test": n_test}
    wanted = {
        split: _class_counts(n, PUBLISHED_COUNTS[split] if shares is None else shares)
        for split, n in counts.items()
    }
    settings = {
        "format": _FORMAT, "classes": wanted, "size": list(size), "seed": seed, "awkward": awkward,
    }  # fmt: skip

    def draw(part: Path) -> None:
        for split, classes in wanted.items():
            _write_set(part / SET_OF[split], split, classes, size, seed=seed, awkward=awkward)

    return make_synthetic(folder, settings, draw)


def _class_counts(n: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to n, at least one each, by largest remainder."""
    if len(shares) != len(CLASSES) or min(shares) < 0 or not sum(shares):
        raise IpslibError(
            f"shares: wanted {len(CLASSES)} shares, of {', '.join(CLASSES)}, got {shares!r}."
        )
    exact = (n - len(CLASSES)) * np.array(shares) / sum(shares)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - len(CLASSES) - counts.sum()]] += 1
    return (counts + 1).tolist()


def _write_set(
    folder: Path,
    split: str,
    classes: list[int],
    size: tuple[int, int],
    *,
    seed: int,
    awkward: bool,
) -> None:
    folder.mkdir(parents=True)
    random = stream(seed, SPLITS[split], 0)
    shots = [
        _shot(name, i, awkward) for name, n in zip(CLASSES, classes, strict=True) for i in range(n)
    ]
    shots += (_LEFT_OUT + _BROKEN) if awkward else ()
    lines = []
    order = random.permutation(len(shots))
    progress = tqdm(order, desc=f"draw {folder.name}", leave=False, disable=None)
    for position, which in enumerate(progress):
        shot, name = shots[which], f"{_STAMPS[split] + position}Image{position % 60:06d}.jpg"
        blurred = shot.visibility == "BLURRED"
        scene = draw_scene(
            stream(seed, SPLITS[split], 1 + int(which)), size, shot.signs, blurred=blurred
        )
        if shot.awkward != "missing image":
            scene.image.save(folder / name, quality=_JPEG_QUALITY, subsampling=0)
        if shot.awkward == "torn image":
            stored = (folder / name).read_bytes()
            (folder / name).write_bytes(stored[: len(stored) // 2])
        if shot.awkward != "no line":
            lines.append(_line(name, scene.signs, shot))
    end = "\r\n" if awkward else "\n"
    (folder / ANNOTATIONS).write_bytes((end.join(lines) + end).encode())


def _shot(name: str, i: int, awkward: bool) -> _Shot:
    """Image i of a class: some limit signs have a companion, some lines an awkward turn."""
    if name == "EMPTY":
        return _Shot((), awkward="misc" if awkward and i % 3 == 1 else "")
    signs = (name, _OTHERS[i % 2]) if i % 4 == 2 else (name,)
    return _Shot(signs, awkward=("letter", "misc", "")[i % 3] if awkward else "")


def _line(name: str, signs: Sequence[DrawnSign], shot: _Shot) -> str:
    """As published: each sign ends in a semicolon, its lower right corner comes first."""
    entries = ["MISC_SIGNS"] if shot.awkward == "misc" else []
    for sign in signs:
        x_min, y_min, x_max, y_max = sign.box
        corners = (x_min, y_min, x_max, y_max) if shot.awkward == "inverted" else (
            x_max, y_max, x_min, y_min
        )  # fmt: skip
        numbers = [f"{value:.6f}" for value in corners]
        if shot.awkward == "letter":
            numbers[1] += "l"
        kind = "PROHIBITORY" if sign.name in LIMITS else _KINDS[sign.name]
        entries.append(", ".join([shot.visibility, *numbers, kind, sign.name]))
    colon = "" if shot.awkward == "no colon" else ":"
    return name + colon + "".join(f"{entry};" for entry in entries)
