"""Fetch the Swedish traffic signs from their publisher.

    python -m ipslib.datasets.traffic_signs.download

The annotations' MD5 is known (Katharopoulos and Fleuret published it with their task); no hash of
the archives of photographs was ever published, but each entry has a checksum of its own.
"""

import shutil
from functools import partial
from http.client import HTTPException
from pathlib import Path
from zipfile import BadZipFile

from torchvision.datasets.utils import check_integrity, download_and_extract_archive, download_url

from ipslib.datasets.synthetic import is_synthetic, make_once
from ipslib.datasets.traffic_signs.annotations import ANNOTATIONS
from ipslib.datasets.traffic_signs.dataset import TrafficSignsConfig
from ipslib.errors import IpslibError

BASE_URL = "http://www.isy.liu.se/cvl/research/trafficSigns/swedishSignsSummer"
MD5 = {
    "Set1": "9106a905a86209c95dc9b51d12f520d6",
    "Set2": "09debbc67f6cd89c1e2a2688ad1d03ca",
}


def download_traffic_signs(folder: str | Path | None = None, *, base_url: str = BASE_URL) -> Path:
    """Fetch Set1 and Set2 into a folder, that of the data root if None, each where it is not there
    yet; the folder is returned.

    Raises:
        IpslibError: without a network, when a file is not what it should be, also one that is
            there already, and for a folder of drawn photographs.
    """
    folder = Path(folder or TrafficSignsConfig().folder)
    if is_synthetic(folder):
        raise IpslibError(
            f"{folder}: wanted a place for real photographs, got drawn ones; move it."
        )
    for name, md5 in MD5.items():
        part = make_once(folder / name, partial(_fetch, f"{base_url}/{name}", md5))
        if not check_integrity(part / ANNOTATIONS, md5):
            raise IpslibError(
                f"{part / ANNOTATIONS}: wanted the published file of MD5 {md5}, got another or "
                f"none; move {part} away to have the set fetched."
            )
    return folder


def _fetch(url: str, md5: str, folder: Path) -> None:
    """The annotations and the JPEGs of a set, whatever folder they lie in within the archive."""
    archive = folder / "archive"
    try:
        download_url(f"{url}/{ANNOTATIONS}", folder, md5=md5)
        download_and_extract_archive(f"{url}/{url.rsplit('/', 1)[-1]}Part0.zip", archive)
    except (OSError, RuntimeError, HTTPException, BadZipFile) as error:
        raise IpslibError(
            f"{url}: wanted {ANNOTATIONS} and the archive of its JPEGs, could not fetch them "
            f"({type(error).__name__}: {error}); try again, put both into {folder.parent} under "
            "the set's name, or use signs: standin."
        ) from error
    for path in archive.rglob("*"):
        if path.suffix.lower() == ".jpg":
            path.rename(folder / path.name)
    shutil.rmtree(archive)


if __name__ == "__main__":
    try:
        print(f"The Swedish traffic signs are in {download_traffic_signs()}.")
    except IpslibError as error:
        raise SystemExit(str(error)) from error
