import hashlib
import json
import shutil
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ipslib.datasets.synthetic import MARKER
from ipslib.datasets.traffic_signs import download
from ipslib.datasets.traffic_signs.classes import read_set
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import load_traffic_signs
from ipslib.datasets.traffic_signs.download import BASE_URL, MD5, RECORD, download_traffic_signs
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    path = tmp_path_factory.mktemp("signs") / "standin"
    return write_synthetic(path, 8, 4, size=(64, 80))


@pytest.fixture
def site(drawn, tmp_path):
    """A publisher's folder: the annotations, and the photographs in archives."""
    site = tmp_path / "site"
    for name in MD5:
        (site / name).mkdir(parents=True)
        shutil.copy(drawn / name / "annotations.txt", site / name)
        with zipfile.ZipFile(site / name / f"{name}Part0.zip", "w") as archive:
            for path in (drawn / name).glob("*.jpg"):
                archive.write(path, f"part/{path.name}")
            archive.writestr("../readme.txt", "not a photograph")
    return site


@pytest.fixture
def served(site, monkeypatch):
    """The site on a local server, its annotations taken for the published ones."""
    for name in MD5:
        content = (site / name / "annotations.txt").read_bytes()
        monkeypatch.setitem(download.MD5, name, hashlib.md5(content).hexdigest())
    handler = partial(_Handler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def lose_an_image(folder) -> None:
    """One that the annotations name."""
    read_set(folder).examples[0].path.unlink()


def test_the_known_hashes_and_addresses():
    assert MD5["Set1"] == "9106a905a86209c95dc9b51d12f520d6"
    assert MD5["Set2"] == "09debbc67f6cd89c1e2a2688ad1d03ca"
    assert BASE_URL.endswith("/swedishSignsSummer")


def test_what_was_fetched_can_be_loaded(served, drawn, tmp_path, capsys):
    folder = download_traffic_signs(tmp_path / "real", base_url=served.url)
    for name in MD5:
        fetched = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        assert fetched == {path.name: path.read_bytes() for path in (drawn / name).iterdir()}
    config = TrafficSignsConfig(canvas=(64, 80), patch_size=16)
    train = load_traffic_signs(config, "train", folder=folder)
    assert len(train) == 8
    assert not list(folder.glob("*.zip")) and not list(tmp_path.rglob("readme.txt"))
    printed = capsys.readouterr().out
    assert "no hash of it was ever published" in printed and "Set1Part0.zip" in printed
    assert "got none of" in printed  # the stand-in names one image that is not there


def test_size_and_hash_of_the_first_download_are_written_down(served, site, tmp_path):
    folder = download_traffic_signs(tmp_path / "real", base_url=served.url)
    record = json.loads((folder / RECORD).read_text())
    for name in MD5:
        content = (site / name / f"{name}Part0.zip").read_bytes()
        entry = record[f"{name}Part0.zip"]
        assert entry["size"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_what_is_there_is_not_fetched_again(served, tmp_path):
    folder = download_traffic_signs(tmp_path / "real", base_url=served.url)
    assert len(served.asked) == 4
    download_traffic_signs(folder, base_url=served.url)
    assert len(served.asked) == 4
    lose_an_image(folder / "Set2")
    download_traffic_signs(folder, base_url=served.url)
    assert served.asked[4:] == ["/Set2/Set2Part0.zip"]


def test_another_archive_than_the_first_is_refused(served, site, tmp_path):
    folder = download_traffic_signs(tmp_path / "real", base_url=served.url)
    with zipfile.ZipFile(site / "Set1" / "Set1Part0.zip", "a") as archive:
        archive.writestr("more.jpg", b"more")
    lose_an_image(folder / "Set1")
    with pytest.raises(IpslibError, match=r"Set1Part0\.zip: wanted \d+ bytes of SHA-256 .* got"):
        download_traffic_signs(folder, base_url=served.url)
    assert not (folder / "Set1" / "more.jpg").exists() and not list(folder.glob("*.zip"))


def test_annotations_of_another_hash_are_refused(served, site, tmp_path):
    with (site / "Set2" / "annotations.txt").open("a") as file:
        file.write("more.jpg:\n")
    with pytest.raises(IpslibError, match=r"Set2/annotations\.txt: wanted a file of MD5 \w+, got"):
        download_traffic_signs(tmp_path / "real", base_url=served.url)
    assert not (tmp_path / "real" / "Set2" / "annotations.txt").exists()
    (tmp_path / "other" / "Set1").mkdir(parents=True)
    (tmp_path / "other" / "Set1" / "annotations.txt").write_text("own.jpg:\n")
    with pytest.raises(IpslibError, match=r"wanted the published file of MD5 .*move it away"):
        download_traffic_signs(tmp_path / "other", base_url=served.url)
    assert (tmp_path / "other" / "Set1" / "annotations.txt").read_text() == "own.jpg:\n"


def test_a_damaged_archive_is_refused(served, site, tmp_path):
    path = site / "Set1" / "Set1Part0.zip"
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(bytes(content))
    with pytest.raises(IpslibError, match=r"wanted a sound archive, got a damaged part/.*\.jpg"):
        download_traffic_signs(tmp_path / "real", base_url=served.url)
    path.write_bytes(b"<html>moved</html>")
    with pytest.raises(IpslibError, match=r"wanted a zip archive, got none"):
        download_traffic_signs(tmp_path / "real", base_url=served.url)


def test_without_a_network_one_sentence_says_what_to_put_where(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}"
    with pytest.raises(IpslibError) as refusal:
        download_traffic_signs(tmp_path / "real", base_url=url)
    message = str(refusal.value)
    assert url in message and "signs: standin" in message and "\n" not in message
    assert f"put annotations.txt and the JPEGs of Set1Part0.zip into {tmp_path / 'real'}" in message


def test_a_site_without_the_file_says_so(served, site, tmp_path):
    (site / "Set1" / "Set1Part0.zip").unlink()
    with pytest.raises(IpslibError, match=r"could not be fetched from .*404.*Set1Part0\.zip"):
        download_traffic_signs(tmp_path / "real", base_url=served.url)


def test_a_standins_folder_stays_one(served, drawn):
    before = (drawn / MARKER).read_bytes()
    with pytest.raises(IpslibError, match=r"wanted a folder for the real photographs"):
        download_traffic_signs(drawn, base_url=served.url)
    assert (drawn / MARKER).read_bytes() == before and not served.asked
