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
