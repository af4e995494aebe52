"""Fetch the Swedish traffic signs from their publisher.

    python -m ipslib.datasets.traffic_signs.download

The annotations' MD5 is known (Katharopoulos and Fleuret published it with their task). No hash of
the archives of photographs was ever published: each entry is checked by its own checksum, and the
size and SHA-256 of the first download are written down in `downloads.json`, by which every later
one is judged.
"""

import json
import shutil
import zipfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from filelock import FileLock
from tqdm import tqdm

from ipslib.datasets.synthetic import is_synthetic
from ipslib.datasets.traffic_signs.annotations import ANNOTATIONS, read_annotations
from ipslib.datasets.traffic_signs.classes import SET_OF
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import signs_folder
from ipslib.datasets.traffic_signs.fetch import Fetched, digest, fetch
from ipslib.errors import IpslibError

BASE_URL = "http://www.isy.liu.se/cvl/research/trafficSigns/swedishSignsSummer"
MD5 = {
    "Set1": "9106a905a86209c95dc9b51d12f520d6",
    "Set2": "09debbc67f6cd89c1e2a2688ad1d03ca",
}
RECORD = "downloads.json"


def download_traffic_signs(folder: str | Path | None = None, *, base_url: str = BASE_URL) -> Path:
    """Fetch what is missing of Set1 and Set2; what is there is left as it is.

    Args:
        folder: for the two sets; that of the data root if None.
        base_url: that holds `Set1/annotations.txt` and `Set1/Set1Part0.zip`, and so on.

    Returns:
        The folder.

    Raises:
        IpslibError: without a network, when a file is not what it should be, and for a folder
            of drawn ones.
    """
    folder = signs_folder(TrafficSignsConfig()) if folder is None else Path(folder)
    if is_synthetic(folder):
        raise IpslibError(
            f"{folder}: wanted a folder for the real photographs, got one of drawn ones; name "
            "another."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".download.lock"):
        for name in SET_OF.values():
            try:
                _fetch_annotations(folder / name, f"{base_url}/{name}/{ANNOTATIONS}")
                _fetch_photographs(folder / name, f"{base_url}/{name}/{name}Part0.zip")
            except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
                raise IpslibError(
                    f"Swedish traffic signs: {base_url} could not be fetched from "
                    f"({type(error).__name__}: {error}); try again to go on where it ended, put "
                    f"{ANNOTATIONS} and the JPEGs of {name}Part0.zip into {folder / name}, or use "
                    "signs: standin."
                ) from error
    return folder


def _fetch_annotations(folder: Path, url: str) -> None:
    wanted = MD5[folder.name]
    path = folder / ANNOTATIONS
    if path.is_file():
        got = digest(path, "md5")
        if got != wanted:
            raise IpslibError(
                f"{path}: wanted the published file of MD5 {wanted}, got {got}; move it away to "
                "have it fetched."
            )
        return

    def check(part: Path) -> str | None:
        got = digest(part, "md5")
        return None if got == wanted else f"wanted a file of MD5 {wanted}, got {got}"

    fetch(url, path, check=check)


def _fetch_photographs(folder: Path, url: str) -> None:
    archive = folder.parent / f"{folder.name}Part0.zip"
    record = _Record(folder.parent / RECORD, archive.name)
    if _missing(folder) <= set(record.entry.get("absent", ())):
        return
    if not archive.is_file():
        found = fetch(url, archive, check=_check_archive)
        record.compare_or_write(found, archive)
    _unpack(archive, folder)
    archive.unlink()
    absent = sorted(_missing(folder))
    record.write(absent=absent)
    if absent:
        tqdm.write(
            f"{archive.name}: wanted every image of {folder.name}/{ANNOTATIONS}, got none of "
            f"{', '.join(absent[:3])} ({len(absent)} in all); they will be listed as missing."
        )


def _missing(folder: Path) -> set[str]:
    named = {annotated.image for annotated in read_annotations(folder / ANNOTATIONS).images}
    return {name for name in named if not (folder / name).is_file()}


def _check_archive(part: Path) -> str | None:
    try:
        with zipfile.ZipFile(part) as archive:
            torn = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"wanted a zip archive, got none ({error})"
    return f"wanted a sound archive, got a damaged {torn} in it" if torn else None


class _Record:
    """What is known of one archive from its first download."""

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name

    @property
    def entry(self) -> dict:
        return self._all().get(self.name, {})

    def _all(self) -> dict:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}

    def write(self, **values: object) -> None:
        everything = self._all() | {self.name: self.entry | values}
        self.path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")

    def compare_or_write(self, found: Fetched, archive: Path) -> None:
        size, sha256 = self.entry.get("size"), self.entry.get("sha256")
        if sha256 is None:
            self.write(**found._asdict())
            tqdm.write(
                f"{self.name}: no hash of it was ever published; {found.size} bytes of SHA-256 "
                f"{found.sha256} are written down in {self.path}, by which later downloads are "
                "judged."
            )
        elif (size, sha256) != found:
            archive.unlink()
            raise IpslibError(
                f"{self.name}: wanted {size} bytes of SHA-256 {sha256} as in {self.path}, got "
                f"{found.size} of {found.sha256}; delete that entry to accept another version."
            )


def _unpack(archive: Path, folder: Path) -> None:
    """Every JPEG into the folder itself, whatever folder it lies in within the archive."""
    with zipfile.ZipFile(archive) as photographs:
        members = [m for m in photographs.infolist() if m.filename.lower().endswith(".jpg")]
        for member in tqdm(members, desc=f"unpack {archive.name}", leave=False):
            path = folder / PurePosixPath(member.filename).name
            part = path.with_name(path.name + ".part")
            with photographs.open(member) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target)
            part.replace(path)


if __name__ == "__main__":
    try:
        print(f"The Swedish traffic signs are in {download_traffic_signs()}.")
    except IpslibError as error:
        raise SystemExit(str(error)) from error
