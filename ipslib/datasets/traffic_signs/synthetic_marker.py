"""The file that says of a folder: these photographs were drawn, they are not the real ones."""

import json
from collections.abc import Mapping
from pathlib import Path

MARKER = "STANDIN.json"
_WHAT = "Drawn by ipslib in the format of the Swedish traffic signs; no photograph is real."


def is_standin(folder: str | Path) -> bool:
    return (Path(folder) / MARKER).is_file()


def write_marker(folder: Path, made_by: Mapping[str, object]) -> None:
    """Mark a folder, with what it was made by."""
    text = json.dumps({"what": _WHAT, "made_by": dict(made_by)}, indent=2)
    (folder / MARKER).write_text(text + "\n", encoding="utf-8")


def made_by(folder: Path) -> dict | None:
    """What a stand-in was made by; None where it cannot be told."""
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
