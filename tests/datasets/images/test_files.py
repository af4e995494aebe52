import re

import numpy as np
import pytest

from ipslib.datasets.images.files import (
    _OPEN_FILES,
    PieceCache,
    check_piece,
    file_id,
    load_package,
    opened,
    unreadable,
)
from ipslib.errors import IpslibError


def piece(n_bytes: int) -> np.ndarray:
    return np.zeros(n_bytes, np.uint8)


def test_a_held_piece_is_not_decoded_again():
    cache, decoded = PieceCache(100), []
    for key in "abab":
        cache.get(key, lambda key=key: decoded.append(key) or piece(50))
    assert decoded == ["a", "b"]


def test_the_piece_used_longest_ago_goes_first():
    cache, decoded = PieceCache(100), []
    for key in "abacab":
        cache.get(key, lambda key=key: decoded.append(key) or piece(50))
    assert decoded == ["a", "b", "c", "b"]


def test_pieces_stay_within_the_bound_but_for_one_that_alone_is_larger():
    cache = PieceCache(100)
    for key, n_bytes in enumerate([60, 30, 50, 170, 20, 90, 10]):
        cache.get(key, lambda n_bytes=n_bytes: piece(n_bytes))
        held = [each.nbytes for each in cache._pieces.values()]
        assert held[-1] == n_bytes
        assert sum(held) <= 100 or len(held) == 1
        assert sum(held) == cache._held


def test_a_file_is_opened_once_until_others_have_taken_its_place(tmp_path):
    calls = []

    def open_file(path):
        calls.append(path.name)
        return object()

    files = []
    for i in range(_OPEN_FILES + 1):
        (tmp_path / str(i)).touch()
        files.append(file_id(tmp_path / str(i)))
    assert opened(open_file, files[0]) is opened(open_file, files[0])
    assert calls == ["0"]
    for file in [*files[1:], files[0]]:
        opened(open_file, file)
    assert calls.count("0") == 2


def test_another_process_opens_the_file_for_itself(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    file = file_id(tmp_path / "a")

    def open_file(path):
        return object()

    here = opened(open_file, file)
    with monkeypatch.context() as in_a_child:
        in_a_child.setattr("os.getpid", lambda: -1)
        assert opened(open_file, file) is not here
    assert opened(open_file, file) is here


def test_a_file_that_was_written_anew_is_another(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    first = opened(lambda path: path.read_bytes(), file_id(path))
    path.write_bytes(b"newer")
    assert (first, opened(lambda path: path.read_bytes(), file_id(path))) == (b"old", b"newer")


def test_what_is_no_file_is_refused_by_name(tmp_path):
    for path, found in [(tmp_path / "absent.tif", "nothing"), (tmp_path, "a folder")]:
        with pytest.raises(IpslibError, match=f"{path.name}: wanted .*{found}"):
            file_id(path)


def test_too_large_a_piece_is_refused_with_both_sizes():
    check_piece("a.tif", 2**30, "tile it")
    with pytest.raises(IpslibError, match=r"a\.tif: wanted .* 1024 MB.*, got 1100 MB; tile it\."):
        check_piece("a.tif", 1100 * 2**20, "tile it")


def test_a_missing_package_is_named_with_the_file_that_needs_it(tmp_path):
    with pytest.raises(IpslibError, match=r"a\.xyz: .* pip install no_such_package\."):
        load_package("no_such_package", tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("file signature not found"), "damaged.*copy it"),
        (PermissionError("denied"), "locked.*rights"),
        (BlockingIOError(11, "unable to lock file"), "locked.*close"),
        (OSError("can't open directory (/usr/local/lib/plugin)"), "compression.*hdf5plugin"),
    ],
)
def test_a_file_that_is_sound_is_not_called_damaged(error, told):
    assert re.search(told, str(unreadable("a.h5", error, "copy it again")))
