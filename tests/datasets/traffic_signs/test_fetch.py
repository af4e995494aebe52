import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ipslib.datasets.traffic_signs.fetch import digest, fetch
from ipslib.errors import IpslibError

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves one file in parts, notes where requests begin, and can break off."""

    daemon_threads = True
    content, version, takes_ranges = CONTENT, '"1"', True
    breaks_off_at: int | None = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content = self.server, self.server.content
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") == server.version
        start = int(wanted[1]) if wanted and same and server.takes_ranges else 0
        server.asked.append(start)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.version)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.breaks_off_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def sound(part) -> None:
    return None


def break_off(server, path, at: int) -> None:
    server.breaks_off_at = at
    with pytest.raises(OSError, match=f"ended at {at} of {len(server.content)} bytes"):
        fetch(server.url, path, check=sound)
    server.breaks_off_at = None
    assert not path.exists()


def test_a_file_is_fetched_whole_and_described(server, tmp_path):
    found = fetch(server.url, tmp_path / "file.bin", check=sound)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert found == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_broken_download_goes_on_where_it_ended(server, tmp_path):
    path = tmp_path / "file.bin"
    break_off(server, path, 300_000)
    fetch(server.url, path, check=sound)
    assert path.read_bytes() == CONTENT and server.asked == [0, 300_000]


def test_a_server_that_gives_no_parts_is_asked_anew(server, tmp_path):
    path = tmp_path / "file.bin"
    break_off(server, path, 300_000)
    server.takes_ranges = False
    fetch(server.url, path, check=sound)
    assert path.read_bytes() == CONTENT


def test_versions_are_never_mixed(server, tmp_path):
    path = tmp_path / "file.bin"
    break_off(server, path, 300_000)
    server.content, server.version = CONTENT[::-1], '"2"'
    fetch(server.url, path, check=sound)
    assert path.read_bytes() == CONTENT[::-1] and server.asked == [0, 0]


def test_the_parts_of_another_file_are_not_gone_on_from(server, tmp_path):
    path = tmp_path / "file.bin"
    break_off(server, path, 300_000)
    fetch(server.url + "?other", path, check=sound)
    assert server.asked == [0, 0]


def test_a_download_that_was_whole_but_not_yet_renamed_is_taken(server, tmp_path):
    path = tmp_path / "file.bin"

    def killed(part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, path, check=killed)
    fetch(server.url, path, check=sound)
    assert path.read_bytes() == CONTENT and server.asked == [0, len(CONTENT)]


def test_what_fails_its_check_is_deleted(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    with pytest.raises(IpslibError, match=r"file\.bin: wanted better, got worse; fetch it again"):
        fetch(server.url, path, check=lambda part: "wanted better, got worse")
    assert [each.name for each in tmp_path.iterdir()] == ["file.bin"]
    assert path.read_bytes() == b"before"


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"
