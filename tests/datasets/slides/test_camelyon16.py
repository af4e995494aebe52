import numpy as np
import pandas as pd
import pytest

from ipslib.datasets.slides.camelyon16 import (
    NOT_EXHAUSTIVE,
    canonical_name,
    find_annotations,
    find_slides,
    label_slides,
    read_labels,
    said_class,
    split_of,
)
from ipslib.errors import IpslibError

TRAIN = [f"normal_{n:03d}" for n in range(1, 161)] + [f"tumor_{n:03d}" for n in range(1, 112)]
TEST = [f"test_{n:03d}" for n in range(1, 131)]


def test_the_official_counts_come_out():
    table = {name: int(name > "test_080") for name in TEST}
    labels, skipped = label_slides(TRAIN + TEST, table)
    train = [labels[name] for name in labels if split_of(name) == "train"]
    assert (train.count(0), train.count(1)) == (159, 111)
    assert len(labels) - len(train) == 129
    assert set(skipped) == {"normal_086", "test_049"}
    assert "tumor_111" in skipped["normal_086"] and "duplicate" in skipped["test_049"]
    assert len(NOT_EXHAUSTIVE) == 21 and NOT_EXHAUSTIVE.issubset(TRAIN + TEST)


@pytest.mark.parametrize(
    ("said", "name", "split"),
    [
        ("Normal_86", "normal_086", "train"), ("tumor_111", "tumor_111", "train"),
        ("Tumor_001.tif", "tumor_001", "train"), ("tumour_1.h5", "tumor_001", "train"),
        (" TEST_2 ", "test_002", "test"), ("my slide", "my slide", None),
        ("TCGA-A1.0b5c", "TCGA-A1.0b5c", None), ("TCGA-A1.0b5c.svs", "TCGA-A1.0b5c", None),
        (17, "17", None),
    ],
)  # fmt: skip
def test_names_are_spelt_one_way(said, name, split):
    assert (canonical_name(said), split_of(said)) == (name, split)


def test_slides_without_label_and_labels_without_slide_are_told():
    labels, skipped = label_slides(
        ["Tumor_1", "test_001", "mine"], {"test_2": 1, "mine.svs": 0, "normal_86": 0}
    )
    assert labels == {"Tumor_1": 1, "mine": 0}
    assert set(skipped) == {"test_001", "test_002"}
    with pytest.raises(IpslibError, match="Tumor_1"):
        label_slides(["tumor_001"], {"tumor_001": 1, "Tumor_1": 0})


@pytest.mark.parametrize(
    "text",
    [
        "test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\n",
        "image,type\ntest_001.tif,tumour\ntest_002.tif,NORMAL\n\n",
        "case_id,slide_id,label\r\np1,Test_1,1\r\np2,test_002,0\r\n",
        "label;slide\npositive;test_001\nnegative;test_2.svs\n",
        ",slide,label\n0,test_001,1.0\n1,test_002,0.0\n",  # as pandas exports it
        "slide,label\ntest_001,1\ntest_002,0\nTest_1,1.0\n",
    ],
)
def test_tables_of_labels_are_read_with_and_without_heading(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-16", newline="")
    assert read_labels(tmp_path / "a.csv") == {"test_001": 1, "test_002": 0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("test_001,Tumor\ntest_002,maybe\n", "test_002"),
        (",slide,label\n0,test_001,1.0\n1,test_002,\n", "test_002"),
        ("slide,label\ntest_001,1\nTest_1,0\n", "Test_1"),
        ("test_001\n", "test_001"),
        ("", "table"),
        ("slide,label\n", "a.csv.*heading"),
    ],
)
def test_a_row_without_a_class_or_against_another_is_refused(tmp_path, text, told):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(IpslibError, match=told):
        read_labels(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("said", "label"),
    [
        (np.int64(1), 1), (np.array([0]), 0), (2, 2), (1.0, 1), (np.bool_(True), 1),
        ("Tumor", 1), (b"normal", 0), (np.bytes_("1"), 1), (np.array(["tumour"], object), 1),
        ("2", 2), ("1.0", 1), ("maybe", None), (0.5, None), (float("nan"), None),
        (float("inf"), None), (np.array([0, 1]), None), ([], None), (None, None), (pd.NA, None),
    ],
)  # fmt: skip
def test_a_class_is_a_number_or_a_word(said, label):
    assert said_class(said) == label


def test_slides_are_found_below_a_folder_without_masks(tmp_path):
    hidden = "a/._normal_001.tif"  # what macOS leaves beside a file on others' disks
    names = ("a/normal_001.tif", "a/b/tumor_001.svs", "a/tumor_001_mask.tif", "a/notes.txt", hidden)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(find_slides(tmp_path)) == ["normal_001", "tumor_001"]
    (tmp_path / "Normal_1.svs").touch()
    with pytest.raises(IpslibError, match=r"(?i)normal_0*1\."):
        find_slides(tmp_path)


def test_annotations_are_found_by_the_name_of_their_slide(tmp_path):
    for find in (find_slides, find_annotations):
        for place in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(IpslibError, match=str(place)):
                find(place)
    (tmp_path / "Tumor_9.xml").touch()
    assert find_annotations(tmp_path) == {"tumor_009": tmp_path / "Tumor_9.xml"}
    (tmp_path / "tumor_009.xml").touch()
    with pytest.raises(IpslibError, match=r"tumor_009\.xml"):
        find_annotations(tmp_path)
