import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ipslib.datasets.images.image import (
    _OPEN_FILES,
    ArraySource,
    PieceCache,
    file_id,
    npy_source,
    opened,
    unreadable,
)
from ipslib.errors import IpslibError
from ipslib.patches import PatchGrid, cut_image

P, S = 12, 9
IMAGE = np.random.RandomState(0).randint(0, 256, (61, 47, 3)).astype(np.uint8)


def all_patches(image: np.ndarray, patch_size: int = P, patch_stride: int = S) -> torch.Tensor:
    """By cutting the whole image (H, W) or (H, W, C), whose values must fit float32."""
    image = image[:, :, None] if image.ndim == 2 else image
    native = image.astype(np.uint8 if image.dtype == np.uint8 else np.float32, order="C")
    return cut_image(
        native.transpose(2, 0, 1), PatchGrid(image.shape[:2], patch_size, patch_stride)
    )


def reads_like(source, whole: torch.Tensor) -> None:
    """Every patch, in another order, some twice, and in another process too."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(1))
    order = torch.cat([order, order[:3]])
    assert source.n_patches == len(whole) and source.patch_shape == tuple(whole.shape[1:])
    for each in (source, pickle.loads(pickle.dumps(source))):
        patches = each.read(order)
        assert patches.dtype == whole.dtype == each.dtype and torch.equal(patches, whole[order])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_patches_are_those_of_the_whole_image_cut(data):
    size = data.draw(st.integers(1, 12))
    stride = data.draw(st.integers(1, size))
    shape = data.draw(
        st.tuples(st.integers(1, 30), st.integers(1, 30))
        | st.tuples(st.integers(5, 30), st.integers(1, 30), st.integers(1, 3))
    )
    numbers = st.sampled_from([np.dtype(np.uint8), np.dtype(np.float32), np.dtype(">f4")])
    within = {"min_value": 0, "max_value": data.draw(st.sampled_from([0, 1]))}
    image = data.draw(arrays.arrays(data.draw(numbers), shape, elements=within))
    source = ArraySource(image, patch_size=size, patch_stride=stride)
    reads_like(source, all_patches(image, size, stride))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_is_read_in_either_order_and_a_view_of_its_map_as_what_it_shows(tmp_path, order):
    np.save(tmp_path / "a.npy", np.asarray(IMAGE, order=order))
    reads_like(npy_source(tmp_path / "a.npy", patch_size=P, patch_stride=S), all_patches(IMAGE))
    view = np.load(tmp_path / "a.npy", mmap_mode="r")[::-2, 3:].transpose(1, 0, 2)
    reads_like(ArraySource(view, patch_size=P, patch_stride=S), all_patches(view))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_map_travels_as_a_path_and_reading_it_leaves_no_page_in_this_process(tmp_path):
    def mapped_mb() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("RssFile"))) / 1024

    np.save(tmp_path / "a.npy", np.ones((8000, 8000), np.uint8))  # 61 MB
    source = npy_source(tmp_path / "a.npy", patch_size=200)
    assert len(pickle.dumps(source)) < 2000
    before = mapped_mb()
    for patches in torch.arange(source.n_patches).split(100):
        assert source.read(patches).min() == 1
        assert mapped_mb() < before + 5


def test_a_patch_outside_the_image_is_a_mistake_and_not_an_empty_patch():
    source = ArraySource(IMAGE, patch_size=P)
    for wrong in (-1, source.n_patches):
        with pytest.raises(IndexError, match=f"0 to {source.n_patches - 1}"):
            source.read(torch.tensor([0, wrong]))
    assert len(source.read(torch.tensor([], dtype=torch.long))) == 0


def test_damaged_npy_files_are_refused_by_name(tmp_path):
    np.save(tmp_path / "whole.npy", IMAGE)
    stored = (tmp_path / "whole.npy").read_bytes()
    contents = [stored[:length] for length in (0, 5, 60, 127, 128, 500, len(stored) - 1)]
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", IMAGE)
    contents += [(tmp_path / name).read_bytes() for name in ("objects.npy", "several.npz")]
    for content in contents:
        (tmp_path / "bad.npy").write_bytes(content)
        with pytest.raises(IpslibError, match=r"bad\.npy"):
            npy_source(tmp_path / "bad.npy", patch_size=P)


def test_the_piece_used_longest_ago_goes_first_and_others_are_not_decoded_again():
    cache, decoded = PieceCache(100), []
    for key in "abacab":
        cache.get(key, lambda key=key: decoded.append(key) or np.zeros(50, np.uint8))
    assert decoded == ["a", "b", "c", "b"]


def test_a_file_is_opened_once_a_process_until_others_have_taken_its_place(tmp_path, monkeypatch):
    calls = []

    def open_file(path):
        calls.append(path.name)
        return object()

    files = []
    for i in range(_OPEN_FILES + 1):
        (tmp_path / str(i)).touch()
        files.append(file_id(tmp_path / str(i)))
    here = opened(open_file, files[0])
    assert opened(open_file, files[0]) is here and calls == ["0"]
    with monkeypatch.context() as in_a_child:
        in_a_child.setattr("os.getpid", lambda: -1)
        assert opened(open_file, files[0]) is not here
    assert opened(open_file, files[0]) is here
    for file in [*files[1:], files[0]]:
        opened(open_file, file)
    assert calls.count("0") == 3


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("denied"), "locked"),
        (BlockingIOError(11, "unable to lock file"), "locked"),
        (OSError("can't open directory (/usr/local/lib/plugin)"), "hdf5plugin"),
    ],
)
def test_a_file_that_is_sound_is_not_called_damaged(error, told):
    assert told in str(unreadable("a.h5", error, "copy it again"))


def test_other_content_is_another_file_even_of_the_same_size_and_time(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before, times = file_id(path), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"two")
    os.utime(path, ns=times)
    after = file_id(path)
    assert after != before and after[:3] == before[:3]
