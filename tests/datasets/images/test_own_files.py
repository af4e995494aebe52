import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from ipslib.datasets.images import own_files
from ipslib.datasets.images.own_files import readable
from ipslib.errors import IpslibError


@pytest.fixture
def opening(tmp_path):
    """Files to be opened, how, and how often each was: what begins with `no` cannot be."""
    own_files._results.cache_clear()
    files = [tmp_path / name for name in ("a", "no_b", "gone", "c")]
    for file in files[:2] + files[3:]:
        file.write_text(file.name)
    counts = Counter()

    def open_file(file: Path) -> str:
        counts[file.name] += 1
        if not file.is_file() or file.name.startswith("no"):
            raise IpslibError(f"{file.name}: cannot be read.")
        return Opened(file.read_text())

    return files, open_file, counts


class Opened:
    """Stands for a source."""

    name, n_patches, patch_shape, dtype, blank = "x", 1, (1,), torch.float32, None

    def __init__(self, text):
        self.text = text

    def read(self, patches):
        return torch.ones(len(patches), 1)


def lines(files, open_file, settings=0):
    skipped: list[str] = []
    found = [
        (image.source.text, image.line)
        for image in readable(files, open_file, settings=settings, skipped=skipped)
    ]
    return found, skipped


def test_each_file_is_opened_once_and_told_each_time(opening):
    files, open_file, counts = opening
    expected = [("a", 0), ("c", 3)], ["no_b: cannot be read.", "gone: cannot be read."]
    assert lines(files, open_file) == lines(files, open_file) == expected
    assert counts == dict.fromkeys(("a", "no_b", "gone", "c"), 1)


def test_files_are_opened_as_far_as_they_are_asked_for(opening):
    files, open_file, counts = opening
    assert next(readable(files, open_file, settings=0)).line == 0
    assert counts == {"a": 1}
    lines(files, open_file)
    assert counts["a"] == 1 and counts["c"] == 1


def test_what_has_changed_or_come_and_what_is_read_otherwise_is_opened_anew(opening):
    files, open_file, counts = opening
    lines(files, open_file)
    lines(files, open_file, settings=1)
    assert counts["a"] == 2
    files[2].write_text("gone")
    assert lines(files, open_file)[0] == [("a", 0), ("gone", 2), ("c", 3)]
    files[3].write_text("C")
    os.utime(files[3], ns=(0, 0))
    assert lines(files, open_file)[0][-1] == ("C", 3)


def test_what_was_cut_off_is_opened_but_not_whole(opening):
    files, open_file, _ = opening

    class CutOff(Opened):
        def read(self, patches):
            raise IpslibError(f"{self.text}: is cut off.")

    def open_cut_off(file: Path) -> Opened:
        source = open_file(file)
        return CutOff("a") if source.text == "a" else source

    for _ in range(2):  # whichever is asked first
        for whole, names in ((False, ["a", "c"]), (True, ["c"])):
            found = readable(files, open_cut_off, settings="cut", whole=whole)
            assert [image.source.text for image in found] == names
