import pickle
import shutil

import attrs
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from ipslib import paths
from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.slides.bags import (
    BagDataset,
    SlideBag,
    describe_bags,
    label_bags,
    open_bags,
    open_slides,
    stored_labels,
)
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch
from ipslib.selection import select_patches

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
    return saved(folder / "a.pt", tensors | {"slide_id": "a"}), None


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


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda x: x, {"_use_new_zipfile_serialization": False}),
        (lambda x: {"features": x}, {"_use_new_zipfile_serialization": False}),
        (torch.Tensor.bfloat16, {}),
        (torch.Tensor.to_sparse, {}),
        (torch.Tensor.half, {}),
        (torch.Tensor.double, {}),
        (lambda x: x.clone().requires_grad_(), {}),
    ],
)
def test_tensors_of_any_age_and_type_are_read(tmp_path, change, options):
    torch.save(change(torch.from_numpy(FEATURES)), tmp_path / "a.pt", **options)
    read = SlideBag(tmp_path / "a.pt").read(ROWS)
    assert read.dtype == torch.float32 and not read.requires_grad
    assert torch.allclose(read, torch.from_numpy(FEATURES)[ROWS], atol=0.02)


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
    @pytest.mark.parametrize("attributes", [{"unit": "um"}, {"tile_size_um": 256.0}])
    def test_of_stamp_in_microns_become_pixels(self, tmp_path, attributes):
        path, _ = stamp(tmp_path)
        with h5py.File(path, "a") as file:
            file.attrs.update(attributes)
        with pytest.raises(IpslibError, match=r"a\.h5.*mpp"):
            SlideBag(path).coords()
        assert np.array_equal(SlideBag(path).coords(mpp=0.25), COORDS * 4)

    def test_of_stamp_s_first_version_count_pixels_of_its_own(self, tmp_path):
        """224 of them are 256 µm, and nothing in the file says so."""
        path = hdf5(tmp_path / "a.h5", feats=FEATURES, coords=COORDS // 256 * 224)
        with pytest.raises(IpslibError, match=r"a\.h5.*mpp"):
            SlideBag(path).coords()
        assert np.array_equal(SlideBag(path).coords(mpp=0.5), COORDS * 2)
        other = hdf5(tmp_path / "b.h5", feats=FEATURES, coords=COORDS // 256 * 224)
        with h5py.File(other, "a") as file:  # of another tool, which says that they are pixels
            file["coords"].attrs["patch_size_level0"] = 224
        assert np.array_equal(SlideBag(other).coords(), COORDS // 256 * 224)

    def test_say_the_size_of_a_patch_as_trident_or_clam_do(self, tmp_path):
        path, _ = trident(tmp_path)
        assert SlideBag(path).size_level0 is None
        beside = path.parents[1] / "patches" / "a_patches.h5"
        with h5py.File(beside, "a") as file:
            file["coords"].attrs.update({"patch_size": 256, "downsample": [2.0, 2.0]})
        assert SlideBag(path).size_level0 == 512
        with h5py.File(beside, "a") as file:
            file["coords"].attrs["patch_size_level0"] = 500
        assert SlideBag(path).size_level0 == 500

    @pytest.mark.parametrize(("beside", "size"), [(COORDS, 512), (COORDS[::-1], None)])
    def test_without_a_size_take_that_of_the_same_corners_beside(self, tmp_path, beside, size):
        path, _ = clam(tmp_path)
        other = hdf5(tmp_path / "patches" / "a.h5", coords=beside)
        with h5py.File(other, "a") as file:
            file["coords"].attrs.update({"patch_size": 256, "downsample": [2.0, 2.0]})
        for each in (path, tmp_path / "h5_files" / "a.h5"):
            assert SlideBag(each).size_level0 == size

    @pytest.mark.parametrize(
        ("arrays", "part"),
        [
            ({"coords": COORDS[:3]}, "coords"),
            ({"coords": np.full((N, 2), np.nan)}, "coords"),
            ({"patch_labels": LABELS[:4]}, "patch_labels"),
            ({"patch_labels": np.where(LABELS, np.nan, 0)}, "patch_labels"),
            ({"patch_labels": np.where(LABELS, -1, 0)}, "patch_labels"),
        ],
    )
    def test_and_labels_that_do_not_fit_are_refused(self, tmp_path, arrays, part):
        bag = SlideBag(hdf5(tmp_path / "b.h5", features=FEATURES, **arrays))
        with pytest.raises(IpslibError, match=rf"b\.h5.*{part}"):
            bag.coords() if part == "coords" else bag.patch_labels


def test_a_file_of_several_slides_asks_which_and_opens_as_a_set(tmp_path):
    path, _ = acmil(tmp_path)
    with pytest.raises(IpslibError, match=r"all\.h5.*a, b"):
        SlideBag(path)
    with pytest.raises(IpslibError, match="slide c"):
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
    assert BagDataset(place).batch(range(4)).labels["tumour"].tolist() == [0, 1, 0, 1]
    # A table knows better than a bag, and a bag better than a name.
    (tmp_path / "labels.csv").write_text("test_001,normal\n")
    corrected = open_slides(describe_bags(place, tmp_path / "labels.csv"), "test")
    assert corrected.labels.tolist() == [0, 0]


def test_a_bag_knows_better_than_its_name_and_a_group_holds_patch_labels(tmp_path):
    place = acmil_slides(tmp_path, {"normal_001": "tumor", "test_001": "unknown"})
    hdf5(place, normal_001__patch_labels=LABELS)
    bags, _ = open_bags(place)
    assert stored_labels(bags) == {"normal_001": 1}
    assert np.array_equal(bags["normal_001"].patch_labels, LABELS > 0)
    train = open_slides(describe_bags(place), "train")
    assert train.labels.tolist() == [1] and "label" in train.skipped["test_001"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".h5"])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"no bag at all")
    with pytest.raises(IpslibError, match=rf"a\{suffix}.*damaged"):
        SlideBag(tmp_path / f"a{suffix}")


def test_a_compression_that_is_not_installed_is_no_damage(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=FEATURES, compression="gzip")
    content = path.read_bytes()
    at = content.index(b"deflate") - 8  # where the filter's number stands
    path.write_bytes(content[:at] + (32001).to_bytes(2, "little") + content[at + 2 :])
    _, skipped = open_bags(tmp_path)
    assert "a.h5" in skipped["a"] and "hdf5plugin" in skipped["a"]


@pytest.mark.parametrize("array", [COORDS, FEATURES[:0], FEATURES[0]])
def test_what_holds_no_rows_is_refused(tmp_path, array):
    for path in (saved(tmp_path / "a.npy", array), hdf5(tmp_path / "a.h5", features=array)):
        with pytest.raises(IpslibError, match=path.name):
            SlideBag(path)
    (tmp_path / "a.csv").touch()
    with pytest.raises(IpslibError, match=r"a\.csv"):
        SlideBag(tmp_path / "a.csv")


class TestSeveralBagsOfASlide:
    """One is taken, or none, and `skipped` says which was not read."""

    @pytest.mark.parametrize("same", [True, False])
    def test_the_fuller_is_taken(self, tmp_path, same):
        hdf5(tmp_path / "normal_001.h5", features=FEATURES, coords=COORDS, patch_labels=LABELS)
        other = torch.from_numpy(FEATURES if same else FEATURES + 1)
        saved(tmp_path / "normal_001.pt", other.half())
        bags, skipped = open_bags(tmp_path)
        assert bags["normal_001"].patch_labels is not None
        assert list(skipped) == ["normal_001.pt"]
        assert ("compared are the same" in skipped["normal_001.pt"]) == same

    @pytest.mark.parametrize("other", [FEATURES + 1, FEATURES[:9], FEATURES[:, :3]])
    def test_none_where_they_say_as_much_and_differ(self, tmp_path, other):
        hdf5(tmp_path / "tumor_1.h5", features=FEATURES)
        hdf5(tmp_path / "Tumor_001.h5", features=other)
        bags, skipped = open_bags(tmp_path)
        assert not bags
        [reason] = skipped.values()
        assert "tumor_1.h5" in reason and "Tumor_001.h5" in reason

    def test_what_macos_leaves_beside_one_is_none(self, tmp_path):
        hdf5(tmp_path / "a.h5", features=FEATURES)
        (tmp_path / "._a.h5").write_bytes(b"\0\5\x16\7")
        bags, skipped = open_bags(tmp_path)
        assert list(bags) == ["a"] and not skipped


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
class TestFeaturesThatAreNoNumbers:
    def test_are_told_by_slide_and_row(self, tmp_path, bad):
        rows = FEATURES.copy()
        rows[17, 2] = bad
        hdf5(tmp_path / "a.h5", features=rows)
        hdf5(tmp_path / "b.h5", features=FEATURES)
        bags, skipped = open_bags(tmp_path)
        assert list(bags) == ["b"] and "a.h5" in skipped["a"] and "row 17" in skipped["a"]

    def test_are_found_in_a_large_bag_when_every_row_is_read(self, tmp_path, bad):
        rows = np.zeros((5000, 3), np.float32)
        rows[4997, 2] = bad
        hdf5(tmp_path / "a.h5", features=rows)
        assert "row 4997" in open_bags(tmp_path, every_row=True)[1]["a"]


def write(path, n, *, d=5, labels=None, value=0.0):
    given = {} if labels is None else {"patch_labels": labels}
    hdf5(path, features=np.full((n, d), value, np.float32), **given)


SLIDES = {"normal_001": 0, "tumor_001": 1, "tumor_002": 1}


class TestDataset:
    @pytest.fixture
    def folder(self, tmp_path):
        write(tmp_path / "normal_001.h5", 7, labels=np.zeros(7))
        write(tmp_path / "tumor_001.h5", 9, labels=np.arange(9) == 4, value=1.0)
        write(tmp_path / "tumor_002.h5", 7, value=2.0)
        return tmp_path

    def test_bags_of_any_size_go_together(self, folder):
        dataset = BagDataset(folder, SLIDES)
        assert (len(dataset), dataset.in_channels, dataset.grid) == (3, 5, None)
        assert dataset.names == list(SLIDES) and dataset.n_classes == {"tumour": 2}
        assert dataset.chance == {"tumour": 2 / 3}
        assert dataset.provenance == {"slide_source": "real", "n_slides": 3, "n_skipped": 0}
        batch = dataset.batch([2, 0, 1])
        assert isinstance(batch, MixedBatch) and isinstance(batch.parts[0], SourceBatch)
        assert batch.labels["tumour"].tolist() == [1, 0, 1] and batch.boxes is None
        assert [part.n_patches for part in batch.parts] == [7, 7, 9]
        read = batch.read(torch.tensor([2, 0, 1]), torch.tensor([8, 3, 3]))
        assert read[:, 0].tolist() == [1, 2, 0]
        assert dataset.augmented(seed=0, epoch=3) is dataset

    @pytest.mark.parametrize(
        "cells",
        [
            [0, 1, 1], [0.0, 1.0, 1.0], ["0", "1", "1"], ["0.0", "1.0", "1.0"],
            ["normal", "Tumor", "tumour"], [np.int64(0), np.bool_(True), np.float32(1)],
        ],
    )  # fmt: skip
    def test_labels_come_from_a_data_frame(self, folder, cells):
        frame = pd.DataFrame({"slide": ["Normal_1", "tumor_1.h5", "tumour_2.svs"], "label": cells})
        dataset = BagDataset(folder, dict(zip(frame.slide, frame.label, strict=True)))
        assert dataset.labels.tolist() == [0, 1, 1] and not dataset.skipped
        assert dataset.labels.dtype == torch.long

    @pytest.mark.parametrize("said", [np.nan, None, pd.NA, "", "nan", "maybe", 0.5, 2, -1, np.inf])
    def test_a_label_that_is_none_leaves_its_slide_out_by_name(self, folder, said):
        dataset = BagDataset(folder, SLIDES | {"tumor_002": said})
        assert dataset.names == ["normal_001", "tumor_001"]
        assert "tumor_002" in dataset.skipped["tumor_002"]

    def test_two_labels_of_a_slide_that_differ_are_refused(self, folder):
        with pytest.raises(IpslibError, match="Tumor_1"):
            BagDataset(folder, SLIDES | {"Tumor_1": 0})
        assert len(BagDataset(folder, SLIDES | {"Tumor_1": 1.0})) == 3

    def test_the_rest_works_and_what_is_left_out_says_why(self, folder):
        (folder / "tumor_003.h5").write_bytes(b"torn")
        write(folder / "tumor_004.h5", 4, d=3)
        write(folder / "other.h5", 4)
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
    def test_are_described_and_opened_and_selection_finds_the_rows_that_score(self, standin, bags):
        config = describe_bags(bags, standin.reference)
        assert (config.in_channels, config.n_classes, config.grid) == (128, {"tumour": 2}, None)
        train, test = open_slides(config, "train"), open_slides(config, "test")
        assert {name[:6] for name in train.names} == {"normal", "tumor_"} and len(train) == 12
        assert {name[:5] for name in test.names} == {"test_"} and len(test) == 8
        assert train.provenance == {"slide_source": "standin", "n_slides": 12, "n_skipped": 0}
        assert test.chance == {"tumour": 0.5} and test.labels.tolist() == [0, 1] * 4
        batch = test.batch([5]).parts[0]
        kept = select_patches(
            batch, lambda rows: rows, lambda rows, index: rows[:, :1], memory_size=4, iter_size=9
        ).indices[0]
        everything = test[5].read(torch.arange(batch.n_patches))[:, 0]
        assert set(kept.tolist()) == set(everything.topk(4).indices.tolist())

    def test_leave_test_slides_without_labels_out(self, bags):
        config = describe_bags(bags)
        train = open_slides(config, "train")
        assert len(train) == 12 and len(train.skipped) == 8
        assert "test_501" in train.skipped["test_501"]
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
