import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ipslib.datasets.images import decoded
from ipslib.datasets.images.image import PieceCache
from ipslib.datasets.images.sources import (
    FeatureBag,
    SourceBatch,
    batch_of,
    open_source,
    with_channels,
)
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch, PatchGrid, cut_image

CANVAS, P = (90, 70), 20
GRID = PatchGrid(CANVAS, P, P)
FEATURES = np.random.RandomState(3).standard_normal((40, 6)).astype(np.float32)
IMAGE_FILES = ("a.npy", "a.tif", "plain.tif", "a.png")


def drawn(seed: int) -> np.ndarray:
    """A few bright squares on black."""
    random, image = np.random.RandomState(seed), np.zeros(CANVAS, np.uint8)
    for row, col in random.randint(0, 58, (6, 2)):
        image[row : row + 12, col : col + 12] = random.randint(1, 256, (12, 12))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One image in every kind of file, and a bag."""
    folder, image = tmp_path_factory.mktemp("sources"), drawn(0)
    np.save(folder / "a.npy", image)
    tifffile.imwrite(folder / "a.tif", image, tile=(16, 32), compression="zlib")
    tifffile.imwrite(folder / "plain.tif", image)
    Image.fromarray(image).save(folder / "a.png")
    with h5py.File(folder / "bag.h5", "w") as file:
        file["features"] = FEATURES
    return folder


def every_pair(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of image and patch, in some order."""
    pairs = torch.cartesian_prod(torch.arange(batch.batch_size), torch.arange(batch.n_patches))
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    return tuple(pairs[order].T)


def test_every_image_of_a_batch_is_read_for_itself_and_alike_from_every_kind_of_file(folder):
    images = [folder / name for name in IMAGE_FILES] + [drawn(0), drawn(1), drawn(2)]
    batch = SourceBatch([open_source(image, patch_size=P) for image in images])
    whole = [cut_image(drawn(seed), GRID) for seed in (0, 0, 0, 0, 0, 1, 2)]
    image, patch = every_pair(batch)
    assert (batch.batch_size, batch.n_patches) == (7, 20)
    assert torch.equal(batch.read(image, patch), torch.stack(whole)[image, patch])


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_sources_go_to_other_processes_open_or_not(folder, start, monkeypatch):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {start}")
    monkeypatch.setattr(decoded, "PIECES", PieceCache(1))  # a forked process reads the file too
    sources = [open_source(folder / name, patch_size=P) for name in IMAGE_FILES]
    sources += [open_source(folder / "bag.h5")]
    everything = [source.read(torch.arange(source.n_patches)).numpy() for source in sources]
    with multiprocessing.get_context(start).Pool(2) as pool:
        read = pool.map_async(read_often, sources * 8, chunksize=1).get(timeout=60)
    for there, here in zip(read, everything * 8, strict=True):
        assert np.array_equal(there, here)


def read_often(source) -> np.ndarray:
    """Patch by patch, so that processes that shared a handle would meet."""
    patches = [source.read(torch.tensor([patch])) for patch in range(source.n_patches)]
    return torch.cat(patches).numpy()


def test_those_alike_are_one_batch_while_their_patches_fit_the_window_of_selection():
    def kind_of(n_images, side):
        sources = [open_source(np.zeros((side, side), np.uint8), patch_size=1)] * n_images
        return type(batch_of(sources, labels={"sign": torch.zeros(n_images)}))

    assert kind_of(4, 32) is SourceBatch and kind_of(5, 32) is MixedBatch  # of 1024 patches
    other = [open_source(drawn(0)[:rows], patch_size=P) for rows in (2 * P, 3 * P)]
    assert isinstance(batch_of(other), MixedBatch) and isinstance(batch_of(other[:1]), SourceBatch)


def test_one_picture_in_several_depths_is_one_picture():
    grey = drawn(0)
    depths = grey, grey.astype(np.uint16) * 257, grey.astype(np.float32) / 255
    sources = [open_source(image, patch_size=P) for image in depths]
    together, one_by_one = SourceBatch(sources), MixedBatch([SourceBatch([s]) for s in sources])
    image, patch = every_pair(together)
    for batch in (together, one_by_one):
        torch.testing.assert_close(batch.read(image, patch), cut_image(grey, GRID)[patch] / 255)


def test_grey_is_a_colour_and_no_other_channels_are_made_up(folder):
    grey = open_source(folder / "a.tif", patch_size=P)
    coloured, every = with_channels(grey, 3), torch.arange(grey.n_patches)
    assert torch.equal(coloured.read(every), grey.read(every).expand(-1, 3, -1, -1))
    assert with_channels(grey, 1) is grey
    for source, n_channels in [(coloured, 1), (grey, 4)]:
        with pytest.raises(IpslibError, match=r"a\.tif.*channels"):
            with_channels(source, n_channels)


def test_a_batch_holds_images_of_one_size_with_a_label_each(folder):
    grey = open_source(folder / "a.npy", patch_size=P)
    for other in (np.zeros((130, 70), np.uint8), np.zeros((90, 70, 3), np.uint8)):
        with pytest.raises(IpslibError, match=r"sources\[1\].*a\.npy"):
            SourceBatch([grey, open_source(other, patch_size=P)])
    with pytest.raises(IpslibError, match="sources"):
        SourceBatch([])
    with pytest.raises(IpslibError, match="sign"):
        SourceBatch([grey], labels={"sign": torch.zeros(2)})


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        ("absent.tif", {"patch_size": P}, "absent.tif: "),
        ("absent.xyz", {"patch_size": P}, "absent.xyz: "),
        ("", {"patch_size": P}, "a folder"),
        ("a.psd", {"patch_size": P}, "a.psd: .*psd"),
        ("noname", {"patch_size": P}, "noname: .*suffix"),
        ("a.png", {}, "a.png: .*patch_size"),
        ("a.png", {"patch_size": P, "level": 1}, "a.png: .*level"),
        ("bag.h5", {"patch_size": P}, "bag.h5: .*patch_size"),
        (np.zeros((9, 9)), {}, "array: .*patch_size"),
        (np.zeros((3, 40, 50), np.uint8), {"patch_size": 2}, "array: .*3 x 40 x 50"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"patch_size": 2}, "array: .*2 x 4 x 4 x 3"),
        (np.ma.masked_equal(np.zeros((4, 4)), 0), {"patch_size": 2}, "array: .*MaskedArray"),
        (np.zeros(9, np.uint8), {"patch_size": 2}, "array: .*of 9;"),
        (np.zeros((), np.uint8), {"patch_size": 2}, "array: .*ndarray"),
        (np.zeros((0, 4), np.uint8), {"patch_size": 2}, "array: .*0 x 4 px"),
        *(
            (np.zeros((9, 9)), {"patch_size": size, "patch_stride": stride}, "patch_s")
            for size, stride in ((10, 11), (10, 0), (0, None), (-5, None))
        ),
        (Image.new("P", (9, 9)), {"patch_size": P}, "Image.*numpy"),
    ],
)
def test_what_cannot_be_opened_is_told_by_name(folder, image, options, said):
    for name in ("a.psd", "noname"):
        (folder / name).touch()
    with pytest.raises(IpslibError, match=said):
        open_source(folder / image if isinstance(image, str) else image, **options)


N, D = 300, 7
ROWS = np.random.RandomState(0).standard_normal((N, D)).astype(np.float32)
LAYOUTS = {
    "contiguous": {},
    "chunks": {"chunks": (16, D)},
    "compressed": {"chunks": (16, 3), "compression": "gzip"},
    "a row a chunk": {"chunks": (1, D)},
    "one chunk": {"chunks": (N, D), "compression": "gzip"},
}


def write(path, *, features: np.ndarray = ROWS, name: str = "features", **layout) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=features, **layout)
    return path


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> dict[str, FeatureBag]:
    folder = tmp_path_factory.mktemp("bags")
    return {
        layout: FeatureBag(write(folder / f"{layout}.h5", **options))
        for layout, options in LAYOUTS.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, N - 1), max_size=60))
def test_rows_come_in_the_order_asked_for(bags, layout, rows):
    read = bags[layout].read(torch.tensor(rows, dtype=torch.long))
    assert torch.equal(read, torch.from_numpy(ROWS[rows]))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("layout", [{}, {"chunks": (1, 16, D)}], ids=str)
def test_a_bag_of_any_floats_survives_a_pickle(tmp_path, layout, kind):
    """With an axis too many, as some tools write it."""
    stored = ROWS.astype(kind)
    path = write(tmp_path / "a.h5", features=stored[None], name="slide/feat", **layout)
    bag = pickle.loads(pickle.dumps(FeatureBag(path, features="slide/feat")))
    assert (bag.n_patches, bag.patch_shape, bag.dtype) == (N, (D,), torch.float32)
    assert torch.equal(bag.read(torch.arange(N)), torch.from_numpy(stored.astype(np.float32)))


def test_neighbours_and_the_rows_of_a_chunk_are_read_together(bags, monkeypatch):
    read, get = [], h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda s, at: read.append(at[0]) or get(s, at))
    spans = {}
    for layout in ("contiguous", "compressed", "one chunk"):
        bags[layout].read(torch.tensor([2, 3, 4, 9, 15, 16, 40]))
        spans[layout] = [(each.start, each.stop) for each in read]
        read.clear()
    assert spans["contiguous"] == [(2, 5), (9, 10), (15, 17), (40, 41)]
    assert spans["compressed"] == [(2, 16), (16, 17), (40, 41)]
    assert spans["one chunk"] == [(2, 41)]


@pytest.mark.parametrize(
    ("name", "features", "said"),
    [
        ("features", np.zeros((N, D), np.int32), "int32"),
        ("features", np.zeros((2, N, D), np.float32), "2, 300, 7"),
        ("features", np.zeros(N, np.float32), "300,"),
        ("features", np.zeros((0, D), np.float32), "0, 7"),
        ("feats", ROWS, "'feats'"),
        ("features/of", ROWS, "none"),
    ],
)
def test_what_is_no_bag_of_features_is_refused(tmp_path, name, features, said):
    write(tmp_path / "a.h5", features=features, name=name)
    with pytest.raises(IpslibError, match=rf"a\.h5: .*features.*{said}"):
        FeatureBag(tmp_path / "a.h5")


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_a_torn_bag_is_refused_by_name(tmp_path, layout):
    stored = write(tmp_path / "a.h5", **LAYOUTS[layout]).read_bytes()
    for length in [*range(0, len(stored), 1999), len(stored) - 1]:
        path = tmp_path / f"torn_{length}.h5"
        path.write_bytes(stored[:length])
        with pytest.raises(IpslibError, match=rf"torn_{length}\.h5"):
            FeatureBag(path)


def test_a_spoilt_chunk_is_found_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.h5", **LAYOUTS["compressed"])
    with h5py.File(path) as file:
        place = file["features"].id.get_chunk_info(10)
    spoilt = bytearray(path.read_bytes())
    spoilt[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(spoilt)
    bag = FeatureBag(path)
    assert torch.equal(bag.read(torch.tensor([0])), torch.from_numpy(ROWS[[0]]))
    with pytest.raises(IpslibError, match=r"a\.h5"):
        bag.read(torch.arange(N))


def test_chunks_too_large_to_read_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (600_000, 512), np.float32, chunks=(600_000, 512))
    with pytest.raises(IpslibError, match=r"a\.h5: .* MB"):
        FeatureBag(tmp_path / "a.h5")


def test_a_bag_can_be_written_anew_while_it_is_known(tmp_path):
    """As when the cell that extracts features is run again in a notebook that read them."""
    bag = FeatureBag(write(tmp_path / "a.h5"))
    bag.read(torch.arange(3))
    write(tmp_path / "a.h5", features=ROWS[:200])
    with pytest.raises(IpslibError, match=r"a\.h5"):  # not rows of the one and of the other
        bag.read(torch.arange(3))
    assert FeatureBag(tmp_path / "a.h5").n_patches == 200
