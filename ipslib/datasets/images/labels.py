"""Tables of labels as people have them: what can be told is read and said, what cannot is refused.

image,split,species
photos/0001.jpg,train,oak
photos/0002.jpg,test,beech
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ipslib.errors import IpslibError, did_you_mean

IMAGE, SPLIT, SPLITS = "image", "split", ("train", "test")

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_WORKBOOKS = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_UNKNOWN = re.compile(  # what pandas, R and Excel write for a value that there is not, or no more
    r"\??|-?nan|#?n/?a|<na>|nat|null|[+-]?inf(inity)?|-?1\.#(ind|qnan)|#.*[!?]|\d\.\d+E\+\d+",
    re.IGNORECASE,
)
_UNNAMED = re.compile(r"(unnamed: .*)?", re.IGNORECASE)  # as pandas reads an index it exported
_OF_GROUPS = re.compile(
    r"(group|patient|subject|participant|donor)s?([ _-]?(id|no|nr|number|name))?"
    r"|(case|slide)[ _-]?(id|no|nr|number)",
    re.IGNORECASE,
)
_OF_SPLITS = re.compile(r"(cv|k|outer|inner)?[ _-]?folds?[ _-]?(id|no|nr|number)?", re.IGNORECASE)
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_FEW = 4  # classes, which any column may have; of more, a class has
_IMAGES_A_CLASS = 3  # images on average, or they are names
_MANY = 12  # whole numbers; more of them are a count, or they are measurements


class Table(NamedTuple):
    """A table of text."""

    columns: dict[str, list[str]]
    lines: list[int]  # of the file, where each row ends
    notes: tuple[str, ...]  # sentences: how it was read, where that does not go without saying


class Labels(NamedTuple):
    """What a table says of images."""

    columns: dict[str, list[str]]  # `image`, `split` and the groups where there are any, the tasks
    lines: list[int]  # of the file
    tasks: tuple[str, ...]
    group: str  # a column; empty: none
    notes: tuple[str, ...]


def read_table(path: str | Path) -> Table:
    """Read a table of text with a heading: cells between commas, semicolons, tabs or bars; UTF-8,
    UTF-16, or the Windows code page of western Europe. Empty lines are left out, and so are
    columns without a name, such as the index of a table that was exported.

    Raises:
        IpslibError: when it cannot be read, rows differ in length, or two columns have one name.
    """
    text, encoding = _decoded(Path(path))
    separator, (heading, *rows) = _cells(path, text)
    names = [unicodedata.normalize("NFC", name) for name in heading[1]]
    if rows and all(len(cells) == len(names) + 1 for _, cells in rows):
        names = ["", *names]  # R's row names
    for line, cells in rows:
        if len(cells) != len(names):
            raise IpslibError(
                f"{path}: wanted {len(names)} cells ({', '.join(names)}), got {len(cells)} in line "
                f"{line}, read as separated by {_SEPARATORS[separator]}; correct the line."
            )
    columns, notes = {}, []
    for name, *cells in zip(names, *(cells for _, cells in rows), strict=True):
        if name in columns:
            raise IpslibError(f"{path}: wanted one column {name!r}, got two; rename one of them.")
        if not _UNNAMED.fullmatch(name):
            columns[name] = cells
        elif any(cells):
            notes.append("a column without a name, such as an exported index, is left out")
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"read as {encoding}")
    if separator != ",":
        notes.append(f"read as separated by {_SEPARATORS[separator]}")
    return Table(columns, [line for line, _ in rows], tuple(f"{note}." for note in notes))


def read_rows(path: str | Path) -> list[tuple[int, list[str]]]:
    """Number and cells of every line of a table that may have no heading, as `read_table` reads
    them."""
    return _cells(path, _decoded(Path(path))[0])[1]


def _decoded(path: Path) -> tuple[str, str]:
    """The text, and in what encoding it was."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IpslibError(
            f"{path}: wanted a table of labels, got none ({error.strerror}); correct the path."
        ) from error
    if content.startswith(_WORKBOOKS):
        raise IpslibError(f"{path}: wanted a table as text, got a workbook; save it as CSV.")
    encodings = [encoding for mark, encoding in _MARKS.items() if content.startswith(mark)][:1]
    if not encodings and b"\0" in content[:2]:
        encodings = ["utf-16-be" if content[:1] == b"\0" else "utf-16-le"]
    for encoding in encodings or ("utf-8", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(c in "\t\r\n" or unicodedata.category(c) != "Cc" for c in set(text)):
            return text, encoding
    raise IpslibError(f"{path}: wanted a table as text, got other bytes; save it as CSV in UTF-8.")


def _cells(path: str | Path, text: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator, and the numbers and cells of all lines that are not empty."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lower().startswith("sep="):  # Excel's
        separator, text = first[4:5], text.replace(first, "", 1)
    else:
        n_cells = {s: len(next(csv.reader([first], delimiter=s), [])) for s in _SEPARATORS}
        separator = max(n_cells, key=n_cells.get)
    lines = []
    if separator in _SEPARATORS:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
        )
        try:
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
        except csv.Error as error:
            raise IpslibError(
                f"{path}: wanted a table of labels, could not read line {reader.line_num} "
                f"({error}); correct it."
            ) from error
    lines = [(line, cells) for line, cells in lines if any(cells)]
    if not lines:
        raise IpslibError(f"{path}: wanted a table of labels, got {first!r}; correct the file.")
    return separator, lines


def read_labels(
    path: str | Path, *, group: str | None = None, tasks: str | Sequence[str] | None = None
) -> Labels:
    """Read what a table says of images, and refuse what can be meant in two ways.

    Args:
        path: of the table: a column `image`, perhaps `split` (train or test), and labels.
        group: the column of what images belong to, such as `patient`, which no split may tear;
            the one that is called so if None, none if empty.
        tasks: columns of labels; all others if None, and then each must look like one.

    Raises:
        IpslibError: it names the column and the line.
    """
    table = read_table(path)
    roles = {name: name.casefold() for name in table.columns}
    columns = {
        roles[name] if roles[name] in (IMAGE, SPLIT) else name: cells
        for name, cells in table.columns.items()
    }
    others = [name for name in columns if name not in (IMAGE, SPLIT)]
    if IMAGE not in columns or not others or not table.lines or len(columns) < len(roles):
        raise IpslibError(
            f"{path}: wanted lines under one column {IMAGE!r} and at least one of labels, got "
            f"{len(table.lines)} lines under {', '.join(roles)}; correct the heading."
        )
    notes, tasks = list(table.notes), [tasks] if isinstance(tasks, str) else tasks
    for name in [*([] if group in (None, "") else [group]), *(tasks or [])]:
        if name not in others:
            hint = did_you_mean(name, others)
            raise IpslibError(f"{path}: wanted a column {name!r}, found none{hint}.")
    of_groups = [n for n in others if _OF_GROUPS.fullmatch(n) and n not in (tasks or [])]
    if group is None:
        group = _coarsest(path, {name: columns[name] for name in of_groups})
    notes += [f"images of one {group} are kept together."] * bool(group)
    if tasks is None:
        left_out = [n for n in others if n in of_groups or _is_count(columns[n])]
        tasks = [name for name in others if name not in (group, *left_out)]
        for name in tasks:
            _check_looks_like_labels(path, name, columns[name])
    if not tasks:
        raise IpslibError(f"{path}: wanted a column of labels, got none; name one as a task.")
    left_out = [name for name in others if name not in (group, *tasks)]
    notes += [f"column {name!r} is none of labels and left out." for name in left_out]
    used = {
        name: _checked(path, name, columns[name], table.lines)
        for name in (IMAGE, SPLIT, group, *tasks)
        if name in columns
    }
    notes += _check_split(path, used, group)
    return Labels(used, table.lines, tuple(tasks), group, tuple(notes))


def _check_split(path: str | Path, columns: dict[str, list[str]], group: str) -> list[str]:
    """Refuse a column of parts that lacks one; drop one that tears groups, and say so."""
    if SPLIT not in columns:
        return []
    columns[SPLIT] = parts = [part.casefold() for part in columns[SPLIT]]
    if set(parts) != set(SPLITS):
        raise IpslibError(
            f"{path}: wanted train and test in column {SPLIT!r}, got "
            f"{', '.join(sorted(set(parts)))}; correct the column or leave it out."
        )
    groups = columns.get(group, parts)
    n_torn = len(set(zip(groups, parts, strict=True))) - len(set(groups))
    if not n_torn:
        return []
    del columns[SPLIT]
    return [
        f"column {SPLIT!r} has {n_torn} of {group} in both parts and is not used; images "
        'are split anew, each of them whole (group="" keeps the column).'
    ]


def _coarsest(path: str | Path, columns: dict[str, list[str]]) -> str:
    """The column of groups that tears none of another: patients, not their slides."""
    for name, groups in columns.items():
        if all(
            len(set(zip(others, groups, strict=True))) == len(set(others))
            for others in columns.values()
        ):
            return name
    if columns:
        raise IpslibError(
            f"{path}: wanted one column of what images belong to, got {', '.join(columns)}, which "
            "cut across each other; name one as group."
        )
    return ""


def _is_count(cells: Sequence[str]) -> bool:
    """Whether a column only counts, from 0 or 1."""
    counts = [[str(i + first) for i in range(len(cells))] for first in (0, 1)]
    return len(cells) > _FEW and list(cells) in counts


def _check_looks_like_labels(path: str | Path, name: str, cells: Sequence[str]) -> None:
    """Refuse a column that nobody called labels and that looks like something else."""
    known = [cell for cell in cells if not _is_unknown(cell)]
    values = set(known)
    numbers = [float(value) for value in values if _NUMBER.fullmatch(value)]
    gaps = len(numbers) > _MANY and max(numbers) - min(numbers) >= len(numbers)
    measured = len(numbers) == len(values) and (gaps or any(number % 1 for number in numbers))
    sets = [value for value in values if _holds_several(value, values)]
    if len(values) < 2:
        looks = f"{len(values)} class"
    elif _OF_SPLITS.fullmatch(name) or {value.casefold() for value in values} <= _PARTS:
        looks = f"parts of a split (call the one that is meant {SPLIT!r})"
    elif sets:
        looks = f"several labels in a cell, such as {sets[0]!r} (give each a column)"
    elif measured:
        looks = f"{len(values)} measurements"
    elif len(values) > _FEW and len(known) < _IMAGES_A_CLASS * len(values):
        looks = f"{len(values)} values in {len(known)} lines"
    else:
        return
    raise IpslibError(
        f"{path}: wanted at least two classes in column {name!r}, got what looks like {looks}; "
        "name the columns that are labels as tasks, and one of patients or the like as group."
    )


def _holds_several(value: str, values: set[str]) -> bool:
    """Whether a value is put together of others."""
    for mark in (";", "|", ","):
        parts = {part.strip() for each in values for part in each.split(mark)}
        if mark in value and (len(parts) < len(values) or parts & values):
            return True
    return False


def _is_unknown(cell: str) -> bool:
    cell = _visible(cell).strip()
    return cell == "None" or bool(_UNKNOWN.fullmatch(cell))


def _visible(cell: str) -> str:
    """Without marks of no width, which copied text brings along."""
    return "".join(letter for letter in cell if unicodedata.category(letter) != "Cf")


def _checked(path: str | Path, name: str, cells: list[str], lines: Sequence[int]) -> list[str]:
    """Cells that all say something, each in one spelling; 1.0, as pandas writes whole numbers
    beside a gap, is 1, and letters with accents are single ones."""
    unknown = [i for i, cell in enumerate(cells) if _is_unknown(cell)]
    if unknown:
        raise IpslibError(
            f"{path}: wanted a value in each line of column {name!r}, got {cells[unknown[0]]!r} in "
            f"line {lines[unknown[0]]} (lines like it: {len(unknown)}); delete them, or write a "
            "class that is called so in another way."
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
            raise IpslibError(
                f"{path}: wanted one spelling in column {name!r}, got {cells[other]!r} in line "
                f"{lines[other]} and {cell!r} in line {lines[i]}; write them alike, or more unlike."
            )
    return cells


def _spelt(cell: str) -> str | float:
    """The same for what differs only in capitals, spaces, marks of no width or how a number is
    written; long identifiers of digits are told apart, fractions as far as floats are exact."""
    if _NUMBER.fullmatch(cell):
        whole = _WHOLE.fullmatch(cell)
        return int(whole[1]) if whole else float(f"{float(cell):.15g}")
    return " ".join(unicodedata.normalize("NFKC", _visible(cell)).casefold().split())
