"""Synthetic data: drawn by this project where the real ones are not at hand. They are made once,
their folder is marked with what they were made by, and what is shown of them says so.

They lie in the project's data/standins, which is under no version control, and never in
$IPSLIB_DATA: that is the user's, and may be read-only.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

from ipslib.errors import IpslibError
from ipslib.paths import project_root

MARKER = "STANDIN.json"
NOTE = "SYNTHETIC: drawn by this project, no result on real data"


def stream(*key: int) -> np.random.RandomState:
    """The random stream of a key of non-negative integers, the same on every machine and for every
    version of numpy.

    `RandomState` is the one numpy generator whose streams are frozen (NEP 19); its bits come from
    PCG64, seeded through a SeedSequence, so that streams of different keys are independent (keys
    that differ in zeros at the end alone are the same to it: keep those of one kind as long).
    """
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence(key)))


def titled(text: str, is_synthetic: bool) -> str:
    """A heading, which says so where it stands above synthetic data or results on them."""
    return f"SYNTHETIC: {text}" if is_synthetic else text


def synthetic_folder(name: str) -> Path:
    """Where the data of a name lie, there or not; the name says what they were drawn with."""
    return project_root() / "data" / "standins" / name


def is_synthetic(folder: str | Path) -> bool:
    """Whether a folder, or one above it, is marked as drawn."""
    folder = Path(folder).absolute()
    return any((place / MARKER).is_file() for place in (folder, *folder.parents))


def make_synthetic(
    folder: str | Path, made_by: Mapping[str, object], draw: Callable[[Path], object]
) -> Path:
    """Draw data into a folder and mark it; what is there by the same arguments is left as it is.

    Args:
        folder: new or empty.
        made_by: all that decides what is drawn, as JSON can hold it; it stands in the marker.
        draw: fills the folder it is given, which is empty.

    Raises:
        IpslibError: when the folder holds something else, or cannot be written.
    """
    folder, made_by = Path(folder), json.loads(json.dumps(dict(made_by)))

    def draw_and_mark(part: Path) -> None:
        draw(part)
        marker = {"what": "Drawn by ipslib: nothing here is real.", "made_by": made_by}
        (part / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")

    with suppress(OSError):  # there is none, or it is not empty
        folder.rmdir()
    make_once(folder, draw_and_mark)
    try:
        same = json.loads((folder / MARKER).read_text(encoding="utf-8"))["made_by"] == made_by
    except (OSError, ValueError, LookupError, TypeError):
        same = False
    if not same:
        raise IpslibError(
            f"{folder}: wanted an empty folder for synthetic data, or the same data, got "
            "something else; choose another folder, or remove it."
        )
    return folder


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that is there is left as it is; else it is made under a temporary name and renamed
    when it is whole. Of several processes one makes it, and the others wait.

    Args:
        folder: to be made.
        make: fills the folder it is given, which is empty.

    Raises:
        IpslibError: when the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                part.mkdir()
                make(part)
                part.rename(folder)
    except OSError as error:
        raise IpslibError(
            f"{folder}: wanted to write it, got {error.strerror or error}; free some "
            "space, or make its folder writable."
        ) from error
    return folder
