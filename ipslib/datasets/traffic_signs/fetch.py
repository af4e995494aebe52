"""Fetch a file over HTTP: resumed where it broke off, checked, and only then given its name."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from ipslib.errors import IpslibError

_CHUNK = 2**18
_PATIENCE_S = 30  # without a byte
_DONE_ALREADY = 416  # asked for what follows the last byte


class Fetched(NamedTuple):
    size: int
    sha256: str


def fetch(url: str, path: Path, *, check: Callable[[Path], str | None]) -> Fetched:
    """Download a file to `path`, through `path.part`, which a later call goes on from.

    Args:
        url: of the file.
        path: where it goes; what lies there is replaced.
        check: of the whole download: None, or what is wrong with it.

    Raises:
        OSError: when the server does not answer, or stops before the end.
        IpslibError: when the download is not what it should be; it is then deleted.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(url, part)
    wrong = check(part)
    if wrong:
        part.unlink()
        _origin(part).unlink(missing_ok=True)
        raise IpslibError(f"{url}: {wrong}; fetch it again, or tell the project if it stays so.")
    found = Fetched(part.stat().st_size, digest(part, "sha256"))
    part.replace(path)
    _origin(part).unlink(missing_ok=True)
    return found


def digest(path: Path, algorithm: str) -> str:
    """Hexadecimal hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _download(url: str, part: Path) -> None:
    """Append to what is there, if the server still has the same file and takes requests for part
    of it; else begin anew."""
    known = _read_origin(part, url)
    held = part.stat().st_size if known and part.is_file() else 0
    headers = {"Range": f"bytes={held}-", "If-Range": known} if held else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=_PATIENCE_S) as answer:
            resumed = answer.status == 206
            held = held if resumed else 0
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            origin = {"url": url, "validator": validator}
            _origin(part).write_text(json.dumps(origin), encoding="utf-8")
            length = answer.headers.get("Content-Length")
            total = held + int(length) if length else None
            bar = tqdm(
                total=total, initial=held, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1]
            )
            with bar, part.open("ab" if resumed else "wb") as file:
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    except HTTPError as error:
        if error.code != _DONE_ALREADY or not held:
            raise
        total = held
    if total is not None and part.stat().st_size != total:
        raise OSError(f"the connection ended at {part.stat().st_size} of {total} bytes")


def _origin(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_origin(part: Path, url: str) -> str | None:
    """What the server called the version that was begun; None where it cannot be gone on from."""
    try:
        origin = json.loads(_origin(part).read_text(encoding="utf-8"))
        return origin["validator"] if origin["url"] == url else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
