"""Where the project lies: the folder that holds data/, outputs/, notebooks/ and params/."""

from pathlib import Path


def _is_checkout(folder: Path) -> bool:
    return (folder / "notebooks").is_dir() and (folder / "params").is_dir()


def project_root() -> Path:
    """Return the checkout that holds notebooks/ and params/, or else the current directory.

    The checkout this package was imported from comes first, then the current directory and the
    folders above it.
    """
    here = Path.cwd()
    candidates = [Path(__file__).resolve().parents[1], here, *here.parents]
    return next(filter(_is_checkout, candidates), here)


def from_project(path: str | Path) -> Path:
    """A path as parameters and configurations write it: absolute, or relative to the project."""
    return project_root() / Path(path).expanduser()


def inside_project(path: str | Path) -> str:
    """The other way round: a path relative to the project where it lies inside, else absolute, so
    that a run is the same wherever the project lies."""
    path = Path(path).expanduser().absolute()
    root = project_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
