import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipslib.datasets.synthetic import MARKER, is_synthetic, make_once, make_synthetic, titled
from ipslib.errors import IpslibError


def draw(part) -> None:
    (part / "inside").mkdir()
    (part / "inside" / "slide").write_text("drawn")


def test_a_folder_is_made_once_though_several_ask_for_it(tmp_path):
    folder, made = tmp_path / "new" / "drawn", []

    def make(part):
        made.append(part)
        assert part != folder and not any(part.iterdir())
        draw(part)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: make_once(folder, make), range(4))) == {folder}
    assert len(made) == 1 and not made[0].exists()
    assert (folder / "inside" / "slide").read_text() == "drawn"


def test_what_was_interrupted_is_made_anew(tmp_path):
    folder = tmp_path / "drawn"

    def stopped(part):
        (part / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(folder, stopped)
    assert not folder.exists()
    make_once(folder, draw)
    assert os.listdir(folder) == ["inside"]


def test_drawn_data_are_marked_and_are_found_by_what_they_were_made_by(tmp_path):
    folder = tmp_path / "drawn"
    folder.mkdir()  # an empty one is filled
    made_by = {"seed": 3, "size": (2, 4)}
    assert make_synthetic(folder, made_by, draw) == folder
    assert is_synthetic(folder) and is_synthetic(folder / "inside") and not is_synthetic(tmp_path)
    make_synthetic(folder, made_by, lambda part: pytest.fail("drawn again"))
    with pytest.raises(IpslibError, match="drawn: "):
        make_synthetic(folder, made_by | {"seed": 4}, draw)
    (folder / MARKER).write_text("{")
    assert is_synthetic(folder)
    with pytest.raises(IpslibError, match="drawn: "):
        make_synthetic(folder, made_by, draw)


@pytest.mark.parametrize("place", ["", "file/drawn"])
def test_a_folder_that_holds_something_else_or_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(IpslibError, match=str(tmp_path / place)):
        make_synthetic(tmp_path / place, {}, draw)
    assert os.listdir(tmp_path) == ["file"] and not is_synthetic(tmp_path)


def test_a_heading_says_what_is_synthetic():
    assert titled("Arms", False) == "Arms"
    assert "SYNTHETIC" in titled("Arms", True) and titled("Arms", True).endswith("Arms")
