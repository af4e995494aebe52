import hashlib
import shutil
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ipslib.datasets.synthetic import MARKER
from ipslib.datasets.traffic_signs import download
from ipslib.datasets.traffic_signs.dataset import TrafficSignsConfig, load_traffic_signs
from ipslib.datasets.traffic_signs.download import MD5, download_traffic_signs
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
    return write_synthetic(path, {"train": 8, "test": 4}, size=(64, 80))


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


def test_what_was_fetched_can_be_loaded(served, drawn, tmp_path):
    folder = download_traffic_signs(tmp_path / "real", base_url=served.url)
    for name in MD5:
        fetched = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        assert fetched == {path.name: path.read_bytes() for path in (drawn / name).iterdir()}
    config = TrafficSignsConfig(canvas=(64, 80), patch_size=16)
    assert len(load_traffic_signs(config, "train", folder=folder)) == 8
    assert not list(folder.rglob("*.zip")) and not list(folder.rglob("readme.txt"))
    # What is there is not fetched again; reading the set lists what is missing.
    next((folder / "Set2").glob("*.jpg")).unlink()
    served.asked.clear()
    download_traffic_signs(folder, base_url=served.url)
    assert not served.asked


def test_annotations_of_another_hash_are_refused(served, site, tmp_path):
    with (site / "Set2" / "annotations.txt").open("a") as file:
        file.write("more.jpg:\n")
    with pytest.raises(IpslibError, match="Set2"):
        download_traffic_signs(tmp_path / "real", base_url=served.url)
    assert not (tmp_path / "real" / "Set2").exists()
    own = tmp_path / "other" / "Set1" / "annotations.txt"
    own.parent.mkdir(parents=True)
    own.write_text("own.jpg:\n")
    with pytest.raises(IpslibError, match=r"Set1/annotations\.txt.*MD5"):
        download_traffic_signs(tmp_path / "other", base_url=served.url)
    assert own.read_text() == "own.jpg:\n"


@pytest.mark.parametrize("damage", ["entry", "no archive", "cut short", "not there"])
def test_an_archive_that_is_not_sound_leaves_nothing_behind(served, site, tmp_path, damage):
    path = site / "Set1" / "Set1Part0.zip"
    content = bytearray(path.read_bytes())
    if damage == "entry":
        content[200:260] = bytes(60)
    path.write_bytes({"no archive": b"<html>", "cut short": content[:-99]}.get(damage, content))
    if damage == "not there":
        path.unlink()
    with pytest.raises(IpslibError, match=r"Set1: .*annotations\.txt"):
        download_traffic_signs(tmp_path / "real", base_url=served.url)
    assert not (tmp_path / "real" / "Set1").exists()


def test_without_a_network_it_is_said_what_to_put_where(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}"
    with pytest.raises(IpslibError) as refusal:
        download_traffic_signs(tmp_path / "real", base_url=url)
    assert url in str(refusal.value) and str(tmp_path / "real") in str(refusal.value)


def test_drawn_photographs_stay_apart(served, drawn):
    before = (drawn / MARKER).read_bytes()
    with pytest.raises(IpslibError, match=str(drawn)):
        download_traffic_signs(drawn, base_url=served.url)
    assert (drawn / MARKER).read_bytes() == before and not served.asked
