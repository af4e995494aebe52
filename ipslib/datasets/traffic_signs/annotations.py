"""The annotations of the Swedish traffic signs, read as they were published, awkward lines and all.

A line is `NAME.jpg:SIGN;SIGN;...`, one an image; a sign is `MISC_SIGNS`, which has no box, or
`VISIBILITY, x_max, y_max, x_min, y_min, TYPE, NAME` (Larsson and Felsberg, SCIA 2011). Nothing is
mended silently: what is read in another way than it stands is a repair, and an image whose class
could not be trusted is skipped.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

from ipslib.datasets.traffic_signs.report import REPAIRED, SKIPPED, Problem
from ipslib.errors import IpslibError, did_you_mean

ANNOTATIONS = "annotations.txt"
LIMITS = ("50_SIGN", "70_SIGN", "80_SIGN")
CLASSES = ("EMPTY", *LIMITS)
VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")  # the best first
_N_FIELDS = 7
_JPEG_NAME = re.compile(r"(?:[^,;]*?\.jpe?g)?", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d*)?)(\D*)")  # some end in a letter: 403.117l


class Box(NamedTuple):
    """In pixels of the stored image."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def area(self) -> float:
        return (self.x_max - self.x_min) * (self.y_max - self.y_min)


class Sign(NamedTuple):
    visibility: str
    box: Box | None  # None: not readable, and of a sign that decides nothing
    type: str
    name: str


class AnnotatedImage(NamedTuple):
    image: str  # file name
    line: int  # from 1
    signs: tuple[Sign, ...]


class Annotations(NamedTuple):
    images: tuple[AnnotatedImage, ...]
    n_lines: int
    n_misc: int
    problems: tuple[Problem, ...]


class _Defect(Exception):
    """Kind and sentence (wanted, got, remedy) of what is wrong with a sign or a line."""

    def __init__(self, kind: str, sentence: str):
        self.kind, self.sentence = kind, sentence


def read_annotations(path: str | Path) -> Annotations:
    """Read an `annotations.txt`.

    Raises:
        IpslibError: when the file is missing, is no text, or holds no readable line.
    """
    path = Path(path)
    if not path.is_file():
        raise IpslibError(
            f"{path}: wanted the annotations of the Swedish traffic signs, found nothing; put "
            f"{ANNOTATIONS} of that set there, beside its JPEGs."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IpslibError(
            f"{path}: wanted text, got bytes that are none at position {error.start}; fetch the "
            "file again."
        ) from error
    reader = _Reader(path)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            reader.read(number, line)
    if not reader.images:
        raise IpslibError(
            f"{path}: wanted lines NAME.jpg:SIGN;SIGN;..., got none that can be read; fetch the "
            "file again."
        )
    return reader.result()


class _Reader:
    """Reads line by line and keeps what it met."""

    def __init__(self, path: Path):
        self.file = f"{path.parent.name}/{path.name}"
        self.images: dict[str, AnnotatedImage] = {}
        self.problems: list[Problem] = []
        self.n_lines = self.n_misc = self.n_crlf = 0

    def read(self, number: int, line: str) -> None:
        self.n_lines += 1
        self.n_crlf += line.endswith("\r")
        name, colon, signs = line.partition(":")
        name = name.strip() if colon else _JPEG_NAME.match(line)[0].strip()
        try:
            if not colon or not name or re.search(r"[\\/]", name):
                raise _Defect(
                    "no image name",
                    f"wanted NAME.jpg and a colon, got {line.strip()[:40]!r}; correct the line",
                )
            if name in self.images:
                raise _Defect(
                    "second line",
                    f"wanted one line an image, got a second one; took line "
                    f"{self.images[name].line}, delete the wrong one",
                )
            read = [self._sign(number, name, text) for text in signs.split(";") if text.strip()]
        except _Defect as defect:
            self._note(SKIPPED, defect, number, name)
        else:
            found = tuple(sign for sign in read if sign is not None)
            self.images[name] = AnnotatedImage(name, number, found)

    def _sign(self, number: int, name: str, text: str) -> Sign | None:
        """None for MISC_SIGNS. A defect that could change the image's class is raised."""
        fields = [field.strip() for field in text.split(",")]
        if fields[0] == "MISC_SIGNS":
            self.n_misc += 1
            return None
        if len(fields) != _N_FIELDS:
            raise _Defect(
                "wrong number of fields",
                f"wanted {_N_FIELDS} fields a sign, got {len(fields)} in {text.strip()!r}; "
                "correct the line",
            )
        visibility, *numbers, sign_type, sign_name = fields
        try:
            _check_visibility(visibility)
            box = self._box(number, name, numbers)
        except _Defect as defect:
            if sign_name in LIMITS:
                raise
            sentence = f"{defect.sentence}, but no limit sign depends on it"
            self._note(REPAIRED, _Defect(defect.kind, sentence), number, name)
            box = None
        return Sign(visibility, box, sign_type, sign_name)

    def _box(self, number: int, name: str, texts: list[str]) -> Box:
        values = []
        for text in texts:
            match = _NUMBER.fullmatch(text)
            if not match or not math.isfinite(float(match[1])):
                raise _Defect(
                    "no number", f"wanted a coordinate in pixels, got {text!r}; correct the line"
                )
            if match[2]:
                cut = f"wanted a coordinate in pixels, got {text!r}; read it as {match[1]}"
                self._note(REPAIRED, _Defect("trailing letters", cut), number, name)
            values.append(float(match[1]))
        x_max, y_max, x_min, y_min = values
        if not (x_min < x_max and y_min < y_max):
            raise _Defect(
                "inverted box",
                f"wanted a box whose x_max, y_max ({x_max:g}, {y_max:g}) lie beyond its x_min, "
                f"y_min, got ({x_min:g}, {y_min:g}); exchange the corners in the line",
            )
        return Box(x_min, y_min, x_max, y_max)

    def _note(self, action: str, defect: _Defect, number: int, name: str) -> None:
        message = f"{self.file} line {number} ({name or 'no name'}): {defect.sentence}."
        self.problems.append(Problem(action, defect.kind, self.file, number, name, message))

    def result(self) -> Annotations:
        problems = list(self.problems)
        if self.n_crlf:
            message = (
                f"{self.file}: wanted lines that end in LF, got {self.n_crlf} that end in CRLF; "
                "read them alike."
            )
            problems.append(Problem(REPAIRED, "CRLF", self.file, None, None, message))
        return Annotations(tuple(self.images.values()), self.n_lines, self.n_misc, tuple(problems))


def _check_visibility(visibility: str) -> None:
    if visibility not in VISIBILITIES:
        hint = did_you_mean(visibility, VISIBILITIES)
        raise _Defect(
            "unknown visibility", f"unknown visibility {visibility!r}{hint}; correct the line"
        )
