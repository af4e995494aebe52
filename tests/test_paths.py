import json
import os
from unittest.mock import Mock

import pytest

from ipslib import paths
from ipslib.errors import IpslibError
from ipslib.paths import changed_files, digest_of, found, from_here, stamp, write_atomically


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that has lain there for long enough to be trusted."""
    monkeypatch.setattr(paths, "_TICK", 0)
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    return path


class TestStamp:
    def test_a_known_stamp_spares_hashing_as_long_as_nothing_was_written(self, file):
        known = json.loads(json.dumps(stamp(file)))
        known[-1] = "as it was"
        assert stamp(file, known).sha256 == "as it was"

    def test_content_decides_where_size_and_time_of_modification_are_set_back(self, file):
        before, times = stamp(file), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        file.write_bytes(b"two")
        os.utime(file, ns=times)
        after = stamp(file, before)
        assert after[:2] == before[:2] and after.sha256 != before.sha256

    def test_a_file_just_written_is_hashed_again(self, file, monkeypatch):
        monkeypatch.setattr(paths, "_TICK", 10**15)
        known = stamp(file)._replace(sha256="as it was")
        assert stamp(file, known).sha256 != "as it was"


def test_several_files_are_one_digest_and_what_differs_is_named(file):
    one, other = stamp(file), stamp(file)._replace(sha256="0")
    before = {"a": one, "b": one, "c": one}
    assert digest_of(before) == digest_of(dict(reversed(before.items())))
    for after in ({"a": one, "b": other, "c": one}, {"a": one, "b": one}, {**before, "d": one}):
        assert digest_of(after) != digest_of(before)
    assert changed_files(before, {"a": one, "b": other, "d": one}) == ["b", "c", "d"]
    assert changed_files(before, dict(before)) == []


class TestRelative:
    """JupyterLab starts kernels in notebooks/, papermill where it is called, the study anywhere."""

    @pytest.fixture
    def places(self, project, monkeypatch):
        monkeypatch.setattr(paths, "project_root", lambda: project.root)
        (project.root / "mine").mkdir()
        outside = project.root.parent / "outside"
        outside.mkdir()
        return project.root, project.root / "notebooks", outside

    def test_a_path_means_the_same_from_everywhere(self, places, monkeypatch):
        file = places[0] / "mine" / "labels.csv"
        file.touch()
        for place in places:
            monkeypatch.chdir(place)
            assert found("mine/labels.csv") == found(file) == file

    def test_from_outside_the_current_directory_counts_too(self, places, monkeypatch):
        root, inside, outside = places
        (outside / "labels.csv").touch()
        monkeypatch.chdir(outside)
        assert found("labels.csv") == outside / "labels.csv"
        assert from_here("runs") == outside / "runs"
        monkeypatch.chdir(inside)
        assert from_here("runs") == root / "runs"
        assert from_here(outside) == outside

    def test_none_and_two_are_refused_and_named(self, places, monkeypatch):
        root, inside, _ = places
        monkeypatch.chdir(inside)
        with pytest.raises(IpslibError, match=f"{root}/no.csv"):
            found("no.csv")
        for place in (root, inside):
            (place / "labels.csv").touch()
        with pytest.raises(IpslibError, match=f"{inside}/labels.csv"):
            found("labels.csv")


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, "long old text")
    assert write_atomically(path, b"new") == path
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, step):
    path = write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(paths.os, step, Mock(side_effect=OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
