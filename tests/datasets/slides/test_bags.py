import h5py
import numpy as np
import pytest
import torch

from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.slides.bags import BagDataset
from ipslib.datasets.slides.camelyon16 import label_slides, read_labels, split_of
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch
from ipslib.selection import select_patches


def write(path, n, *, d=5, labels=None, value=0.0):
    with h5py.File(path, "w") as file:
        file["features"] = np.full((n, d), value, np.float32)
        if labels is not None:
            file["patch_labels"] = labels


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "normal_001.h5", 7, labels=np.zeros(7))
    write(tmp_path / "tumor_001.h5", 9, labels=np.arange(9) == 4, value=1.0)
    write(tmp_path / "tumor_002.h5", 7, value=2.0)
    return tmp_path


LABELS = {"normal_001": 0, "tumor_001": 1, "tumor_002": 1}


def test_a_batch_is_one_bag_with_its_label_and_its_tumour(folder):
    dataset = BagDataset(folder, LABELS)
    assert (len(dataset), dataset.in_channels, dataset.grid) == (3, 5, None)
    assert dataset.names == list(LABELS) and dataset.n_classes == {"tumour": 2}
    batch = dataset.batch([1])
    assert isinstance(batch, MixedBatch) and isinstance(batch.parts[0], SourceBatch)
    assert (batch.batch_size, batch.parts[0].n_patches, batch.parts[0].blank) == (1, 9, None)
    assert batch.labels["tumour"].tolist() == [1]
    assert dataset.provenance == {"slide_source": "real", "n_slides": 3, "n_skipped": 0}
    assert dataset.chance == {"tumour": 2 / 3} and batch.boxes is None
    assert batch.roi[0].tolist() == [n == 4 for n in range(9)]
    assert (batch.read(torch.tensor([0, 0]), torch.tensor([8, 0])) == 1).all()
    assert dataset.augmented(seed=0, epoch=3) is dataset


def test_bags_of_any_size_go_together(folder):
    dataset = BagDataset(folder, LABELS)
    batch = dataset.batch([2, 0, 1])
    assert batch.labels["tumour"].tolist() == [1, 0, 1]
    assert [part.n_patches for part in batch.parts] == [7, 7, 9]
    assert batch.roi[0] is None  # of that one it is not known
    assert batch.read(torch.tensor([2, 0, 1]), torch.tensor([8, 3, 3]))[:, 0].tolist() == [1, 2, 0]


def test_the_rest_works_and_what_is_left_out_says_why(folder):
    (folder / "tumor_003.h5").write_bytes(b"torn")
    write(folder / "tumor_004.h5", 4, d=3)
    write(folder / "other.h5", 4)
    write(folder / "normal_002.h5", 4)
    wrong = {"tumor_003": 1, "tumor_004": 1, "normal_002": 2, "Tumor_77": 1}
    dataset = BagDataset(folder, LABELS | wrong)
    assert dataset.names == list(LABELS)
    said = dataset.skipped
    assert list(said) == ["normal_002", "other", "tumor_003", "tumor_004", "tumor_077"]
    assert "wanted a label from 0 to 1, got 2" in said["normal_002"]
    assert "other: wanted a label for its bag, found none" in said["other"]
    assert "tumor_003.h5: wanted a readable file" in said["tumor_003"]
    assert "wanted 5 features a patch as in normal_001, got 3" in said["tumor_004"]
    assert "tumor_077: wanted a bag for its label, found none" in said["tumor_077"]


def test_a_set_is_some_of_the_slides(folder):
    dataset = BagDataset(folder, LABELS, names=["Tumor_2", "normal_001"])
    assert dataset.names == ["normal_001", "tumor_002"] and not dataset.skipped


def test_nothing_to_read_is_an_error(folder, tmp_path):
    with pytest.raises(IpslibError, match="wanted bags with labels, got none; the first: normal_"):
        BagDataset(folder, {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(IpslibError, match="empty: wanted a folder of feature bags, found none"):
        BagDataset(tmp_path / "empty", LABELS)


def test_the_standin_makes_two_sets_and_selection_finds_the_rows_that_score(standin, bags):
    table = read_labels(standin.reference)
    names = [path.stem for path in bags.iterdir()]
    labels, skipped = label_slides(names, table)
    sets = {
        split: BagDataset(bags, labels, names=[n for n in labels if split_of(n) == split])
        for split in ("train", "test")
    }
    assert [len(each) for each in sets.values()] == [12, 8] and not skipped
    assert all(each.is_standin for each in sets.values())
    assert all(each.labels.double().mean() == 0.5 for each in sets.values())
    dataset = sets["test"]
    batch = dataset.batch([5]).parts[0]
    kept = select_patches(
        batch, lambda rows: rows, lambda rows, index: rows[:, :1], memory_size=4, iter_size=9
    ).indices[0]
    everything = dataset[5].read(torch.arange(batch.n_patches))[:, 0]
    assert set(kept.tolist()) == set(everything.topk(4).indices.tolist())
