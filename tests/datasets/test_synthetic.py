import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipslib.datasets import synthetic
from ipslib.datasets.synthetic import make_once, standin_folder
from ipslib.errors import IpslibError


def test_they_lie_in_the_project_whatever_the_data_root_is(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "project_root", lambda: tmp_path)
    monkeypatch.setenv("IPSLIB_DATA", "/read/only")
    assert standin_folder("slides_8") == tmp_path / "data" / "standins" / "slides_8"


def test_a_folder_is_made_once_though_several_ask_for_it(tmp_path):
    folder, made = tmp_path / "new" / "standin", []

    def make(part):
        made.append(part)
        assert part != folder and not any(part.iterdir())
        (part / "slide").write_text("drawn")

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: make_once(folder, make), range(4))) == {folder}
    assert len(made) == 1 and not made[0].exists()
    assert (folder / "slide").read_text() == "drawn"


def test_what_was_interrupted_is_no_standin_and_is_made_anew(tmp_path):
    folder = tmp_path / "standin"

    def stopped(part):
        (part / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(folder, stopped)
    assert not folder.exists()
    make_once(folder, lambda part: (part / "whole").touch())
    assert os.listdir(folder) == ["whole"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IpslibError, match="wanted to write a stand-in, got .*; free some space"):
        make_once(tmp_path / "file" / "standin", lambda part: None)
