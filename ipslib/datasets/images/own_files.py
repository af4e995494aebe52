"""The image files that a table names: each is opened once in a process, however often it is asked
for, as long as none of them changes."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ipslib.datasets.images.files import FileId, file_id
from ipslib.datasets.images.sources import PatchSource
from ipslib.errors import IpslibError

_TABLES = 2  # whose sources are kept; a run has one


class Labelled(NamedTuple):
    """One image that can be read."""

    source: PatchSource
    line: int  # of the table, from 0


def readable(
    files: Sequence[Path],
    open_file: Callable[[Path], PatchSource],
    *,
    settings: Hashable,
    skipped: list[str] | None = None,
) -> Iterator[Labelled]:
    """Open files in order, as far as they are asked for.

    Args:
        files: a line of the table each.
        open_file: to a source; it raises IpslibError for a file that cannot be read.
        settings: all but the file that `open_file` depends on.
        skipped: sentences about files that cannot be read are added to it.
    """
    opened = _opened_so_far(tuple(map(_as_it_stands, files)), settings)
    for line, file in enumerate(files):
        if line not in opened:
            try:
                opened[line] = open_file(file)
            except IpslibError as error:
                opened[line] = str(error)
        if not isinstance(opened[line], str):
            yield Labelled(opened[line], line)
        elif skipped is not None:
            skipped.append(opened[line])


@lru_cache(maxsize=_TABLES)
def _opened_so_far(
    files: tuple[FileId | Path, ...], settings: Hashable
) -> dict[int, PatchSource | str]:
    """What came of opening these files, by line: a source, or why there is none."""
    return {}


def _as_it_stands(file: Path) -> FileId | Path:
    try:
        return file_id(file)
    except IpslibError:  # it is not there
        return file
