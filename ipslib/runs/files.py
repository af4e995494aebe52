"""Where the study's files lie, and how a result is written."""

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipslib.paths import project_root

APART_VARIABLE = "IPSLIB_APART"  # set by a sweep for the kernel that executes one setting


def outputs_root(root: Path | None = None) -> Path:
    """Return `$IPSLIB_OUTPUTS`, or outputs/ in the project, as an absolute path."""
    chosen = os.environ.get("IPSLIB_OUTPUTS") or (root or project_root()) / "outputs"
    return Path(chosen).expanduser().resolve()


@dataclass(frozen=True)
class Layout:
    """One profile's results: records, executed notebooks, tables and figures.

    What a sweep makes of one setting of a notebook lies apart, under that setting's name; records
    are shared.
    """

    home: Path
    apart: str = ""

    @classmethod
    def of(cls, profile: str, *, root: Path | None = None) -> "Layout":
        return cls(outputs_root(root) / profile, os.environ.get(APART_VARIABLE, ""))

    @property
    def folder(self) -> Path:
        return self.home / "sweeps" / self.apart if self.apart else self.home

    @property
    def records(self) -> Path:
        return self.home / "records"

    @property
    def notebooks(self) -> Path:
        return self.folder / "notebooks"

    @property
    def tables(self) -> Path:
        return self.folder / "tables"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def index(self) -> Path:
        return self.folder / "index.html"

    def create(self) -> "Layout":
        """Make the four folders, and return the layout itself."""
        for folder in (self.records, self.notebooks, self.tables, self.figures):
            folder.mkdir(parents=True, exist_ok=True)
        return self


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
