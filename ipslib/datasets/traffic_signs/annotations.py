"""The sets of Swedish traffic signs: what their annotations say, and what the published filter
makes of it.

A line is `NAME.jpg:SIGN;SIGN;...`, one per image; a sign is `MISC_SIGNS`, which has no box, or
`VISIBILITY, x_max, y_max, x_min, y_min, TYPE, NAME` (Larsson and Felsberg, SCIA 2011). Nothing is
mended silently: what is read in another way than it stands is a repair, and an image whose class
could not be trusted is skipped.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from ipslib.errors import IpslibError, did_you_mean

ANNOTATIONS = "annotations.txt"
SET_OF = {"train": "Set1", "test": "Set2"}
LIMITS = ("50_SIGN", "70_SIGN", "80_SIGN")
CLASSES = ("EMPTY", *LIMITS)
# Images of Set1 and Set2 after the published filter, by class.
PUBLISHED_COUNTS = {"train": (486, 79, 123, 59), "test": (451, 86, 83, 64)}
VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")  # the best first
OTHER_SIGNS, NOT_VISIBLE = "other signs only", "limit sign not VISIBLE"
REPAIRED, SKIPPED = "repaired", "skipped"
_FIELDS = "VISIBILITY, x_max, y_max, x_min, y_min, TYPE, NAME"
_JPEG_NAME = re.compile(r"(?:[^,;]*?\.jpe?g)?", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d*)?)(\D*)")  # some end in a letter: 403.117l
_END_OF_JPEG, _TAIL = b"\xff\xd9", 64  # some writers pad what follows the end


Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max, in pixels as stored


class Sign(NamedTuple):
    visibility: str
    box: Box | None  # None: not readable, and of a sign that decides nothing
    name: str


class Example(NamedTuple):
    """An image of the task."""

    path: Path
    line: int  # of the annotations, from 1
    label: int  # index into CLASSES
    boxes: tuple[Box, ...]  # every VISIBLE sign of the image's class, the deciding one first
    size: tuple[int, int]  # height and width as stored


class Problem(NamedTuple):
    """One thing that is not as it should be, and what was done about it."""

    action: str  # repaired: read as meant; skipped: the image is not used
    kind: str
    line: int | None  # from 1
    image: str | None
    message: str  # one sentence: where, wanted, got, remedy


class SignSet(NamedTuple):
    """What reading `Set1` or `Set2` found, in the order of its lines."""

    name: str
    examples: tuple[Example, ...]
    n_lines: int
    n_misc: int  # MISC_SIGNS entries, which have no box and are passed over as published
    left_out: dict[str, int]  # images by reason, as published
    problems: tuple[Problem, ...]

    def n_of(self, action: str) -> int:
        return sum(problem.action == action for problem in self.problems)


def read_set(folder: str | Path) -> SignSet:
    """Read the annotations of a set, filter them, and see that the JPEGs beside them are sound. An
    image that is missing or damaged, or whose line is broken, is skipped and listed; IpslibError
    when the annotations cannot be read, or no image of the task is there."""
    folder = Path(folder)
    try:
        text = (folder / ANNOTATIONS).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise IpslibError(
            f"{folder / ANNOTATIONS}: wanted the annotations of a set, could not read them "
            f"({error}); put the published file there, beside the JPEGs."
        ) from error
    lines = {n: line for n, line in enumerate(text.split("\n"), start=1) if line.strip()}
    reader = _Reader(folder)
    for number, line in lines.items():
        reader.read(number, line)
    if not reader.examples:
        raise IpslibError(
            f"{folder}: wanted lines NAME.jpg:SIGN;SIGN;... in {ANNOTATIONS} and the JPEGs beside "
            f"it, got no sound image in {len(lines)} lines; unpack {folder.name}Part0.zip there."
        )
    reader.read_whole(lines.values())
    found = len(lines), reader.n_misc, dict(reader.left_out), tuple(reader.problems)
    return SignSet(folder.name, tuple(reader.examples), *found)


def judge(signs: Sequence[Sign]) -> tuple[str, tuple[Box, ...]]:
    """What the published filter says of an image: its class, with the boxes of every VISIBLE sign
    of that class, the deciding one first; or why it is left out.

    Katharopoulos and Fleuret, arXiv 1905.03711: no sign is EMPTY; else the best limit sign
    (visibility, then area) decides, if VISIBLE.
    """

    def rank(sign: Sign) -> tuple[int, float]:
        x_min, y_min, x_max, y_max = sign.box
        return VISIBILITIES.index(sign.visibility), -(x_max - x_min) * (y_max - y_min)

    limits = sorted((sign for sign in signs if sign.name in LIMITS), key=rank)
    if not limits:
        return OTHER_SIGNS if signs else "EMPTY", ()
    best = limits[0]
    if best.visibility != "VISIBLE":
        return NOT_VISIBLE, ()
    same = [s.box for s in limits if (s.name, s.visibility) == (best.name, best.visibility)]
    return best.name, tuple(same)


class _Defect(Exception):
    """Kind and sentence (wanted, got, remedy) of what is wrong with a sign or a line."""


class _Reader:
    """Reads a set line by line and keeps what it met."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, f"{folder.name}/{ANNOTATIONS}"
        self.n_misc, self.left_out, self.line_of = 0, Counter(), {}
        self.examples: list[Example] = []
        self.problems: list[Problem] = []

    def read(self, number: int, line: str) -> None:
        name, colon, signs = line.partition(":")
        self.line, self.name = number, (name if colon else _JPEG_NAME.match(line)[0]).strip()
        self.where = f"{self.file} line {number} ({self.name or 'no name'})"
        try:
            if not colon or not self.name or re.search(r"[\\/]", self.name):
                got = f"{line.strip()[:40]!r}; correct the line"
                raise _Defect("no image name", f"wanted NAME.jpg and a colon, got {got}")
            if self.name in self.line_of:
                got = f"a second one; took line {self.line_of[self.name]}, delete the wrong one"
                raise _Defect("second line", f"wanted one line per image, got {got}")
            found = [self._sign(text.split(",")) for text in signs.split(";") if text.strip()]
            verdict, boxes = judge([sign for sign in found if sign])
            self.line_of[self.name] = number
            if verdict in CLASSES:  # what the filter leaves out need not be there
                self._add(CLASSES.index(verdict), boxes)
            else:
                self.left_out[verdict] += 1
        except _Defect as defect:
            self._note(SKIPPED, *defect.args)

    def _add(self, label: int, boxes: tuple[Box, ...]) -> None:
        path = self.folder / self.name
        try:
            self.examples.append(Example(path, self.line, label, boxes, image_size(path)))
        except IpslibError as error:
            kind = "damaged image" if path.is_file() else "missing image"
            self._note(SKIPPED, kind, str(error).removesuffix("."))

    def _sign(self, fields: list[str]) -> Sign | None:
        """None for MISC_SIGNS. A defect that could change the image's class is raised."""
        fields = [field.strip() for field in fields]
        if fields[0] == "MISC_SIGNS":
            self.n_misc += 1
            return None
        if len(fields) != len(_FIELDS.split(",")):
            got = f"{len(fields)} in {', '.join(fields)!r}; correct the line"
            raise _Defect("wrong number of fields", f"wanted {_FIELDS}, got {got}")
        visibility, *numbers, _, name = fields
        try:
            if visibility not in VISIBILITIES:
                got = f"{visibility!r}{did_you_mean(visibility, VISIBILITIES)}; correct the line"
                raise _Defect("unknown visibility", f"unknown visibility {got}")
            return Sign(visibility, self._box(numbers), name)
        except _Defect as defect:
            if name in LIMITS:
                raise
            kind, sentence = defect.args
            self._note(REPAIRED, kind, f"{sentence}, but no limit sign depends on it")
            return Sign(visibility, None, name)

    def _box(self, texts: list[str]) -> Box:
        corners = []
        for text in texts:
            wanted = f"wanted a coordinate in pixels, got {text!r}"
            match = _NUMBER.fullmatch(text)
            if not match or not math.isfinite(float(match[1])):
                raise _Defect("no number", f"{wanted}; correct the line")
            if match[2]:
                self._note(REPAIRED, "trailing letters", f"{wanted}; read it as {match[1]}")
            corners.append(float(match[1]))
        x_max, y_max, x_min, y_min = corners
        if not (x_min < x_max and y_min < y_max):
            got = f"({x_max:g}, {y_max:g}) and ({x_min:g}, {y_min:g}); exchange the corners"
            raise _Defect("inverted box", f"wanted x_max, y_max beyond x_min, y_min, got {got}")
        return x_min, y_min, x_max, y_max

    def _note(self, action: str, kind: str, sentence: str) -> None:
        message = f"{self.where}: {sentence}."
        self.problems.append(Problem(action, kind, self.line, self.name, message))

    def read_whole(self, lines: Iterable[str]) -> None:
        """Note what belongs to no single line."""
        self.line, self.name, self.where = None, None, self.file
        n_crlf = sum(line.endswith("\r") for line in lines)
        if n_crlf:
            sentence = f"wanted lines that end in LF, got {n_crlf} in CRLF; read alike"
            self._note(REPAIRED, "CRLF", sentence)
        known = {problem.image for problem in self.problems} | self.line_of.keys()
        extra = sorted(p.name for p in self.folder.glob("*.jpg") if p.name not in known)
        if extra:  # one entry for all of them: the full drives hold thousands
            got = f"none for {len(extra)} ({extra[0]} is the first); add lines, or leave it"
            self._note(SKIPPED, "no annotation", f"wanted a line for every image, got {got}")


def class_counts(examples: Sequence[Example]) -> dict[str, int]:
    """Images of each class, by name."""
    counts = Counter(example.label for example in examples)
    return {name: counts[label] for label, name in enumerate(CLASSES)}


def thinned(examples: Sequence[Example], fraction: float) -> tuple[Example, ...]:
    """The first images of each class, rounded down as published, in their order: a smaller
    fraction is part of a larger one. IpslibError where a class would lose all it had."""
    labels = pd.Series([example.label for example in examples])
    of_class = labels.groupby(labels)
    room = (fraction * of_class.transform("size") + 1e-9).astype(int)
    if not room.all():
        name = CLASSES[labels[room == 0].iloc[0]]
        raise IpslibError(
            f"fraction: wanted at least one image of each class, got none of {name}, which has "
            f"{class_counts(examples)[name]}, at {fraction:g}; use a larger fraction."
        )
    return tuple(compress(examples, of_class.cumcount() < room))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a sound image, decoded only where its end is in doubt; IpslibError for a
    missing or damaged one."""
    with opened(path) as image:
        if image.format == "JPEG":
            with path.open("rb") as file:
                file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
                if _END_OF_JPEG not in file.read():
                    image.load()
        return image.height, image.width


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image, open; IpslibError where it is missing or damaged, also while it is in use."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise IpslibError(
            f"{path}: wanted a sound image, got none ({reason}); copy it from its source again, or "
            "delete its line."
        ) from error
