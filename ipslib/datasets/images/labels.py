"""Tables of labels as people have them: what is clear is read and said, what is not is refused."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from ipslib.errors import IpslibError, did_you_mean
from ipslib.patches import SPLITS
from ipslib.paths import found

IMAGE, SPLIT = "image", "split"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_SEPARATORS = (",", ";", "\t", "|")
_UNKNOWN = re.compile(  # what pandas, R and Excel write for a value that there is not, or no more
    r"\??|-?nan|#?n/?a|<na>|nat|null|(?-i:None)|[+-]?inf(inity)?|-?1\.#(ind|qnan)|#.*[!?]"
    r"|\d\.\d+E\+\d+",
    re.IGNORECASE,
)
_UNNAMED = re.compile(r"(unnamed: .*)?", re.IGNORECASE)  # as pandas reads an index it exported
_ID = "[ _-]?(id|no|nr|number)"
_OF_GROUPS = re.compile(
    rf"(group|patient|subject|participant|donor)s?({_ID}|[ _-]?name)?|(case|slide){_ID}",
    re.IGNORECASE,
)
_OF_SPLITS = re.compile(rf"(cv|k|outer|inner)?[ _-]?folds?({_ID})?", re.IGNORECASE)
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_FEW = 4  # classes, which any column may have; of more, a class has
_IMAGES_A_CLASS = 3  # images on average, or they are names
_MANY = 12  # whole numbers; more of them are a count, or they are measurements


class Table(NamedTuple):
    """A table of text, and what it says of images."""

    columns: dict[str, list[str]]
    lines: list[int]  # of the file, where each row ends
    notes: tuple[str, ...]  # sentences: how it was read, where that does not go without saying
    tasks: tuple[str, ...] = ()  # columns of labels
    group: str = ""  # the column of what images belong to; empty: none


def read_rows(path: str | Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Number and cells of every line that is not empty, and sentences on how they were read: cells
    between commas, semicolons, tabs or bars; UTF-8, UTF-16, UTF-32, or Windows' western Europe."""
    text, encoding = _decoded(Path(path))
    first = next((line for line in text.splitlines() if line.strip()), "")
    if declared := re.fullmatch(rf"sep=([{''.join(_SEPARATORS)}])\s*", first, re.IGNORECASE):
        separator, text = declared[1], text.replace(first, "", 1)  # as Excel does
    else:
        separator = max(_SEPARATORS, key=lambda s: len(next(csv.reader([first], delimiter=s), [])))
    content = io.StringIO(text, newline="")
    reader = csv.reader(content, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        place = f"line {reader.line_num} ({error})"
        raise IpslibError(f"{path}: wanted a table, could not read {place}; correct it.") from error
    notes = [f"read as {encoding}."] * (encoding != "utf-8-sig")
    notes += [f"read as separated by {separator!r}."] * (separator != ",")
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise IpslibError(f"{path}: wanted a table, got an empty file; correct it.")
    return rows, notes


def _decoded(path: Path) -> tuple[str, str]:
    """The text, and in what encoding it was."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"({error.strerror})"
        raise IpslibError(f"{path}: wanted a table, got none {reason}; correct it.") from error
    encodings = ["utf-8-sig", "cp1252"]
    if b"\0" in content:
        encodings = ["utf-32", "utf-16-be" if content[:1] == b"\0" else "utf-16"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if all(c in "\t\r\n" or unicodedata.category(c) != "Cc" for c in set(text)):
                return text, encoding
    raise IpslibError(f"{path}: wanted text, got a workbook or other bytes; save it as CSV, UTF-8.")


def read_table(path: str | Path) -> Table:
    """Read a table with a heading, without columns that have no name, such as an exported index;
    IpslibError where it cannot be read, rows differ in length, or two columns have one name."""
    ((_, names), *rows), notes = read_rows(path)
    names = [unicodedata.normalize("NFC", name) for name in names]
    if rows and all(len(cells) == len(names) + 1 for _, cells in rows):
        names = ["", *names]  # R's row names
    for line, cells in rows:
        if len(cells) != len(names):
            wanted = f"{len(names)} cells ({', '.join(names)})"
            raise IpslibError(f"{path}: wanted {wanted}, got {len(cells)} in line {line}.")
    columns = {}
    for name, *cells in zip(names, *(cells for _, cells in rows), strict=True):
        if name in columns:
            raise IpslibError(f"{path}: wanted one column {name!r}, got two; rename one of them.")
        if not _UNNAMED.fullmatch(name):
            columns[name] = cells
        elif any(cells):
            notes.append("a column without a name, such as an exported index, is left out.")
    return Table(columns, [line for line, _ in rows], tuple(notes))


def read_labels(
    path: str | Path,
    *,
    group: str | None = None,
    tasks: str | Sequence[str] | None = None,
    several: str | Sequence[str] = (),
    numbers: str | Sequence[str] = (),
) -> Table:
    """Read what a table says of images: the columns that count, what is unclear refused by column
    and line.

    Args:
        path: of the table: a column `image`, perhaps `split` (train or test), and labels.
        group: the column of what images belong to, such as `patient`, which no split may tear;
            the one that is called so if None, none if empty.
        tasks: columns of labels; all others if None, and then each must look like one.
        several: tasks with any number of labels in a cell, `a|b`; `|` alone is none of them.
        numbers: tasks of numbers.
    """
    path = found(path)
    table = read_table(path)
    columns = {
        name.casefold() if name.casefold() in (IMAGE, SPLIT) else name: cells
        for name, cells in table.columns.items()
    }
    others = [name for name in columns if name not in (IMAGE, SPLIT)]
    if IMAGE not in columns or not others or len(columns) < len(table.columns) or not table.lines:
        raise IpslibError(
            f"{path}: wanted lines under one column {IMAGE!r} and at least one of labels, got "
            f"{len(table.lines)} lines under {', '.join(table.columns)}; correct the heading."
        )
    tasks, several, numbers = (
        [names] if isinstance(names, str) else names for names in (tasks, several, numbers)
    )
    special = [*several, *numbers]
    for name in [*{group} - {None, ""}, *(tasks or []), *special]:
        if name not in others:
            hint = did_you_mean(name, others)
            raise IpslibError(f"{path}: wanted a column {name!r}, found none{hint}.")
    if len(set(special)) < len(special) or group in special:
        raise IpslibError(f"{path}: wanted each column once in group, several and numbers.")
    named = {*(tasks or []), *special}
    of_groups = [n for n in others if _OF_GROUPS.fullmatch(n) and n not in named]
    if group is None:
        group = _coarsest(path, {name: columns[name] for name in of_groups})
    if tasks is None:
        counts = [[str(i + first) for i in range(len(table.lines))] for first in (0, 1)]
        is_count = {n for n in others if len(table.lines) > _FEW and columns[n] in counts}
        tasks = [n for n in others if n not in {group, *of_groups, *is_count}]
        for name in tasks:
            if name not in special:
                _check_looks_like_labels(path, name, columns[name])
    tasks = [*tasks, *(name for name in special if name not in tasks)]
    if not tasks:
        raise IpslibError(f"{path}: wanted a column of labels, got none; name one as a task.")
    check = dict.fromkeys(several, _checked_sets) | dict.fromkeys(numbers, _checked_numbers)
    used = {
        name: check.get(name, _checked)(path, name, columns[name], table.lines)
        for name in (IMAGE, SPLIT, group, *tasks)
        if name in columns
    }
    notes = [*table.notes, *[f"images of one {group} are kept together."] * bool(group)]
    left_out = [name for name in others if name not in used]
    notes += [f"column {name!r} is none of labels and left out." for name in left_out]
    notes += _check_split(path, used, group)
    return Table(used, table.lines, tuple(notes), tuple(tasks), group)


def _n_torn(groups: Sequence[str], parts: Sequence[str]) -> int:
    """How many of the groups, counted once for each further part, lie in several parts."""
    return len(set(zip(groups, parts, strict=True))) - len(set(groups))


def _check_split(path: Path, columns: dict[str, list[str]], group: str) -> list[str]:
    """Refuse a column of parts that lacks one; drop one that tears groups, and say so."""
    if SPLIT not in columns:
        return []
    columns[SPLIT] = parts = [part.casefold() for part in columns[SPLIT]]
    if set(parts) != set(SPLITS):
        got = ", ".join(sorted(set(parts)))
        raise IpslibError(f"{path}: wanted train and test in column {SPLIT!r}, got {got}.")
    n_torn = _n_torn(columns[group], parts) if group else 0
    if not n_torn:
        return []
    del columns[SPLIT]
    anew = 'images are split anew, each of them whole (group="" keeps the column)'
    return [f"column {SPLIT!r} has {n_torn} of {group} in both parts and is not used; {anew}."]


def _coarsest(path: Path, columns: dict[str, list[str]]) -> str:
    """The column of groups that tears none of another: patients, not their slides."""
    for name, groups in columns.items():
        if not any(_n_torn(others, groups) for others in columns.values()):
            return name
    if not columns:
        return ""
    raise IpslibError(
        f"{path}: wanted one column of what images belong to, got {', '.join(columns)}, which cut "
        "across each other; name one as group."
    )


def _check_looks_like_labels(path: Path, name: str, cells: Sequence[str]) -> None:
    """Refuse a column that nobody called labels and that looks like something else."""
    known = [cell for cell in cells if not _is_unknown(cell)]
    values = set(known)
    numbers = [float(value) for value in values if NUMBER.fullmatch(value)]
    has_gaps = len(numbers) > _MANY and max(numbers) - min(numbers) >= len(numbers)
    several = [value for value in values if _holds_several(value, values)]
    if len(values) < 2:
        looks = f"{len(values)} class"
    elif _OF_SPLITS.fullmatch(name) or {value.casefold() for value in values} <= _PARTS:
        looks = f"parts of a split (call the one that is meant {SPLIT!r})"
    elif several:
        looks = f"several labels in a cell, as {several[0]!r} (name it in several, with | between)"
    elif len(numbers) == len(values) and (has_gaps or any(number % 1 for number in numbers)):
        looks = f"{len(values)} measurements (name it in numbers)"
    elif len(values) > _FEW and len(known) < _IMAGES_A_CLASS * len(values):
        looks = f"{len(values)} values in {len(known)} lines"
    else:
        return
    raise IpslibError(
        f"{path}: wanted classes in column {name!r}, got what looks like {looks}; name the columns "
        "that are labels as tasks, and one of patients or the like as group."
    )


def _holds_several(value: str, values: set[str]) -> bool:
    """Whether a value is put together of others."""
    for mark in (";", "|", ","):
        parts = {part.strip() for each in values for part in each.split(mark)}
        if mark in value and (len(parts) < len(values) or parts & values):
            return True
    return False


def _is_unknown(cell: str) -> bool:
    return bool(_UNKNOWN.fullmatch(_visible(cell).strip()))


def _visible(cell: str) -> str:
    """Without marks of no width, which copied text brings along."""
    return "".join(letter for letter in cell if unicodedata.category(letter) != "Cf")


def _checked_sets(path: Path, name: str, cells: list[str], lines: Sequence[int]) -> list[str]:
    """Cells of several labels, each set in one order; checked as `_checked` does."""
    sets = [[] if cell == "|" else cell.split("|") for cell in cells]
    labels = [label.strip() for each in sets for label in each]
    of_label = [line for line, each in zip(lines, sets, strict=True) for _ in each]
    checked = iter(_checked(path, name, labels, of_label))
    return ["|".join(sorted({next(checked) for _ in each})) for each in sets]


def _checked_numbers(path: Path, name: str, cells: list[str], lines: Sequence[int]) -> list[str]:
    for cell, line in zip(cells, lines, strict=True):
        if not NUMBER.fullmatch(cell) or not isfinite(float(cell)):
            raise IpslibError(
                f"{path}: wanted numbers in column {name!r}, got {cell!r} in line {line}."
            )
    return cells


def _checked(path: Path, name: str, cells: list[str], lines: Sequence[int]) -> list[str]:
    """Cells that all say something, each in one spelling; 1.0, as pandas writes whole numbers
    beside a gap, is 1, and letters with accents are single ones."""
    unknown = [i for i, cell in enumerate(cells) if _is_unknown(cell)]
    if unknown:
        got = f"{cells[unknown[0]]!r} in line {lines[unknown[0]]} (lines like it: {len(unknown)})"
        raise IpslibError(
            f"{path}: wanted a value in each line of column {name!r}, got {got}; delete them, or "
            "call a class that is called so otherwise."
        )
    if name == IMAGE:  # as the file is called
        return cells
    cells = [unicodedata.normalize("NFC", cell) for cell in cells]
    if all(map(_WHOLE.fullmatch, cells)):
        cells = [_WHOLE.sub(r"\1", cell) for cell in cells]
    first: dict[str | float, int] = {}
    for i, cell in enumerate(cells):
        other = first.setdefault(_spelt(cell), i)
        if cells[other] != cell:
            got = f"{cells[other]!r} in line {lines[other]} and {cell!r} in line {lines[i]}"
            raise IpslibError(f"{path}: wanted one spelling in column {name!r}, got {got}.")
    return cells


def _spelt(cell: str) -> str | float:
    """The same for what differs only in capitals, spaces, marks of no width or how a number is
    written; long identifiers of digits are told apart, fractions as far as floats are exact."""
    if NUMBER.fullmatch(cell):
        whole = _WHOLE.fullmatch(cell)
        return int(whole[1]) if whole else float(f"{float(cell):.15g}")
    return " ".join(unicodedata.normalize("NFKC", _visible(cell)).casefold().split())


def files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where the images of a table lie; one from Windows has other slashes, and a Mac takes letters
    with accents apart."""
    files = []
    for name in names:
        slashed = name.replace("\\", "/")
        forms = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
        written = (folder / each for each in (name, slashed, *forms))
        files.append(next((file for file in written if file.exists()), folder / name))
    return files


def labels_in(cell: str, is_set: bool) -> list[str]:
    """The labels that a cell holds: one, or of a set any number."""
    return [label for label in cell.split("|") if label] if is_set else [cell]
