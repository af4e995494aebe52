"""What is known of CAMELYON16: names, splits, corrections, and where its files lie.

Ehteshami Bejnordi et al., JAMA 2017, doi 10.1001/jama.2017.14585: 159 normal and 111 tumour
slides to train on and 129 to test on, after the corrections of the data set's own notes.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ipslib.datasets.images.files import file_id
from ipslib.datasets.slides.slide import SUFFIXES
from ipslib.errors import IpslibError

REMOVED = {
    "normal_086": "it was labelled wrongly and is tumor_111",
    "test_049": "it is a duplicate",
}
_TUMOUR = (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
# Slides of which not every metastasis is outlined: never ask there whether attention is right.
NOT_EXHAUSTIVE = frozenset({f"tumor_{n:03d}" for n in _TUMOUR} | {"test_114"})
_NAME = re.compile(r"(normal|tumor|test)_(\d+)", re.IGNORECASE)
_CLASSES = {
    "normal": 0, "negative": 0, "0": 0,
    "tumor": 1, "tumour": 1, "positive": 1, "1": 1,
}  # fmt: skip
_NAME_COLUMNS = ("slide_id", "slide", "image", "name", "filename", "file", "bag_name")
_LABEL_COLUMNS = ("label", "type", "class", "diagnosis")


class Labelled(NamedTuple):
    """Labels of slides by name, and why the others have none."""

    labels: dict[str, int]  # 0 normal, 1 tumour
    skipped: dict[str, str]


def canonical_name(name: str) -> str:
    """The name of a slide as the data set spells it: `Normal_86` is `normal_086`."""
    match = _NAME.fullmatch(name)
    return f"{match[1].lower()}_{int(match[2]):03d}" if match else name


def split_of(name: str) -> str | None:
    """`train` or `test` by the official split; None where the name is none of CAMELYON16."""
    match = _NAME.fullmatch(name)
    return match and ("test" if match[1].lower() == "test" else "train")


def read_labels(path: str | Path) -> dict[str, int]:
    """Labels from a table: the official `reference.csv`, or any CSV that names slide and class.

    With a heading, the columns are found by it; without, they are the first two.

    Returns:
        {slide: 0 normal, 1 tumour}.

    Raises:
        IpslibError: when it is missing, or a row says no class.
    """
    path = file_id(path).path
    rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(row)]
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    name_at = next((heading.index(c) for c in _NAME_COLUMNS if c in heading), None)
    label_at = next((heading.index(c) for c in _LABEL_COLUMNS if c in heading), None)
    if name_at is None or label_at is None:
        name_at, label_at = 0, 1
    else:
        rows = rows[1:]
    labels = {}
    for number, row in enumerate(rows, start=1):
        said = row[label_at].strip().lower() if len(row) > label_at else ""
        if said not in _CLASSES:
            raise IpslibError(
                f"{path}: wanted a slide and its class, normal or tumor, in every row, got "
                f"{','.join(row)!r} (row {number}); correct it."
            )
        labels[canonical_name(_stem(row[name_at]))] = _CLASSES[said]
    return labels


def stored_class(said: object) -> int | None:
    """The class that an attribute of HDF5 says: a number as it is, a word, or an array of one;
    None where it says none.
    """
    values = np.ravel(said).tolist()
    value = values[0] if len(values) == 1 else None
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    if isinstance(value, str):
        value = _CLASSES.get(value.strip().lower())
    is_whole = isinstance(value, int | float) and value % 1 == 0
    return int(value) if is_whole else None


def label_slides(names: Iterable[str], table: Mapping[str, int] | None = None) -> Labelled:
    """Labels of slides: from the table where they stand in it, else from their names.

    Args:
        names: of the slides that there are.
        table: of `read_labels`, or what bags say; the names of test slides say nothing.

    Returns:
        Labels, and a sentence for every slide without one, removed officially, or in the table
        and not there.
    """
    names, table = list(names), dict(table or {})
    labels, skipped = {}, {}
    for name in names:
        known = canonical_name(name)
        match = _NAME.fullmatch(name)
        from_name = {"normal": 0, "tumor": 1}.get(match[1].lower()) if match else None
        if known in REMOVED:
            skipped[name] = f"{name}: left out, since {REMOVED[known]} (official correction)."
        elif (label := table.get(known, from_name)) is None:
            skipped[name] = (
                f"{name}: wanted a label, found none in its name, its bag or the table of labels; "
                "add it."
            )
        else:
            labels[name] = label
    present = {canonical_name(name) for name in names}
    for name in table.keys() - present - REMOVED.keys():
        skipped[name] = f"{name}: wanted the slide of this label, found none; copy it, or ignore."
    return Labelled(labels, dict(sorted(skipped.items())))


def find_slides(folder: str | Path) -> dict[str, Path]:
    """Slides below a folder by name, without the masks that lie beside them.

    Raises:
        IpslibError: when there is none, or two have one name.
    """
    found = _by_stem(Path(folder), SUFFIXES, "slide")
    found = {name: path for name, path in found.items() if not name.lower().endswith("_mask")}
    if not found:
        raise IpslibError(
            f"{folder}: wanted slides ({', '.join(SUFFIXES)}), found none; correct the folder."
        )
    return found


def find_annotations(folder: str | Path) -> dict[str, Path]:
    """Annotation files below a folder by the canonical name of their slide."""
    found = _by_stem(Path(folder), (".xml",), "annotation")
    return {canonical_name(name): path for name, path in found.items()}


def _by_stem(folder: Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise IpslibError(f"{folder}: wanted a folder of {what}s, found none; correct the path.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if path.stem in found:
            raise IpslibError(
                f"{path}: wanted one {what} of a name, got {found[path.stem]} too; remove one."
            )
        found[path.stem] = path
    return found


def _stem(cell: str) -> str:
    name = cell.strip()
    known = (*SUFFIXES, ".xml", ".h5", ".pt", ".npy")
    return Path(name).stem if Path(name).suffix.lower() in known else name
