"""What a process keeps of the image files it reads: open handles and decoded pieces, both bounded.

A source holds a file's path only, so it goes to a worker process as it is; every process opens
the file for itself, since a handle that two of them share loses its place.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import NamedTuple, TypeVar

import numpy as np

from ipslib.errors import IpslibError

_OPEN_FILES = 64  # handles of a process; the one used longest ago goes first
_CACHED_BYTES = 64 * 2**20  # of decoded pieces, over all files of a process
_LARGEST_PIECE = 2**30  # bytes that are decoded at once
_TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Opened = TypeVar("Opened")


class FileId(NamedTuple):
    """A file as it stood when a source was made: what has changed since is another file."""

    path: Path
    size: int
    modified: int


def file_id(path: str | Path) -> FileId:
    """Identify a file.

    Raises:
        IpslibError: when it is not there, or is a folder.
    """
    path = Path(path).absolute()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise IpslibError(f"{path}: wanted an image file, found {found}; correct the path.")
    status = path.stat()
    return FileId(path, status.st_size, status.st_mtime_ns)


def is_tiff(path: Path) -> bool:
    """Whether a file's content is TIFF, whatever its name says."""
    with path.open("rb") as file:
        return file.read(4) in _TIFF_BEGINS


def opened(open_file: Callable[..., Opened], file: FileId, *args: Hashable) -> Opened:
    """`open_file(path, *args)`, remembered in this process for the files used last."""
    return _opened(open_file, file, args, os.getpid())


@lru_cache(maxsize=_OPEN_FILES)
def _opened(open_file: Callable[..., Opened], file: FileId, args: tuple, _process: int) -> Opened:
    return open_file(file.path, *args)


class PieceCache:
    """Decoded pieces of images, those used last, of at most `n_bytes` in all; the newest piece
    stays whatever its size."""

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes
        self._held = 0
        self._pieces: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The piece of a key, decoded where it is not held."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
                return self._pieces[key]
        piece = decode()
        with self._lock:
            if key not in self._pieces:
                self._pieces[key] = piece
                self._held += piece.nbytes
            while self._held > self.n_bytes and len(self._pieces) > 1:
                self._held -= self._pieces.popitem(last=False)[1].nbytes
        return piece


PIECES = PieceCache(_CACHED_BYTES)


def check_piece(name: str, n_bytes: int, remedy: str) -> None:
    """Refuse what is too large to be decoded at once."""
    if n_bytes > _LARGEST_PIECE:
        raise IpslibError(
            f"{name}: wanted pieces of at most {_LARGEST_PIECE >> 20} MB, since each is decoded "
            f"whole, got {n_bytes >> 20} MB; {remedy}."
        )


def load_package(package: str, file: Path) -> ModuleType:
    """Import the package that reads a kind of file."""
    try:
        return import_module(package)
    except ImportError as error:
        raise IpslibError(
            f"{file}: wanted the package {package} to read it, found none; pip install {package}."
        ) from error


def unreadable(file: Path | str, error: Exception, remedy: str) -> IpslibError:
    """The error of a file that is there and cannot be read: a damaged one, if nothing says that it
    is not."""
    reason, told = (str(error).splitlines() or [""])[0].rstrip("."), "a damaged one"
    if isinstance(error, PermissionError | BlockingIOError):
        told = "one that is locked"
        remedy = "close the program that holds it, or see to its rights"
    elif "lib/plugin)" in reason or "filter" in reason:  # HDF5's
        told = "one whose compression is not installed here"
        remedy = "pip install hdf5plugin and import it, or write the file anew without"
    return IpslibError(
        f"{file}: wanted a readable file, got {told} ({type(error).__name__}: {reason}); {remedy}."
    )
