import pickle

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.datasets.images.bag import FeatureBag
from ipslib.errors import IpslibError

N, D = 300, 7
FEATURES = np.random.RandomState(0).standard_normal((N, D)).astype(np.float32)
COORDS = np.arange(2 * N).reshape(N, 2)
LAYOUTS = {
    "contiguous": {},
    "chunks": {"chunks": (16, D)},
    "compressed": {"chunks": (16, 3), "compression": "gzip"},
    "a row a chunk": {"chunks": (1, D)},
    "one chunk": {"chunks": (N, D), "compression": "gzip"},
}


def write(path, *, features: np.ndarray = FEATURES, name: str = "features", **layout) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=features, **layout)
        file["coords"] = COORDS


@pytest.fixture(scope="module")
def bags(tmp_path_factory) -> dict[str, FeatureBag]:
    folder = tmp_path_factory.mktemp("bags")
    for layout, options in LAYOUTS.items():
        write(folder / f"{layout}.h5", **options)
    return {layout: FeatureBag(folder / f"{layout}.h5") for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, N - 1), max_size=60))
def test_rows_come_in_the_order_asked_for(bags, layout, rows):
    read = bags[layout].read(torch.tensor(rows, dtype=torch.long))
    assert torch.equal(read, torch.from_numpy(FEATURES[rows]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bag_says_its_size_and_survives_a_pickle(bags, layout):
    bag = pickle.loads(pickle.dumps(bags[layout]))
    assert (bag.n_patches, bag.patch_shape, bag.dtype, bag.blank) == (N, (D,), torch.float32, None)
    assert torch.equal(bag.read(torch.arange(N)), torch.from_numpy(FEATURES))
    assert np.array_equal(bag.coords, COORDS)


def test_neighbours_and_the_rows_of_a_chunk_are_read_together(bags):
    rows = np.array([2, 3, 4, 9, 15, 16, 40])
    runs = {name: [rows[run].tolist() for run in bag._runs(rows)] for name, bag in bags.items()}
    assert runs["contiguous"] == [[2, 3, 4], [9], [15, 16], [40]]
    assert runs["a row a chunk"] == runs["contiguous"]
    assert runs["compressed"] == [[2, 3, 4, 9, 15], [16], [40]]
    assert runs["one chunk"] == [rows.tolist()]


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_other_floats_become_float32(tmp_path, kind):
    write(tmp_path / "a.h5", features=FEATURES.astype(kind))
    read = FeatureBag(tmp_path / "a.h5").read(torch.arange(N))
    assert read.dtype == torch.float32
    assert torch.equal(read, torch.from_numpy(FEATURES.astype(kind).astype(np.float32)))


def test_a_group_a_slide_and_other_names_are_found(tmp_path):
    write(tmp_path / "a.h5", name="normal_001/feat")
    bag = FeatureBag(tmp_path / "a.h5", features="normal_001/feat")
    assert torch.equal(bag.read(torch.tensor([5])), torch.from_numpy(FEATURES[[5]]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_axis_too_many_is_left_out(tmp_path, layout):
    options = dict(LAYOUTS[layout])
    if "chunks" in options:
        options["chunks"] = (1, *options["chunks"])
    write(tmp_path / "a.h5", features=FEATURES[None], **options)
    bag, rows = FeatureBag(tmp_path / "a.h5"), torch.tensor([7, 299, 8, 0])
    assert (bag.n_patches, bag.patch_shape) == (N, (D,))
    assert torch.equal(bag.read(rows), torch.from_numpy(FEATURES)[rows])


def test_a_row_outside_the_bag_is_a_mistake(bags):
    for wrong in (-1, N):
        with pytest.raises(IndexError, match=f"0 to {N - 1}"):
            bags["compressed"].read(torch.tensor([0, wrong]))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros((N, D), np.int32), "got int32 (300, 7)"),
        (np.zeros((2, N, D), np.float32), "got float32 (2, 300, 7)"),
        (np.zeros(N, np.float32), "got float32 (300,)"),
        (np.zeros((0, D), np.float32), "got float32 (0, 7)"),
    ],
)
def test_what_is_no_bag_of_features_is_refused(tmp_path, features, said):
    write(tmp_path / "a.h5", features=features)
    with pytest.raises(IpslibError, match=r"a\.h5: wanted 'features' as floating-point") as refusal:
        FeatureBag(tmp_path / "a.h5")
    assert said in str(refusal.value)


def test_a_data_set_that_is_not_there_is_named_with_the_nearest(tmp_path):
    write(tmp_path / "a.h5", name="feats")
    with pytest.raises(IpslibError, match=r"a\.h5: wanted a data set 'features'.*mean 'feats'\?"):
        FeatureBag(tmp_path / "a.h5")
    write(tmp_path / "b.h5", name="slide/features")
    with pytest.raises(IpslibError, match="wanted a data set 'slide', found none"):
        FeatureBag(tmp_path / "b.h5", features="slide")


def test_coords_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path / "a.h5", features=FEATURES[:9])
    with pytest.raises(IpslibError, match=r"wanted 'coords' of shape \(9, 2\), got \(300, 2\)"):
        _ = FeatureBag(tmp_path / "a.h5").coords


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_a_torn_file_is_refused_by_name(tmp_path, layout):
    write(tmp_path / "a.h5", **LAYOUTS[layout])
    stored = (tmp_path / "a.h5").read_bytes()
    for length in [*range(0, len(stored), 499), len(stored) - 1]:
        path = tmp_path / f"torn_{length}.h5"
        path.write_bytes(stored[:length])
        with pytest.raises(IpslibError, match=rf"torn_{length}\.h5: wanted a readable .* anew\.$"):
            FeatureBag(path)


def test_a_spoilt_chunk_is_found_when_it_is_read(tmp_path):
    path = tmp_path / "a.h5"
    write(path, **LAYOUTS["compressed"])
    with h5py.File(path) as file:
        place = file["features"].id.get_chunk_info(10)
    spoilt = bytearray(path.read_bytes())
    spoilt[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(spoilt)
    bag = FeatureBag(path)
    assert torch.equal(bag.read(torch.tensor([0])), torch.from_numpy(FEATURES[[0]]))
    with pytest.raises(IpslibError, match=r"a\.h5: wanted a readable file"):
        bag.read(torch.arange(N))


def test_chunks_too_large_to_read_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (300_000, 512), np.float32, chunks=(300_000, 512))
    with pytest.raises(IpslibError, match="512 MB.*got 585 MB; write it anew in chunks of fewer"):
        FeatureBag(tmp_path / "a.h5")


def test_a_bag_can_be_written_anew_while_it_is_known(tmp_path):
    """As when the cell that extracts features is run again in a notebook that read them."""
    write(tmp_path / "a.h5")
    bag = FeatureBag(tmp_path / "a.h5")
    bag.read(torch.arange(3)), bag.coords
    write(tmp_path / "a.h5", features=FEATURES[:200])
    with pytest.raises(IpslibError, match=r"a\.h5"):  # not rows of the one and of the other
        bag.read(torch.arange(3))
    assert FeatureBag(tmp_path / "a.h5").n_patches == 200
