"""The image files that a table names: one line each, what they hold, and which can be read whole.

Each is opened once in a process, however often it is asked for, as long as none of them changes.
"""

import os
import unicodedata
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ipslib.datasets.images.files import FileId, file_id
from ipslib.datasets.images.labels import IMAGE, Labels
from ipslib.datasets.images.sources import PatchSource, checked
from ipslib.errors import IpslibError
from ipslib.paths import Stamp, stamp

_TABLES = 2  # whose sources are kept; a run has one


class Labelled(NamedTuple):
    """One image that can be read."""

    source: PatchSource
    line: int  # of the table, from 0


def files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where the images of a table lie; one from Windows has other slashes, and a Mac takes letters
    with accents apart."""
    return [_file_of(folder, name) for name in names]


def _file_of(folder: Path, name: str) -> Path:
    slashed = name.replace("\\", "/")
    forms = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    files = (folder / each for each in (name, slashed, *forms))
    return next((file for file in files if file.exists()), folder / name)


def stamps(
    folder: Path, names: Sequence[str], known: Mapping[str, Sequence] | None = None
) -> dict[str, Stamp]:
    """What images hold, by name; without those that are not there. `known` are earlier stamps."""
    named = zip(names, files_of(folder, names), strict=True)
    return {name: stamp(file, (known or {}).get(name)) for name, file in named if file.is_file()}


def check_distinct(path: Path, table: Labels) -> None:
    """Refuse two lines of one image, however it is spelt.

    Raises:
        IpslibError: it names both, and whether their labels contradict each other.
    """
    columns, lines = table.columns, table.lines
    by_name: dict[str, int] = {}
    by_file: dict[tuple[int, int], int] = {}
    is_there = []
    for row, file in enumerate(files_of(path.parent, columns[IMAGE])):
        is_there.append(file.exists())
        other = by_name.setdefault(os.path.realpath(file).casefold(), row)
        if is_there[row] and is_there[other]:  # then it is the file that counts, not its name
            status = file.stat()
            other = by_file.setdefault((status.st_dev, status.st_ino), row)
        if other != row:
            differ = [task for task in table.tasks if columns[task][row] != columns[task][other]]
            said = f", with other labels of {', '.join(differ)}" if differ else ""
            raise IpslibError(
                f"{path}: wanted one line an image, got {columns[IMAGE][other]} in line "
                f"{lines[other]} and {columns[IMAGE][row]} in line {lines[row]}, which are the "
                f"same{said}; delete the wrong one."
            )


def readable(
    files: Sequence[Path],
    open_file: Callable[[Path], PatchSource],
    *,
    settings: Hashable,
    whole: bool = True,
    skipped: list[str] | None = None,
) -> Iterator[Labelled]:
    """Open files in order, as far as they are asked for.

    Args:
        files: a line of the table each.
        open_file: to a source; it raises IpslibError for a file that cannot be read.
        settings: all but the file that `open_file` depends on.
        whole: whether to read each to its end, too: one that was cut off has a sound head.
        skipped: sentences about files that cannot be read are added to it.
    """
    opened, seen = (_results(tuple(map(_as_it_stands, files)), settings, w) for w in (False, whole))
    for line, file in enumerate(files):
        if line not in opened:
            opened[line] = _tried(open_file, file)
        if line not in seen:
            sound = not isinstance(opened[line], str)
            seen[line] = _tried(checked, opened[line]) if sound else opened[line]
        if not isinstance(seen[line], str):
            yield Labelled(seen[line], line)
        elif skipped is not None:
            skipped.append(seen[line])


def _tried(function: Callable[..., PatchSource], of: Path | PatchSource) -> PatchSource | str:
    try:
        return function(of)
    except IpslibError as error:
        return str(error)


@lru_cache(maxsize=2 * _TABLES)
def _results(
    files: tuple[FileId | Path, ...], settings: Hashable, whole: bool
) -> dict[int, PatchSource | str]:
    """What came of opening these files, by line: a source, or why there is none."""
    return {}


def _as_it_stands(file: Path) -> FileId | Path:
    try:
        return file_id(file)
    except IpslibError:  # it is not there
        return file
