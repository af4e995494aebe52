import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from PIL.Image import Transpose

from ipslib.datasets.images.image import (
    _OPEN_FILES,
    ArraySource,
    PieceCache,
    Samples,
    check_piece,
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


VIEWS = {
    "as it is": lambda image: image,
    "a part": lambda image: image[5:50, 3:],
    "every second pixel": lambda image: image[::2, 1::2],
    "upside down": lambda image: image[::-1],
    "transposed": lambda image: image.transpose(1, 0, 2),
    "one channel": lambda image: image[:, :, 1],
    "plain view": np.asarray,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_views_of_a_memory_map_are_read_as_what_they_show(tmp_path, view, order):
    np.save(tmp_path / "a.npy", np.asarray(IMAGE, order=order))
    reads_like(npy_source(tmp_path / "a.npy", patch_size=P, patch_stride=S), all_patches(IMAGE))
    image = VIEWS[view](np.load(tmp_path / "a.npy", mmap_mode="r"))
    reads_like(ArraySource(image, patch_size=P, patch_stride=S), all_patches(VIEWS[view](IMAGE)))


def test_a_map_travels_as_a_path_and_an_array_with_its_pixels(tmp_path):
    image = np.zeros((1000, 1000), np.uint8)
    np.save(tmp_path / "a.npy", image)
    assert len(pickle.dumps(npy_source(tmp_path / "a.npy", patch_size=P))) < 2000
    assert len(pickle.dumps(ArraySource(image, patch_size=P))) > 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_whole_map_leaves_no_page_of_it_in_this_process(tmp_path):
    def mapped_mb() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("RssFile"))) / 1024

    np.save(tmp_path / "a.npy", np.ones((8000, 8000), np.uint8))  # 61 MB
    source = npy_source(tmp_path / "a.npy", patch_size=200)
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


TURNS = [  # of EXIF 1 to 8, as Pillow names them
    None, Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM,
    Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90,
]  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_it_is_shown(orientation):
    turn = TURNS[orientation - 1]
    shown = Image.fromarray(IMAGE) if turn is None else Image.fromarray(IMAGE).transpose(turn)
    samples = Samples(255, orientation=orientation)
    source = ArraySource(IMAGE, patch_size=P, patch_stride=S, samples=samples)
    reads_like(source, all_patches(np.asarray(shown)))
    assert np.array_equal(source.window(slice(3, 20), slice(5, 9)), np.asarray(shown)[3:20, 5:9])


@pytest.mark.parametrize(
    "image",
    [
        *(np.full((40, 50), 0.5, kind) for kind in (np.float16, np.float64, ">f4")),
        np.full((40, 50, 2), 32768, np.uint16),
        np.full((40, 50, 5), 128, np.uint8),
    ],
)
def test_every_kind_of_array_is_light_on_one_scale(image):
    patches = ArraySource(image, patch_size=P).read(torch.tensor([0]))
    light = patches / 255 if patches.dtype == torch.uint8 else patches
    torch.testing.assert_close(light, torch.full_like(light, 0.5), atol=0.003, rtol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.2, 255])
def test_floats_that_are_no_light_are_refused_with_their_place(value):
    image = np.zeros((40, 50), np.float32)
    image[[0, -1], 0] = 1 + 1e-7, -1e-7  # rounding
    source = ArraySource(image, patch_size=P, patch_stride=S)
    source.read(torch.arange(source.n_patches))
    image[31, 17] = value
    source.read(torch.tensor([0]))
    with pytest.raises(IpslibError, match="array: .*row 31, column 17"):
        source.read(torch.arange(source.n_patches))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        *((np.zeros((4, 4), kind), np.dtype(kind).name) for kind in (np.int16, bool, "u4", "c16")),
        (np.zeros((3, 40, 50), np.uint8), "3 x 40 x 50"),
        (np.zeros((2, 4, 4, 3), np.uint8), "2 x 4 x 4 x 3"),
        (np.zeros((4, 4, 4), np.uint8), "4 x 4 x 4"),
        (np.ma.masked_equal(np.zeros((4, 4), np.uint8), 0), "MaskedArray"),
        (np.zeros(9, np.uint8), "of 9;"),
        (np.zeros((), np.uint8), "ndarray"),
        (np.zeros((0, 4), np.uint8), "0 x 4 px"),
    ],
)
def test_what_is_no_image_is_refused_by_name(image, said):
    with pytest.raises(IpslibError, match=f"^array: wanted .*{said}"):
        ArraySource(image, patch_size=2)


@pytest.mark.parametrize(("patch_size", "patch_stride"), [(10, 11), (10, 0), (0, None), (-5, None)])
def test_a_stride_that_leaves_gaps_is_refused(patch_size, patch_stride):
    with pytest.raises(IpslibError, match="patch_s"):
        ArraySource(IMAGE, patch_size=patch_size, patch_stride=patch_stride)


def test_damaged_npy_files_are_refused_by_name(tmp_path):
    np.save(tmp_path / "whole.npy", IMAGE)
    stored = (tmp_path / "whole.npy").read_bytes()
    contents = [stored[:length] for length in (0, 5, 60, 127, 128, 500, len(stored) - 1)]
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", IMAGE)
    contents += [(tmp_path / name).read_bytes() for name in ("objects.npy", "several.npz")]
    for content in contents:
        (tmp_path / "bad.npy").write_bytes(content)
        with pytest.raises(IpslibError, match=r"bad\.npy: wanted a readable file"):
            npy_source(tmp_path / "bad.npy", patch_size=P)


def piece(n_bytes: int) -> np.ndarray:
    return np.zeros(n_bytes, np.uint8)


def test_the_piece_used_longest_ago_goes_first_and_others_are_not_decoded_again():
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


def test_what_is_no_file_is_refused_by_name(tmp_path):
    for path, found in [(tmp_path / "absent.tif", "nothing"), (tmp_path, "a folder")]:
        with pytest.raises(IpslibError, match=f"{path.name}: wanted .*{found}"):
            file_id(path)


def test_too_large_a_piece_is_refused_with_both_sizes():
    check_piece("a.tif", 2**30, "tile it")
    with pytest.raises(IpslibError, match=r"a\.tif: .* 1024 MB.* 1100 MB"):
        check_piece("a.tif", 1100 * 2**20, "tile it")


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


def test_other_content_is_another_file_even_of_the_same_size_and_time(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before, times = file_id(path), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"two")
    os.utime(path, ns=times)
    after = file_id(path)
    assert after != before and after[:3] == before[:3]
