"""What is known of CAMELYON16: names, splits, labels and corrections, where its files lie, and what
a run on bags of it is made of.

Ehteshami Bejnordi et al., JAMA 2017, doi 10.1001/jama.2017.14585: 159 normal and 111 tumour
slides to train on and 129 to test on, after the corrections of the data set's own notes.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import numpy as np

from ipslib.datasets.images.labels import read_rows
from ipslib.errors import IpslibError
from ipslib.fields import flag, integer
from ipslib.patches import Dataset

TASK = "tumour"
REMOVED = {
    "normal_086": "it was labelled wrongly and is tumor_111",
    "test_049": "it is a duplicate",
}
_TUMOUR = (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
# Slides of which not every metastasis is outlined: never ask there whether attention is right.
NOT_EXHAUSTIVE = frozenset({f"tumor_{n:03d}" for n in _TUMOUR} | {"test_114"})
SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide")
_ENDINGS = (*SUFFIXES, ".xml", ".h5", ".hdf5", ".pt", ".npy", ".npz")  # of files named for a slide
_NAME = re.compile(r"(normal|tumou?r|test)_(\d+)", re.IGNORECASE)
_CLASSES = {
    "normal": 0, "negative": 0, "tumor": 1, "tumour": 1, "positive": 1,
}  # fmt: skip
_NAME_COLUMNS = ("slide_id", "slide", "image", "name", "filename", "file", "bag_name")
_LABEL_COLUMNS = ("label", "type", "class", "diagnosis")

# {slide: 0 normal, 1 tumour}, and {slide: a sentence} that says why it has none
Labelled = tuple[dict[str, int], dict[str, str]]


@attrs.frozen(kw_only=True)
class SlidesConfig:
    """Bags of CAMELYON16, or of slides that are named as its are.

    The hash is of labels and features of the bags, so that a run belongs to them.
    """

    bags: str  # folder of the bags, relative to the project where it lies inside
    labels: str = ""  # path of the CSV of labels; "": they follow from the names
    bags_sha256: str
    in_channels: int = integer(2048)  # D, features of a patch
    standin: bool = flag(False)  # any slide was drawn: no result is one of real slides

    kind = "slides"
    tasks = (TASK,)
    patch_size = None  # of features
    grid = None  # slides differ in size

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return {TASK: 2}

    @property
    def is_synthetic(self) -> bool:
        return self.standin

    @property
    def source(self) -> str:
        """What results are made of, in words."""
        what = "SYNTHETIC slides, drawn and not real," if self.standin else "the slides"
        return f"{what} of {Path(self.bags).name}"

    @property
    def short_name(self) -> str:
        return f"{'standin' if self.standin else 'slides'}_{Path(self.bags).name}"

    def open_split(self, split: str) -> Dataset:
        from ipslib.datasets.slides.bags import open_slides  # and HDF5

        return open_slides(self, split)


def canonical_name(name: object) -> str:
    """The name of a slide as the data set spells it, without a file's ending: `Normal_86.tif` is
    `normal_086`."""
    name = str(name).strip()
    ending = next((each for each in _ENDINGS if name.lower().endswith(each)), "")
    name = name[: len(name) - len(ending)]
    match = _NAME.fullmatch(name)
    return f"{match[1].lower().replace('tumour', 'tumor')}_{int(match[2]):03d}" if match else name


def split_of(name: str) -> str | None:
    """`train` or `test` by the official split; None where the name is none of CAMELYON16."""
    match = _NAME.fullmatch(canonical_name(name))
    return match and ("test" if match[1] == "test" else "train")


def said_class(said: object) -> int | None:
    """The class that a cell, an attribute of HDF5 or an array of one says: a whole number of any
    type, or a word; None where it says none."""
    values = np.ravel(np.asarray(said, object)).tolist()
    value = values[0] if len(values) == 1 else None
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    if isinstance(value, str):
        word = value.strip().lower()
        value = _CLASSES.get(word, word)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number % 1 == 0 else None  # NaN and infinity are no class either


def by_slide(labels: Iterable[tuple[object, object]]) -> dict[str, object]:
    """Labels by the canonical name of their slide; IpslibError when two of a slide differ."""
    found: dict[str, object] = {}
    for name, said in labels:
        known = canonical_name(name)
        if known in found and said_class(found[known]) != said_class(said):
            raise IpslibError(
                f"{name}: wanted one label of a slide, got {found[known]!r} and {said!r}; correct "
                "one."
            )
        found[known] = said
    return found


def read_labels(path: str | Path) -> dict[str, int]:
    """Labels from a table, {slide: 0 normal, 1 tumour}: of the official `reference.csv`, or any CSV
    that names slide and class. With a heading, the columns are found by it; without, they are the
    first two.

    Raises:
        IpslibError: when it is missing, a row says no class, or two rows contradict each other.
    """
    (rows, _), labels = read_rows(path), []
    heading = [cell.lower() for cell in rows[0][1]]
    names, classes = (
        [heading.index(name) for name in known if name in heading]
        for known in (_NAME_COLUMNS, _LABEL_COLUMNS)
    )
    has_heading = bool(names and classes)
    name_at, label_at = (names[0], classes[0]) if has_heading else (0, 1)
    for line, cells in rows[has_heading:]:
        label = said_class(cells[label_at]) if label_at < len(cells) else None
        if label not in (0, 1):
            raise IpslibError(
                f"{path}: wanted a slide and its class, normal or tumor, in every line, got "
                f"{','.join(cells)!r} in line {line}; correct it."
            )
        labels.append((cells[name_at], label))
    if not labels:
        raise IpslibError(f"{path}: wanted a label in every line, got a heading alone; add them.")
    return by_slide(labels)


def label_slides(names: Iterable[str], table: Mapping[str, int] | None = None) -> Labelled:
    """Labels of slides: from a table, as of `read_labels`, where they stand in it, else from their
    names, of which those of test slides say nothing. Told are slides without a label, those that
    are removed officially, and labels without a slide."""
    names, table = list(names), by_slide((table or {}).items())
    labels, skipped = {}, {}
    for name in names:
        known = canonical_name(name)
        label = table.get(known, _CLASSES.get(known.split("_")[0]) if split_of(name) else None)
        if known in REMOVED:
            skipped[name] = f"{name}: left out, since {REMOVED[known]} (official correction)."
        elif label is None:
            skipped[name] = (
                f"{name}: wanted a label, found none in its name, its bag or the table of labels; "
                "add it."
            )
        else:
            labels[name] = label
    for name in table.keys() - set(map(canonical_name, names)) - REMOVED.keys():
        skipped[name] = f"{name}: wanted the slide of this label, found none; copy it, or ignore."
    return labels, dict(sorted(skipped.items()))


def find_slides(folder: str | Path) -> dict[str, Path]:
    """Slides below a folder by name, without the masks that lie beside them; IpslibError when there
    is none, or two have one name."""
    return {path.stem: path for path in _by_name(Path(folder), SUFFIXES, "slide").values()}


def find_annotations(folder: str | Path) -> dict[str, Path]:
    """Annotation files below a folder by the canonical name of their slide; errors as of
    `find_slides`."""
    return _by_name(Path(folder), (".xml",), "annotation")


def _by_name(folder: Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("[!.]*")):  # macOS writes ._NAME beside files on others' disks
        name, is_mask = canonical_name(path.name), path.stem.lower().endswith("_mask")
        if path.suffix.lower() not in suffixes or is_mask or not path.is_file():
            continue
        if name in found:
            raise IpslibError(
                f"{path}: wanted one {what} of a name, got {found[name]} too; remove one."
            )
        found[name] = path
    if not found:
        raise IpslibError(
            f"{folder}: wanted a folder of {what}s ({', '.join(suffixes)}), found none; correct "
            "the path."
        )
    return found
