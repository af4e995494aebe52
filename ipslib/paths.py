"""Where files lie, what they hold, how they are written, and whether they can be downloaded.

The project is the folder that holds data/, outputs/, notebooks/ and params/.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.request import Request, urlopen

from ipslib.errors import IpslibError

_TICK = 2_000_000_000  # ns within which a file may be written twice at what looks like one time
_PATIENCE_S = 6  # with a network
DATA_ROOT_VARIABLE = "IPSLIB_DATA"


def project_root() -> Path:
    """The checkout that this package was imported from, or that the current directory lies in;
    else the current directory."""
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[1], here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return here


def data_root() -> Path:
    """The folder of data: $IPSLIB_DATA, or the project's `data`."""
    named = os.environ.get(DATA_ROOT_VARIABLE)
    if named and not from_here(named).is_dir():
        raise IpslibError(
            f"{DATA_ROOT_VARIABLE} names the folder {named}, which does not exist; "
            "correct it, or unset it to use data/ or the embedded digits."
        )
    return from_here(named) if named else project_root() / "data"


def from_project(path: str | Path) -> Path:
    """A path as parameters and configurations write it: absolute, or relative to the project."""
    return project_root() / Path(path).expanduser()


def inside_project(path: str | Path) -> str:
    """The other way round: a path relative to the project where it lies inside, else absolute, so
    that a run is the same wherever the project lies."""
    path, root = Path(path).expanduser().absolute(), project_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def found(path: str | Path) -> Path:
    """A file or folder that a person names: it starts at the project, whether JupyterLab,
    papermill or the command line asks, and only where that has none at the current directory.
    IpslibError when it is in neither place, or in each another one."""
    places = [from_project(path), Path(path).expanduser().absolute()]
    there = [place for place in places if place.exists()]
    if not there:
        looked = " or ".join(dict.fromkeys(map(str, places)))
        raise IpslibError(f"{path}: wanted a file or folder, found none at {looked}; correct it.")
    if not there[0].samefile(there[-1]):
        raise IpslibError(
            f"{path}: wanted one, found {there[0]} and {there[1]}; write the whole path."
        )
    return there[0]


def from_here(path: str | Path) -> Path:
    """Where a person wants something written: relative to the project from anywhere inside it,
    else to the current directory."""
    here, root = Path.cwd(), project_root()
    return (root if here.is_relative_to(root) else here) / Path(path).expanduser()


class Stamp(NamedTuple):
    """What a file holds. Size and times only spare hashing it again; JSON can hold it."""

    size: int
    modified: int  # ns
    changed: int  # ns; moves with every write, also where `modified` is set back
    sha256: str


def stamp(path: str | Path, known: Sequence | None = None) -> Stamp:
    """The stamp of a file; `known`, an earlier one, holds where size and times are still its own.
    OSError when the file cannot be read."""
    status = Path(path).stat()
    at = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    if known and tuple(known[:3]) == at:
        return Stamp(*known)
    if time.time_ns() - max(at[1:]) < _TICK:  # it is hashed again next time
        return Stamp(status.st_size, 0, 0, _sha256.__wrapped__(Path(path)))
    return Stamp(*at, _sha256(Path(path).absolute(), *at))


@lru_cache(maxsize=100_000)
def _sha256(path: Path, *_at: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(stamps: Mapping[str, Sequence]) -> str:
    """One SHA-256 of the names and contents of several files, in any order."""
    lines = (f"{name}\0{stamps[name][-1]}" for name in sorted(stamps))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def changed_files(before: Mapping[str, Sequence], after: Mapping[str, Sequence]) -> list[str]:
    """Names of files whose content differs, or that only one of two sets of stamps has."""
    names = sorted(before.keys() | after.keys())
    return [n for n in names if before.get(n, ("",))[-1] != after.get(n, ("",))[-1]]


def write_atomically(path: Path, data: str | bytes) -> Path:
    """Write a file so that a reader sees the whole old or the whole new content, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes a file that only its owner can read
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return path


def reachable(*urls: str) -> bool:
    """Whether one of some addresses answers, within seconds; name look-ups can hang, so a thread
    asks."""
    answers: list[bool] = []

    def ask() -> None:
        for url in urls:
            with suppress(OSError, HTTPException):
                with urlopen(Request(url, method="HEAD"), timeout=_PATIENCE_S / 2):
                    answers.append(True)
                return

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return bool(answers)
