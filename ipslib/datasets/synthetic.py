"""Stand-ins: data that this project draws, where the real ones are not at hand.

They lie in the project's data/standins, which is under no version control, and never in
$IPSLIB_DATA: that is the user's, and may be read-only.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ipslib.errors import IpslibError
from ipslib.paths import project_root


def standin_folder(name: str) -> Path:
    """Where the stand-in of a name lies, there or not; the name says what it was drawn with."""
    return project_root() / "data" / "standins" / name


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
            f"{folder}: wanted to write a stand-in, got {error.strerror or error}; free some "
            "space, or make its folder writable."
        ) from error
    return folder
