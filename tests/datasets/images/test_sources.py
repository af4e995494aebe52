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
    open_source,
    with_channels,
)
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch, PatchGrid, TensorBatch, cut_image
from ipslib.selection import select_patches

CANVAS, P = (90, 70), 20
GRID = PatchGrid(CANVAS, P, P)
FEATURES = np.random.RandomState(3).standard_normal((40, 6)).astype(np.float32)
IMAGE_FILES = ("a.npy", "a.tif", "plain.tif", "a.png")


def drawn(seed: int) -> np.ndarray:
    """A few bright squares on black."""
    random, image = np.random.RandomState(seed), np.zeros(CANVAS, np.uint8)
    for row, col in random.randint(0, 60, (6, 2)):
        image[row : row + 12, col : col + 12] = random.randint(1, 256, (12, 12))[
            : 90 - row, : 70 - col
        ]
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


def in_memory(*images: np.ndarray) -> TensorBatch:
    return TensorBatch(torch.stack([cut_image(image, GRID) for image in images]))


def every_pair(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of image and patch, in some order."""
    pairs = torch.cartesian_prod(torch.arange(batch.batch_size), torch.arange(batch.n_patches))
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    return tuple(pairs[order].T)


def test_one_image_reads_alike_from_every_kind_of_file(folder):
    paths = [folder / name for name in IMAGE_FILES]
    batch = SourceBatch([open_source(image, patch_size=P) for image in (drawn(0), *paths)])
    pairs = every_pair(batch)
    assert torch.equal(batch.read(*pairs), in_memory(*[drawn(0)] * 5).read(*pairs))


def test_every_image_of_a_batch_is_read_for_itself():
    images = [drawn(seed) for seed in range(3)]
    batch = SourceBatch([open_source(image, patch_size=P) for image in images])
    pairs = every_pair(batch)
    assert (batch.batch_size, batch.n_patches) == (3, 20)
    assert torch.equal(batch.read(*pairs), in_memory(*images).read(*pairs))


def test_options_reach_the_file_that_takes_them(folder):
    source = open_source(str(folder / "a.tif"), patch_size=20, patch_stride=10, level=0)
    assert source.grid == PatchGrid(CANVAS, 20, 10)
    assert open_source(folder / "bag.h5").n_patches == len(FEATURES)


def test_selection_from_a_bag_keeps_its_best_rows(folder):
    batch = SourceBatch([open_source(folder / "bag.h5")])
    query = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    selection = select_patches(
        batch, lambda x: x, lambda x, index: x @ query, memory_size=7, iter_size=5
    )
    best = (torch.from_numpy(FEATURES) @ query)[:, 0].argsort(descending=True)[:7]
    assert selection.indices[0].tolist() == best.tolist()


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


@pytest.mark.parametrize(
    ("other", "got"),
    [
        (np.zeros((130, 70), np.uint8), "28 patches of 1 x 20 x 20"),
        (np.zeros((90, 70, 3), np.uint8), "20 patches of 3 x 20 x 20"),
    ],
)
def test_images_of_a_batch_are_of_one_size(folder, other, got):
    sources = [open_source(folder / "a.npy", patch_size=P), open_source(other, patch_size=P)]
    with pytest.raises(IpslibError, match=rf"sources\[1\].*a\.npy, got {got}"):
        SourceBatch(sources)


DEPTHS = drawn(0), drawn(0).astype(np.uint16) * 257, drawn(0).astype(np.float32) / 255


def one_by_one(sources) -> MixedBatch:
    return MixedBatch([SourceBatch([source]) for source in sources])


@pytest.mark.parametrize("batch_of", [SourceBatch, one_by_one])
def test_one_picture_in_several_depths_is_one_picture(batch_of):
    sources = [open_source(image, patch_size=P) for image in DEPTHS]
    batch = batch_of(sources)
    image, patch = every_pair(SourceBatch(sources))
    wanted = TensorBatch(in_memory(*[drawn(0)] * 3).instances / 255)
    torch.testing.assert_close(batch.read(image, patch), wanted.read(image, patch))


def test_grey_is_a_colour_and_no_other_channels_are_made_up(folder):
    grey = open_source(folder / "a.tif", patch_size=P)
    coloured, every = with_channels(grey, 3), torch.arange(grey.n_patches)
    assert torch.equal(coloured.read(every), grey.read(every).expand(-1, 3, -1, -1))
    assert (grey.patch_shape, coloured.patch_shape) == ((1, P, P), (3, P, P))
    assert with_channels(grey, 1) is grey
    for source, n_channels in [(coloured, 1), (grey, 4)]:
        with pytest.raises(IpslibError, match=rf"a\.tif: wanted {n_channels} channels, got"):
            with_channels(source, n_channels)


def test_a_batch_needs_an_image_and_a_label_for_each():
    with pytest.raises(IpslibError, match="at least one image, got none"):
        SourceBatch([])
    with pytest.raises(IpslibError, match="labels of sign: wanted 1"):
        SourceBatch([open_source(drawn(0), patch_size=P)], labels={"sign": torch.zeros(2)})


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        ("absent.tif", {"patch_size": P}, "absent.tif: .* nothing"),
        ("absent.xyz", {"patch_size": P}, "absent.xyz: .* nothing"),
        ("a.psd", {"patch_size": P}, "a.psd: .*psd"),
        ("noname", {"patch_size": P}, "noname: .*without a suffix"),
        ("a.png", {}, "a.png: .*patch_size"),
        ("a.png", {"patch_size": P, "level": 1}, "a.png: .*level"),
        ("bag.h5", {"patch_size": P}, "bag.h5: .*patch_size"),
        (np.zeros((9, 9)), {}, "array: .*patch_size"),
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


@pytest.mark.parametrize(
    ("layout", "kind"),
    [*((layout, "f4") for layout in LAYOUTS), *(("chunks", k) for k in ("f2", "f8", ">f4"))],
)
def test_a_bag_of_any_floats_survives_a_pickle(tmp_path, layout, kind):
    """With an axis too many, as some tools write it."""
    options = dict(LAYOUTS[layout])
    if "chunks" in options:
        options["chunks"] = (1, *options["chunks"])
    stored = ROWS.astype(kind)
    path = write(tmp_path / "a.h5", features=stored[None], name="slide/feat", **options)
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


def test_a_row_outside_the_bag_is_a_mistake(bags):
    for wrong in (-1, N):
        with pytest.raises(IndexError, match=f"0 to {N - 1}"):
            bags["compressed"].read(torch.tensor([0, wrong]))


@pytest.mark.parametrize(
    ("name", "features", "said"),
    [
        ("features", np.zeros((N, D), np.int32), r"features.* int32 \(300, 7\)"),
        ("features", np.zeros((2, N, D), np.float32), r"features.* \(2, 300, 7\)"),
        ("features", np.zeros(N, np.float32), r"features.* \(300,\)"),
        ("features", np.zeros((0, D), np.float32), r"features.* \(0, 7\)"),
        ("feats", ROWS, "features.* 'feats'"),
        ("features/of", ROWS, "features.* none"),
    ],
)
def test_what_is_no_bag_of_features_is_refused(tmp_path, name, features, said):
    write(tmp_path / "a.h5", features=features, name=name)
    with pytest.raises(IpslibError, match=rf"a\.h5: wanted .*{said}"):
        FeatureBag(tmp_path / "a.h5")


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_a_torn_bag_is_refused_by_name(tmp_path, layout):
    stored = write(tmp_path / "a.h5", **LAYOUTS[layout]).read_bytes()
    for length in [*range(0, len(stored), 1999), len(stored) - 1]:
        path = tmp_path / f"torn_{length}.h5"
        path.write_bytes(stored[:length])
        with pytest.raises(IpslibError, match=rf"torn_{length}\.h5: wanted a readable"):
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
    with pytest.raises(IpslibError, match=r"a\.h5: wanted a readable file"):
        bag.read(torch.arange(N))


def test_chunks_too_large_to_read_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (600_000, 512), np.float32, chunks=(600_000, 512))
    with pytest.raises(IpslibError, match=r"a\.h5: .* 1171 MB"):
        FeatureBag(tmp_path / "a.h5")


def test_a_bag_can_be_written_anew_while_it_is_known(tmp_path):
    """As when the cell that extracts features is run again in a notebook that read them."""
    bag = FeatureBag(write(tmp_path / "a.h5"))
    bag.read(torch.arange(3))
    write(tmp_path / "a.h5", features=ROWS[:200])
    with pytest.raises(IpslibError, match=r"a\.h5"):  # not rows of the one and of the other
        bag.read(torch.arange(3))
    assert FeatureBag(tmp_path / "a.h5").n_patches == 200
