import pickle
import shutil

import attrs
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from ipslib import paths
from ipslib.datasets.slides.bags import (
    BagDataset,
    SlideBag,
    describe_bags,
    label_bags,
    open_bags,
    open_slides,
)
from ipslib.errors import IpslibError

N, D = 40, 6
FEATURES = np.random.RandomState(0).standard_normal((N, D)).astype(np.float32)
TENSOR, HALF = torch.from_numpy(FEATURES), FEATURES.astype(np.float16)
COORDS = np.arange(2 * N).reshape(N, 2) * 256
LABELS = (np.arange(N) % 5 == 0).astype(np.uint8)
ROWS = torch.tensor([3, 0, 39, 3])


def save(path, content, **attributes):
    """A file of arrays by name, or of one; attributes are of an HDF5 file or one of its groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(content, path)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        with h5py.File(path, "a") as file:
            for name, array in content.items():
                packed = "gzip" if np.size(array) else None
                file.create_dataset(name, data=array, compression=packed)
            for name, value in attributes.items():
                place, _, name = name.rpartition("__")
                (file[place] if place else file).attrs[name] = value
    return path


# The file that is opened, the slide in it, and what lies in it and beside.
LAYOUTS = {
    "clam": (
        "pt_files/a.pt", None,
        {"pt_files/a.pt": TENSOR, "h5_files/a.h5": {"features": FEATURES, "coords": COORDS}},
    ),
    "trident": (
        "20x/features_uni/a.h5", None,
        {
            "20x/patches/a_patches.h5": {"coords": COORDS},
            "20x/features_uni/a.h5": {"features": FEATURES[None]},
        },
    ),
    "stamp": ("a.h5", None, {"a.h5": {"feats": HALF, "coords": COORDS}}),
    "acmil": (
        "all.h5", "a",
        {"all.h5": {"a/feat": FEATURES, "a/coords": COORDS, "b/feat": FEATURES[:9]}},
    ),
    "ips": ("train.hdf5", "a", {"train.hdf5": {"a/img": FEATURES, "a/pos": np.arange(N)}}),
    "torchmil": (
        "features/a.npy", None,
        {"features/a.npy": FEATURES.astype(float), "coords/a.npy": COORDS,
         "patch_labels/a.npy": LABELS},
    ),
    "archive": (
        "a.npz", None,
        {"a.npz": {"features": FEATURES, "coords": COORDS, "patch_labels": LABELS}},
    ),
    "one array": ("a.npz", None, {"a.npz": {"anything": FEATURES}}),
    "mapping": (
        "a.pt", None,
        {"a.pt": {"feats": TENSOR[None], "coords": torch.from_numpy(COORDS), "slide_id": "a"}},
    ),
}  # fmt: skip


def lay(folder, layout):
    path, slide, files = LAYOUTS[layout]
    for name, content in files.items():
        save(folder / name, content)
    return folder / path, slide


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(tmp_path, layout):
    path, slide = lay(tmp_path, layout)
    bag = pickle.loads(pickle.dumps(SlideBag(path, slide=slide)))
    assert (bag.slide, bag.n_patches, bag.patch_shape) == ("a", N, (D,))
    read = bag.read(ROWS)
    assert read.dtype == torch.float32
    assert torch.allclose(read, TENSOR[ROWS], atol=2e-3 if layout == "stamp" else 1e-7)
    with pytest.raises(IndexError):
        bag.read(torch.tensor([N]))
    has_corners, has_labels = layout not in ("ips", "one array"), layout in ("torchmil", "archive")
    assert np.array_equal(bag.coords(), COORDS) if has_corners else bag.coords() is None
    labels = bag.patch_labels
    assert np.array_equal(labels, LABELS > 0) if has_labels else labels is None


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        TENSOR, {"features": TENSOR}, TENSOR.bfloat16(), TENSOR.to_sparse(), TENSOR.half(),
        TENSOR.double(), TENSOR.clone().requires_grad_(),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_tensors_of_any_age_and_type_are_read(tmp_path, content, zipped):
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    read = SlideBag(tmp_path / "a.pt").read(ROWS)
    assert read.dtype == torch.float32 and not read.requires_grad
    assert torch.allclose(read, TENSOR[ROWS], atol=0.02)


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was run",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [Trap(), FEATURES])
def test_python_objects_are_not_opened_and_not_called_damaged(tmp_path, zipped, content):
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    np.save(tmp_path / "a.npy", np.array([content, None], object), allow_pickle=True)
    for name in ("a.pt", "a.npy"):
        with pytest.raises(IpslibError, match=rf"{name}.*objects"):
            SlideBag(tmp_path / name)


class TestCorners:
    @pytest.mark.parametrize(
        ("stored", "attributes"),
        [
            (COORDS, {"unit": "um"}),
            (COORDS, {"tile_size_um": 256.0}),
            (COORDS // 256 * 224, {}),  # its first version says nothing of 256/224 µm
        ],
    )
    def test_of_stamp_become_pixels_unless_they_say_that_they_are(
        self, tmp_path, stored, attributes
    ):
        arrays = {"feats": HALF, "coords": stored}
        bag = SlideBag(save(tmp_path / "a.h5", arrays, **attributes))
        with pytest.raises(IpslibError, match=r"a\.h5.*mpp"):
            bag.coords()
        assert np.array_equal(bag.coords(mpp=0.25), COORDS * 4)
        if not attributes:
            path = save(tmp_path / "b.h5", arrays, coords__patch_size_level0=224)
            assert np.array_equal(SlideBag(path).coords(), stored)

    def test_say_the_size_of_a_patch_as_trident_or_clam_do(self, tmp_path):
        path, _ = lay(tmp_path, "trident")
        assert SlideBag(path).size_level0 is None
        beside, said = tmp_path / "20x/patches/a_patches.h5", {"coords__patch_size": 256}
        save(beside, {}, **said, coords__downsample=[2.0, 2.0])
        assert SlideBag(path).size_level0 == 512
        save(beside, {}, coords__patch_size_level0=500)
        assert SlideBag(path).size_level0 == 500

    @pytest.mark.parametrize(("corners", "size"), [(COORDS, 512), (COORDS[::-1], None)])
    def test_without_a_size_take_that_of_the_same_corners_beside(self, tmp_path, corners, size):
        path, _ = lay(tmp_path, "clam")
        said = {"coords__patch_size": 256, "coords__downsample": [2.0, 2.0]}
        save(tmp_path / "patches" / "a.h5", {"coords": corners}, **said)
        for each in (path, tmp_path / "h5_files" / "a.h5"):
            assert SlideBag(each).size_level0 == size

    @pytest.mark.parametrize(
        ("part", "array"),
        [
            ("coords", COORDS[:3]), ("coords", np.full((N, 2), np.nan)),
            ("patch_labels", LABELS[:4]), ("patch_labels", np.where(LABELS, np.nan, 0)),
            ("patch_labels", np.where(LABELS, -1, 0)),
        ],
    )  # fmt: skip
    def test_and_labels_that_do_not_fit_are_refused(self, tmp_path, part, array):
        bag = SlideBag(save(tmp_path / "b.h5", {"features": FEATURES, part: array}))
        with pytest.raises(IpslibError, match=rf"b\.h5.*{part}"):
            bag.coords() if part == "coords" else bag.patch_labels


def test_a_file_of_several_slides_asks_which_and_opens_as_a_set(tmp_path):
    path, _ = lay(tmp_path, "acmil")
    with pytest.raises(IpslibError, match=r"all\.h5.*a, b"):
        SlideBag(path)
    with pytest.raises(IpslibError, match="slide c"):
        SlideBag(path, slide="c")
    bags, skipped = open_bags(path)
    assert {name: bag.n_patches for name, bag in bags.items()} == {"a": N, "b": 9} and not skipped


def of_groups(path, labels, features):
    """A file of a group a slide, which names its class."""
    said = {f"{slide}__label": label for slide, label in labels.items()}
    return save(path, {f"{slide}/{features}": FEATURES for slide in labels}, **said)


def test_slides_that_say_their_class_need_no_table(tmp_path):
    """ACMIL has a file of all slides, IPS one of each set."""
    train, test = {"normal_001": 0, "tumor_001": 1}, {"test_001": np.int64(1), "test_002": 0}
    acmil, ips = of_groups(tmp_path / "all.h5", train | test, "feat"), tmp_path / "ips"
    of_groups(ips / "train.hdf5", train, "img")
    of_groups(ips / "test.hdf5", test, "img")
    # A table knows better than a bag.
    (tmp_path / "labels.csv").write_text("test_001,normal\n")
    for bags in (acmil, ips):
        config = describe_bags(bags)
        for split, labels in (("train", train), ("test", test)):
            opened = open_slides(config, split)
            assert dict(zip(opened.names, opened.labels.tolist(), strict=True)) == labels
            assert opened.skipped == {} and opened[0].patch_labels is None
        corrected = open_slides(describe_bags(bags, tmp_path / "labels.csv"), "test")
        assert corrected.labels.tolist() == [0, 0]


def test_a_bag_knows_better_than_its_name_and_a_group_holds_patch_labels(tmp_path):
    place = of_groups(tmp_path / "a.h5", {"normal_001": "tumor", "test_001": "unknown"}, "feat")
    save(place, {"normal_001/patch_labels": LABELS})
    train = open_slides(describe_bags(place), "train")
    assert train.labels.tolist() == [1] and "label" in train.skipped["test_001"]
    assert np.array_equal(train[0].patch_labels, LABELS > 0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        *((f"a{suffix}", b"no bag at all", "damaged") for suffix in (".npy", ".npz", ".pt", ".h5")),
        *(("a.npy", rows, "features") for rows in (COORDS, FEATURES[:0], FEATURES[0])),
        *(("a.h5", {"features": rows}, "features") for rows in (COORDS, FEATURES[:0], FEATURES[0])),
    ],
)
def test_a_file_that_is_damaged_or_holds_no_rows_is_refused_by_name(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else save(path, content)
    with pytest.raises(IpslibError, match=rf"{name}.*{said}"):
        SlideBag(path)
    assert name in open_bags(tmp_path)[1]["a"]
    with pytest.raises(IpslibError, match=".csv"):
        SlideBag(path.rename(tmp_path / "a.csv"))


def test_a_compression_that_is_not_installed_is_no_damage(tmp_path):
    path = save(tmp_path / "a.h5", {"features": FEATURES})
    content = path.read_bytes()
    at = content.index(b"deflate") - 8  # where the filter's number stands
    path.write_bytes(content[:at] + (32001).to_bytes(2, "little") + content[at + 2 :])
    assert "hdf5plugin" in open_bags(tmp_path)[1]["a"]


class TestSeveralBagsOfASlide:
    """One is taken, or none, and `skipped` says which was not read."""

    @pytest.mark.parametrize("same", [True, False])
    def test_the_fuller_is_taken(self, tmp_path, same):
        known = {"coords": COORDS, "patch_labels": LABELS}
        save(tmp_path / "normal_001.h5", {"features": FEATURES} | known)
        save(tmp_path / "normal_001.pt", (TENSOR if same else TENSOR + 1).half())
        bags, skipped = open_bags(tmp_path)
        assert bags["normal_001"].patch_labels is not None
        assert list(skipped) == ["normal_001.pt"]
        assert ("compared are the same" in skipped["normal_001.pt"]) == same

    @pytest.mark.parametrize("other", [FEATURES + 1, FEATURES[:9], FEATURES[:, :3]])
    def test_none_where_they_say_as_much_and_differ(self, tmp_path, other):
        save(tmp_path / "tumor_1.h5", {"features": FEATURES})
        save(tmp_path / "Tumor_001.h5", {"features": other})
        bags, skipped = open_bags(tmp_path)
        [reason] = skipped.values()
        assert not bags and "tumor_1.h5" in reason and "Tumor_001.h5" in reason

    def test_what_macos_leaves_beside_one_is_none(self, tmp_path):
        save(tmp_path / "a.h5", {"features": FEATURES})
        (tmp_path / "._a.h5").write_bytes(b"\0\5\x16\7")
        bags, skipped = open_bags(tmp_path)
        assert list(bags) == ["a"] and not skipped


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_told_by_slide_and_row(tmp_path, bad):
    """In a large bag they are found when every row is read."""
    small, large = FEATURES.copy(), np.zeros((5000, 3), np.float32)
    small[17, 2] = large[4997, 2] = bad
    for name, rows in (("small", small), ("large", large), ("sound", FEATURES)):
        save(tmp_path / f"{name}.h5", {"features": rows})
    bags, skipped = open_bags(tmp_path, every_row=True)
    assert list(bags) == ["sound"]
    assert "row 17" in skipped["small"] and "row 4997" in skipped["large"]
    assert open_bags(tmp_path)[0].keys() == {"sound", "large"}


SLIDES = {"normal_001": 0, "tumor_001": 1, "tumor_002": 1}


class TestDataset:
    @pytest.fixture
    def folder(self, tmp_path):
        for value, (name, n) in enumerate(zip(SLIDES, (7, 9, 7), strict=True)):
            rows = np.full((n, 5), value, np.float32)
            save(tmp_path / f"{name}.h5", {"features": rows, "patch_labels": np.zeros(n)})
        return tmp_path

    def test_bags_of_any_size_go_together(self, folder):
        labels = {"Normal_1": 0.0, "tumor_1.h5": "1", "tumour_2.svs": "tumour"}
        dataset = BagDataset(folder, labels)
        assert (len(dataset), dataset.in_channels, dataset.grid) == (3, 5, None)
        assert dataset.names == list(SLIDES) and dataset.n_classes == {"tumour": 2}
        assert dataset.chance == {"tumour": 2 / 3}
        assert dataset.provenance == {"slide_source": "real", "n_slides": 3, "n_skipped": 0}
        batch = dataset.batch([2, 0, 1])
        assert batch.labels["tumour"].tolist() == [1, 0, 1]
        assert [part.n_patches for part in batch.parts] == [7, 7, 9]
        read = batch.read(torch.tensor([2, 0, 1]), torch.tensor([8, 3, 3]))
        assert read[:, 0].tolist() == [1, 2, 0]
        assert dataset.augmented(seed=0, epoch=3) is dataset

    @pytest.mark.parametrize("said", [np.nan, None, pd.NA, "maybe", 2, -1])
    def test_a_label_that_is_none_leaves_its_slide_out_by_name(self, folder, said):
        dataset = BagDataset(folder, SLIDES | {"tumor_002": said})
        assert dataset.names == ["normal_001", "tumor_001"]
        assert "tumor_002" in dataset.skipped["tumor_002"]

    def test_the_rest_works_and_what_is_left_out_says_why(self, folder):
        (folder / "tumor_003.h5").write_bytes(b"torn")
        save(folder / "tumor_004.h5", {"features": FEATURES[:, :3]})
        save(folder / "other.h5", {"features": FEATURES[:, :5]})
        dataset = BagDataset(folder, SLIDES | {"tumor_003": 1, "tumor_004": 1, "Tumor_77": 1})
        assert dataset.names == list(SLIDES)
        told = {"other": "label", "tumor_003": "damaged", "tumor_004": "3", "tumor_077": "bag"}
        assert list(dataset.skipped) == list(told)
        for name, word in told.items():
            assert name in dataset.skipped[name] and word in dataset.skipped[name]

    def test_nothing_to_read_is_an_error(self, folder, tmp_path):
        with pytest.raises(IpslibError, match="normal_001"):
            BagDataset(folder, {})
        (tmp_path / "empty").mkdir()
        with pytest.raises(IpslibError, match="empty"):
            BagDataset(tmp_path / "empty", SLIDES)


class TestOfficialSets:
    def test_are_described_and_opened(self, standin, bags):
        config = describe_bags(bags, standin.reference)
        assert (config.in_channels, config.n_classes, config.grid) == (128, {"tumour": 2}, None)
        train, test = open_slides(config, "train"), open_slides(config, "test")
        assert {name[:6] for name in train.names} == {"normal", "tumor_"} and len(train) == 12
        assert {name[:5] for name in test.names} == {"test_"} and len(test) == 8
        assert train.provenance == {"slide_source": "standin", "n_slides": 12, "n_skipped": 0}
        assert test.chance == {"tumour": 0.5} and test.labels.tolist() == [0, 1] * 4
        # Without the table, those to test on have no label.
        config = describe_bags(bags)
        assert open_slides(config, "train").skipped.keys() == set(test.names)
        with pytest.raises(IpslibError, match="test set"):
            open_slides(config, "test")

    def test_belong_to_a_run_by_the_content_of_bags_and_labels(self, standin, bags, tmp_path):
        for name in ("normal_501", "tumor_501", "test_501"):
            shutil.copy(bags / f"{name}.h5", tmp_path)
        config = describe_bags(tmp_path)
        assert describe_bags(tmp_path) == config
        assert describe_bags(tmp_path, standin.reference) != config
        shutil.copy(bags / "tumor_501.h5", tmp_path / "part")
        with h5py.File(tmp_path / "part", "r+") as file:
            file["features"][5, 5] += 1
        (tmp_path / "part").replace(tmp_path / "tumor_501.h5")
        other = describe_bags(tmp_path)
        assert attrs.evolve(other, bags_sha256=config.bags_sha256) == config != other
        with pytest.raises(IpslibError, match="others"):
            open_slides(config, "train")
        shutil.copy(bags / "tumor_502.h5", tmp_path)
        assert describe_bags(tmp_path) != other

    def test_hold_no_bags_of_other_names(self, bags, tmp_path):
        shutil.copy(bags / "normal_501.h5", tmp_path / "mine.h5")
        with pytest.raises(IpslibError, match="mine"):
            describe_bags(tmp_path)
        (tmp_path / "labels.csv").write_text("mine,normal\ntumor_501,tumor\n")
        shutil.copy(bags / "tumor_501.h5", tmp_path)
        train = open_slides(describe_bags(tmp_path, tmp_path / "labels.csv"), "train")
        assert train.names == ["tumor_501"] and "mine" in train.skipped["mine"]
        assert label_bags(open_bags(tmp_path)[0])[0] == {"tumor_501": 1}

    def test_lie_where_their_project_does(self, standin, bags, tmp_path, monkeypatch):
        monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
        shutil.copytree(bags, tmp_path / "data" / "bags")
        config = describe_bags(tmp_path / "data" / "bags", standin.reference)
        assert config.bags == "data/bags" and config.labels == str(standin.reference)
        assert len(open_slides(config, "train")) == 12  # whatever the current folder is
        monkeypatch.chdir(tmp_path / "data")
        assert describe_bags("bags", standin.reference) == config
