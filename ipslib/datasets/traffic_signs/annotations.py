"""The annotations of the Swedish traffic signs, and what the published filter makes of them.

A line is `NAME.jpg:SIGN;SIGN;...`, one per image; a sign is `MISC_SIGNS`, which has no box, or
`VISIBILITY, x_max, y_max, x_min, y_min, TYPE, NAME` (Larsson and Felsberg, SCIA 2011). Nothing is
mended silently: what is read in another way than it stands is a repair, and an image whose class
could not be trusted is skipped.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ipslib.errors import IpslibError, did_you_mean

ANNOTATIONS = "annotations.txt"
LIMITS = ("50_SIGN", "70_SIGN", "80_SIGN")
CLASSES = ("EMPTY", *LIMITS)
VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")  # the best first
OTHER_SIGNS, NOT_VISIBLE = "other signs only", "limit sign not VISIBLE"
REPAIRED, SKIPPED = "repaired", "skipped"
_FIELDS = "VISIBILITY, x_max, y_max, x_min, y_min, TYPE, NAME"
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


class Problem(NamedTuple):
    """One thing that is not as it should be, and what was done about it."""

    action: str  # repaired: read as meant; skipped: the image is not used
    kind: str
    file: str
    line: int | None  # from 1
    image: str | None
    message: str  # one sentence: where, wanted, got, remedy


class Annotations(NamedTuple):
    images: tuple[AnnotatedImage, ...]
    n_lines: int
    n_misc: int
    problems: tuple[Problem, ...]


class Verdict(NamedTuple):
    """What the published filter says of an image: a class, or why it is left out."""

    label: int | None
    boxes: tuple[Box, ...] = ()  # every VISIBLE sign of the class, the deciding one first
    left_out: str | None = None


class ReadReport(NamedTuple):
    """What reading a set found; counts are of images, problems are in the order of the file."""

    name: str
    n_lines: int
    n_misc: int  # MISC_SIGNS entries, which have no box and are passed over as published
    kept: dict[str, int]  # by class
    left_out: dict[str, int]  # by reason, as published
    problems: tuple[Problem, ...]

    @property
    def repaired(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.action == REPAIRED)

    @property
    def skipped(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.action == SKIPPED)


def judge(signs: Sequence[Sign]) -> Verdict:
    """Of Katharopoulos and Fleuret, arXiv 1905.03711: no sign is EMPTY; else the best limit sign
    (visibility, then area) decides, if VISIBLE."""
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


def read_annotations(path: str | Path) -> Annotations:
    """Read an `annotations.txt`.

    Raises:
        IpslibError: when the file is missing, is no text, or holds no readable line.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise IpslibError(
            f"{path}: wanted the annotations of a set, could not read them ({error}); put the "
            f"published {ANNOTATIONS} there, beside the JPEGs."
        ) from error
    reader = _Reader(f"{path.parent.name}/{path.name}")
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, line in lines:
        reader.read(number, line)
    if not reader.images:
        raise IpslibError(
            f"{path}: wanted lines NAME.jpg:SIGN;SIGN;..., got none that can be read; put the "
            "published file there."
        )
    n_crlf = sum(line.endswith("\r") for _, line in lines)
    if n_crlf:
        message = f"{reader.file}: wanted lines that end in LF, got {n_crlf} in CRLF; read alike."
        reader.problems.append(Problem(REPAIRED, "CRLF", reader.file, None, None, message))
    images, problems = tuple(reader.images.values()), tuple(reader.problems)
    return Annotations(images, len(lines), reader.n_misc, problems)


class _Defect(Exception):
    """Kind and sentence (wanted, got, remedy) of what is wrong with a sign or a line."""

    def __init__(self, kind: str, sentence: str):
        self.kind, self.sentence = kind, sentence


class _Reader:
    """Reads line by line and keeps what it met."""

    def __init__(self, file: str):
        self.file, self.n_misc = file, 0
        self.images: dict[str, AnnotatedImage] = {}
        self.problems: list[Problem] = []

    def read(self, number: int, line: str) -> None:
        name, colon, signs = line.partition(":")
        name = name.strip() if colon else _JPEG_NAME.match(line)[0].strip()
        try:
            if not colon or not name or re.search(r"[\\/]", name):
                got = f"{line.strip()[:40]!r}; correct the line"
                raise _Defect("no image name", f"wanted NAME.jpg and a colon, got {got}")
            if name in self.images:
                got = f"a second one; took line {self.images[name].line}, delete the wrong one"
                raise _Defect("second line", f"wanted one line per image, got {got}")
            read = [self._sign(number, name, text) for text in signs.split(";") if text.strip()]
        except _Defect as defect:
            self._note(SKIPPED, defect.kind, defect.sentence, number, name)
        else:
            found = tuple(sign for sign in read if sign is not None)
            self.images[name] = AnnotatedImage(name, number, found)

    def _sign(self, number: int, name: str, text: str) -> Sign | None:
        """None for MISC_SIGNS. A defect that could change the image's class is raised."""
        fields = [field.strip() for field in text.split(",")]
        if fields[0] == "MISC_SIGNS":
            self.n_misc += 1
            return None
        if len(fields) != len(_FIELDS.split(",")):
            got = f"{len(fields)} in {text.strip()!r}; correct the line"
            raise _Defect("wrong number of fields", f"wanted {_FIELDS}, got {got}")
        visibility, *numbers, sign_type, sign_name = fields
        try:
            if visibility not in VISIBILITIES:
                hint = did_you_mean(visibility, VISIBILITIES)
                sentence = f"unknown visibility {visibility!r}{hint}; correct the line"
                raise _Defect("unknown visibility", sentence)
            box = self._box(number, name, numbers)
        except _Defect as defect:
            if sign_name in LIMITS:
                raise
            sentence = f"{defect.sentence}, but no limit sign depends on it"
            self._note(REPAIRED, defect.kind, sentence, number, name)
            box = None
        return Sign(visibility, box, sign_type, sign_name)

    def _box(self, number: int, name: str, texts: Iterable[str]) -> Box:
        corners = []
        for text in texts:
            wanted = f"wanted a coordinate in pixels, got {text!r}"
            match = _NUMBER.fullmatch(text)
            if not match or not math.isfinite(float(match[1])):
                raise _Defect("no number", f"{wanted}; correct the line")
            if match[2]:
                sentence = f"{wanted}; read it as {match[1]}"
                self._note(REPAIRED, "trailing letters", sentence, number, name)
            corners.append(float(match[1]))
        x_max, y_max, x_min, y_min = corners
        if not (x_min < x_max and y_min < y_max):
            raise _Defect(
                "inverted box",
                f"wanted x_max, y_max beyond x_min, y_min, got ({x_max:g}, {y_max:g}) and "
                f"({x_min:g}, {y_min:g}); exchange the corners in the line",
            )
        return Box(x_min, y_min, x_max, y_max)

    def _note(self, action: str, kind: str, sentence: str, number: int, name: str) -> None:
        message = f"{self.file} line {number} ({name or 'no name'}): {sentence}."
        self.problems.append(Problem(action, kind, self.file, number, name, message))
