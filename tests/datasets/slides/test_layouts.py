import pickle

import h5py
import numpy as np
import pytest
import torch

from ipslib.datasets.slides.bags import BagDataset, SlideBag, open_bags
from ipslib.datasets.slides.sets import describe_bags, open_slides
from ipslib.errors import IpslibError

N, D = 40, 6
FEATURES = np.random.RandomState(0).standard_normal((N, D)).astype(np.float32)
COORDS = np.arange(2 * N).reshape(N, 2) * 256
LABELS = (np.arange(N) % 5 == 0).astype(np.uint8)
ROWS = torch.tensor([3, 0, 39, 3])


def hdf5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def saved(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(array, path) if path.suffix == ".pt" else np.save(path, array)
    return path


def clam(folder):
    hdf5(folder / "h5_files" / "a.h5", features=FEATURES, coords=COORDS)
    return saved(folder / "pt_files" / "a.pt", torch.from_numpy(FEATURES)), None


def trident(folder):
    hdf5(folder / "20x" / "patches" / "a_patches.h5", coords=COORDS)
    return hdf5(folder / "20x" / "features_uni" / "a.h5", features=FEATURES[None]), None


def stamp(folder):
    return hdf5(folder / "a.h5", feats=FEATURES.astype(np.float16), coords=COORDS), None


def acmil(folder):
    return hdf5(folder / "all.h5", a__feat=FEATURES, a__coords=COORDS, b__feat=FEATURES[:9]), "a"


def ips(folder):
    return hdf5(folder / "feat_train.hdf5", a__img=FEATURES, a__pos=np.arange(N)), "a"


def torchmil(folder):
    saved(folder / "coords" / "a.npy", COORDS)
    saved(folder / "patch_labels" / "a.npy", LABELS)
    return saved(folder / "features" / "a.npy", FEATURES.astype(np.float64)), None


def archive(folder):
    np.savez(folder / "a.npz", features=FEATURES, coords=COORDS, patch_labels=LABELS)
    return folder / "a.npz", None


def one_array(folder):
    np.savez_compressed(folder / "a.npz", FEATURES)
    return folder / "a.npz", None


def pt_mapping(folder):
    tensors = {"feats": torch.from_numpy(FEATURES)[None], "coords": torch.from_numpy(COORDS)}
    return saved(folder / "a.pt", tensors), None


LAYOUTS = [clam, trident, stamp, acmil, ips, torchmil, archive, one_array, pt_mapping]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_rows(tmp_path, write):
    path, slide = write(tmp_path)
    bag = pickle.loads(pickle.dumps(SlideBag(path, slide=slide)))
    assert (bag.slide, bag.n_patches, bag.patch_shape) == ("a", N, (D,))
    read = bag.read(ROWS)
    assert read.dtype == torch.float32
    tolerance = 2e-3 if write is stamp else 1e-7
    assert torch.allclose(read, torch.from_numpy(FEATURES)[ROWS], atol=tolerance)
    with pytest.raises(IndexError, match="from 0 to 39"):
        bag.read(torch.tensor([N]))
    if write in (ips, one_array):
        assert bag.coords() is None
    else:
        assert np.array_equal(bag.coords(), COORDS)
    if write in (torchmil, archive):
        assert np.array_equal(bag.patch_labels, LABELS > 0)
    else:
        assert bag.patch_labels is None


def test_corners_in_microns_become_pixels(tmp_path):
    path, _ = stamp(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["unit"] = "um"
    with pytest.raises(
        IpslibError, match=r"a\.h5: wanted corners in pixels, got microns; give mpp"
    ):
        SlideBag(path).coords()
    assert np.array_equal(SlideBag(path).coords(mpp=0.25), COORDS * 4)


def test_the_size_of_a_patch_at_level_0_is_read_as_trident_or_clam_say_it(tmp_path):
    path, _ = trident(tmp_path)
    assert SlideBag(path).size_level0 is None
    beside = path.parents[1] / "patches" / "a_patches.h5"
    with h5py.File(beside, "a") as file:
        file["coords"].attrs.update({"patch_size": 256, "downsample": [2.0, 2.0]})
    assert SlideBag(path).size_level0 == 512
    with h5py.File(beside, "a") as file:
        file["coords"].attrs["patch_size_level0"] = 500
    assert SlideBag(path).size_level0 == 500


def test_a_file_of_several_slides_asks_which_and_opens_as_a_set(tmp_path):
    path, _ = acmil(tmp_path)
    with pytest.raises(IpslibError, match="wanted a data set features or feats.*found a, b; name"):
        SlideBag(path)
    with pytest.raises(IpslibError, match="of slide 'c', found nothing"):
        SlideBag(path, slide="c")
    bags, skipped = open_bags(path)
    assert {name: bag.n_patches for name, bag in bags.items()} == {"a": N, "b": 9} and not skipped


def acmil_slides(folder, slides):
    """One file: features of 16 bits and corners in a group a slide, which names its class."""
    with h5py.File(folder / "patch_feats_pretrain_natural.h5", "w") as file:
        for slide, label in slides.items():
            group = file.create_group(slide)
            group["feat"], group["coords"] = FEATURES.astype(np.float16), COORDS
            group.attrs["label"] = label
    return folder / "patch_feats_pretrain_natural.h5"


def ips_slides(folder, slides):
    """A file a set: compressed features and places in a group a slide, which names its class."""
    for slide, label in slides.items():
        split = "test" if slide.startswith("test") else "train"
        with h5py.File(folder / f"feat_{split}_500ep.hdf5", "a") as file:
            group, packed = file.create_group(slide), {"compression": "gzip"}
            group.create_dataset("img", data=FEATURES, **packed, compression_opts=9)
            group.create_dataset("pos", data=np.arange(N), **packed, compression_opts=9)
            group.attrs["label"] = np.int64(label)
    return folder


@pytest.mark.parametrize("write", [acmil_slides, ips_slides])
def test_slides_that_say_their_class_need_no_table(tmp_path, write):
    slides = {"normal_001": 0, "tumor_001": 1, "test_001": 1, "test_002": 0}
    place = write(tmp_path, slides)
    config = describe_bags(place)
    train, test = open_slides(config, "train"), open_slides(config, "test")
    assert dict(zip(train.names, train.labels.tolist(), strict=True)) == {
        "normal_001": 0, "tumor_001": 1,
    }  # fmt: skip
    assert dict(zip(test.names, test.labels.tolist(), strict=True)) == {
        "test_001": 1,
        "test_002": 0,
    }
    assert test.skipped == {} and train[0].patch_labels is None
    everything = BagDataset(place)
    assert everything.batch(range(4)).labels["tumour"].tolist() == [0, 1, 0, 1]
    # A table knows better than a bag, and a bag better than a name.
    (tmp_path / "labels.csv").write_text("test_001,normal\n")
    corrected = open_slides(describe_bags(place, tmp_path / "labels.csv"), "test")
    assert corrected.labels.tolist() == [0, 0]


def test_a_bag_knows_better_than_its_name_and_a_group_holds_patch_labels(tmp_path):
    place = acmil_slides(tmp_path, {"normal_001": "tumor", "test_001": "unknown"})
    hdf5(place, normal_001__patch_labels=LABELS)
    bags, _ = open_bags(place)
    assert (bags["normal_001"].label, bags["test_001"].label) == (1, None)
    assert np.array_equal(bags["normal_001"].patch_labels, LABELS > 0)
    train = open_slides(describe_bags(place), "train")
    assert train.labels.tolist() == [1]
    assert "test_001: wanted a label, found none in its name, its bag" in train.skipped["test_001"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".h5"])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"no bag at all")
    with pytest.raises(IpslibError, match=rf"a\{suffix}: wanted a readable file.*anew\.$"):
        SlideBag(tmp_path / f"a{suffix}")


def test_what_holds_no_rows_or_no_fitting_corners_is_refused(tmp_path):
    saved(tmp_path / "a.npy", COORDS)
    with pytest.raises(IpslibError, match=r"wanted features as floating.*got int64 \(40, 2\)"):
        SlideBag(tmp_path / "a.npy")
    with pytest.raises(IpslibError, match="wanted a bag .*got .csv"):
        (tmp_path / "a.csv").touch()
        SlideBag(tmp_path / "a.csv")
    hdf5(tmp_path / "b.h5", features=FEATURES, coords=COORDS[:3], patch_labels=LABELS[:4])
    with pytest.raises(IpslibError, match=r"wanted coords of shape \(40, 2\), got \(3, 2\)"):
        SlideBag(tmp_path / "b.h5").coords()
    with pytest.raises(IpslibError, match=r"wanted patch_labels of shape \(40,\), got \(4,\)"):
        _ = SlideBag(tmp_path / "b.h5").patch_labels
