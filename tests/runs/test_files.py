import os
from pathlib import Path

import pytest

from ipslib import paths
from ipslib.paths import project_root
from ipslib.runs import files
from ipslib.runs.files import Layout, outputs_root, write_atomically


def test_a_profile_has_four_folders(project):
    made = Layout.of("quick", root=project.root).create()
    assert made.folder == project.root.parent / "results" / "quick"
    assert {path.name for path in made.folder.iterdir()} == {
        "records", "notebooks", "tables", "figures",
    }  # fmt: skip


def test_outputs_lie_in_the_project_unless_the_environment_moves_them(tmp_path, monkeypatch):
    monkeypatch.delenv("IPSLIB_OUTPUTS", raising=False)
    assert outputs_root(tmp_path) == tmp_path / "outputs"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPSLIB_OUTPUTS", "elsewhere")
    assert outputs_root() == tmp_path / "elsewhere"


def test_root_is_the_checkout_above_the_current_directory_else_that_directory(
    project, monkeypatch, tmp_path
):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site" / "ipslib" / "paths.py"))
    monkeypatch.chdir(project.root / "notebooks")
    assert project_root() == project.root
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, "long old text")
    assert write_atomically(path, b"new") == path
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, step):
    path = write_atomically(tmp_path / "file", "old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(Path(tmp_path)) == ["file"]
