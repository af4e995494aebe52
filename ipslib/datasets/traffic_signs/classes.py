"""From signs to classes: the published filter, the fixed split, and smaller training sets.

Katharopoulos and Fleuret, arXiv 1905.03711, made the task; Bergner et al., arXiv 2210.13007, kept
its filter. Set1 trains and Set2 tests, always (as published, the parity of a seed decided).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ipslib.datasets.traffic_signs.annotations import (
    ANNOTATIONS,
    CLASSES,
    LIMITS,
    VISIBILITIES,
    Box,
    Sign,
    read_annotations,
)
from ipslib.datasets.traffic_signs.image import inspect_image
from ipslib.datasets.traffic_signs.report import SKIPPED, Problem, ReadReport
from ipslib.errors import IpslibError

SET_OF = {"train": "Set1", "test": "Set2"}
OTHER_SIGNS, NOT_VISIBLE = "other signs only", "limit sign not VISIBLE"
# Of Set1 and Set2 after the filter, by class: 747 and 684 images.
PUBLISHED_COUNTS = {"train": (486, 79, 123, 59), "test": (451, 86, 83, 64)}


class Example(NamedTuple):
    """An image of the task; its boxes are in pixels of the stored image."""

    path: Path
    line: int  # of the annotations, from 1
    label: int  # index into CLASSES
    boxes: tuple[Box, ...]  # every VISIBLE sign of the image's class, the deciding one first
    size: tuple[int, int]  # height and width as stored


class SignSet(NamedTuple):
    examples: tuple[Example, ...]  # in the order of the annotations
    report: ReadReport


class Verdict(NamedTuple):
    """What the published filter says of an image: a class, or why it is left out."""

    label: int | None
    boxes: tuple[Box, ...] = ()
    left_out: str | None = None


def judge(signs: Sequence[Sign]) -> Verdict:
    """No sign is EMPTY. Else the best limit sign (visibility, then area) decides, if VISIBLE."""
    if not signs:
        return Verdict(CLASSES.index("EMPTY"))
    limits = [sign for sign in signs if sign.name in LIMITS]
    if not limits:
        return Verdict(None, left_out=OTHER_SIGNS)
    limits.sort(key=lambda sign: (VISIBILITIES.index(sign.visibility), -sign.box.area))
    best = limits[0]
    if best.visibility != "VISIBLE":
        return Verdict(None, left_out=NOT_VISIBLE)
    same = [s.box for s in limits if (s.name, s.visibility) == (best.name, best.visibility)]
    return Verdict(CLASSES.index(best.name), tuple(same))


def read_set(folder: str | Path) -> SignSet:
    """Read a set's annotations, filter them, and see that its images are sound.

    An image that is missing or damaged, or whose line is broken, is skipped and listed.

    Args:
        folder: `Set1` or `Set2`, with `annotations.txt` beside the JPEGs.

    Raises:
        IpslibError: when the annotations cannot be read, or no image of the task is there.
    """
    folder = Path(folder)
    annotations = read_annotations(folder / ANNOTATIONS)
    examples, problems, left_out = [], list(annotations.problems), Counter()
    for annotated in annotations.images:
        verdict = judge(annotated.signs)
        if verdict.left_out:
            left_out[verdict.left_out] += 1
            continue
        path = folder / annotated.image
        seen = inspect_image(path)
        if seen.size:
            boxes = verdict.boxes
            examples.append(Example(path, annotated.line, verdict.label, boxes, seen.size))
        else:
            file, line = f"{folder.name}/{ANNOTATIONS}", annotated.line
            sentence = f"{file} line {line}: {seen.sentence}"
            problems.append(Problem(SKIPPED, seen.kind, file, line, annotated.image, sentence))
    if not examples:
        raise IpslibError(
            f"{folder}: wanted the JPEGs that {ANNOTATIONS} names beside it, found no sound one of "
            f"{annotations.n_lines}; unpack {folder.name}Part0.zip into that folder."
        )
    problems.sort(key=lambda problem: (problem.line is None, problem.line or 0))
    problems += _without_a_line(folder, {a.image for a in annotations.images}, problems)
    report = ReadReport(
        folder.name,
        annotations.n_lines,
        annotations.n_misc,
        class_counts(examples),
        dict(left_out),
        tuple(problems),
    )
    return SignSet(tuple(examples), report)


def _without_a_line(folder: Path, named: set[str], problems: list[Problem]) -> list[Problem]:
    """One entry for all images that no line names: the full drives hold thousands of them."""
    named = named | {problem.image for problem in problems}
    extra = sorted(path.name for path in folder.glob("*.jpg") if path.name not in named)
    if not extra:
        return []
    some = ", ".join(extra[:3]) + (", ..." if len(extra) > 3 else "")
    message = (
        f"{folder.name}: wanted a line in {ANNOTATIONS} for every image, got none for "
        f"{len(extra)} ({some}); add their lines, or leave it at that."
    )
    return [Problem(SKIPPED, "no annotation", folder.name, None, None, message)]


def class_counts(examples: Sequence[Example]) -> dict[str, int]:
    """Images of each class, by name."""
    counts = Counter(example.label for example in examples)
    return {name: counts[label] for label, name in enumerate(CLASSES)}


def thinned(examples: Sequence[Example], fraction: float) -> tuple[Example, ...]:
    """The first images of each class, rounded down as published, in their order: a smaller
    fraction is part of a larger one.

    Args:
        examples: of one split.
        fraction: of each class, above 0 and up to 1.

    Raises:
        IpslibError: where a class would be left without an image that it had.
    """
    had = class_counts(examples)
    room = {label: int(fraction * had[name] + 1e-9) for label, name in enumerate(CLASSES)}
    emptied = [name for label, name in enumerate(CLASSES) if had[name] and not room[label]]
    if emptied:
        raise IpslibError(
            f"fraction: wanted at least one image of each class, got none of {emptied[0]}, which "
            f"has {had[emptied[0]]}, at {fraction:g}; use a larger fraction."
        )
    kept = []
    for example in examples:
        if room[example.label]:
            room[example.label] -= 1
            kept.append(example)
    return tuple(kept)
