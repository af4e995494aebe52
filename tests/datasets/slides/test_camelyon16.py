import numpy as np
import pytest

from ipslib.datasets.slides.camelyon16 import (
    NOT_EXHAUSTIVE,
    canonical_name,
    find_annotations,
    find_slides,
    label_slides,
    read_labels,
    split_of,
    stored_class,
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


def test_not_exhaustively_outlined_slides_are_twenty_one_of_those_there_are():
    assert len(NOT_EXHAUSTIVE) == 21 and NOT_EXHAUSTIVE.issubset(TRAIN + TEST)


def test_names_are_spelt_one_way():
    assert canonical_name("Normal_86") == "normal_086"
    assert canonical_name("tumor_111") == "tumor_111"
    assert canonical_name("my slide") == "my slide"
    assert [split_of(name) for name in ("Test_1", "tumor_2", "other")] == ["test", "train", None]


def test_slides_without_label_and_labels_without_slide_are_told(tmp_path):
    labels, skipped = label_slides(["tumor_001", "test_001", "mine"], {"test_002": 1, "mine": 0})
    assert labels == {"tumor_001": 1, "mine": 0}
    assert set(skipped) == {"test_001", "test_002"}
    assert skipped["test_001"].startswith("test_001: wanted a label, found none")
    assert skipped["test_002"].startswith("test_002: wanted the slide of this label, found none")


@pytest.mark.parametrize(
    "text",
    [
        "test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\n",
        "\ufeffimage,type\ntest_001.tif,tumour\ntest_002.tif,NORMAL\n\n",
        "case_id,slide_id,label\np1,Test_1,1\np2,test_002,0\n",
        "label,slide\npositive,test_001\nnegative,test_002\n",
    ],
)
def test_tables_of_labels_are_read_with_and_without_heading(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "a.csv") == {"test_001": 1, "test_002": 0}


@pytest.mark.parametrize(
    ("said", "label"),
    [
        (np.int64(1), 1), (np.array([0]), 0), (2, 2), (1.0, 1), (np.bool_(True), 1),
        ("Tumor", 1), (b"normal", 0), (np.bytes_("1"), 1), (np.array(["tumour"], object), 1),
        ("maybe", None), (0.5, None), (float("nan"), None), (np.array([0, 1]), None), ([], None),
    ],
)  # fmt: skip
def test_a_stored_class_is_a_number_or_a_word(said, label):
    assert stored_class(said) == label


def test_a_row_without_a_class_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("test_001,Tumor\ntest_002,maybe\n")
    with pytest.raises(
        IpslibError, match=r"a\.csv: wanted a slide and its class.*'test_002,maybe'"
    ):
        read_labels(tmp_path / "a.csv")


def test_slides_are_found_below_a_folder_without_masks(tmp_path):
    for name in ("a/normal_001.tif", "a/b/tumor_001.svs", "a/tumor_001_mask.tif", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(find_slides(tmp_path)) == ["normal_001", "tumor_001"]
    (tmp_path / "normal_001.tif").touch()
    with pytest.raises(IpslibError, match=r"normal_001\.tif: wanted one slide of a name"):
        find_slides(tmp_path)
    with pytest.raises(IpslibError, match="wanted slides .*found none"):
        (tmp_path / "empty").mkdir()
        find_slides(tmp_path / "empty")
    with pytest.raises(IpslibError, match="wanted a folder of slides, found none"):
        find_slides(tmp_path / "nowhere")


def test_annotations_are_found_by_the_name_of_their_slide(tmp_path):
    (tmp_path / "Tumor_9.xml").touch()
    assert find_annotations(tmp_path) == {"tumor_009": tmp_path / "Tumor_9.xml"}
