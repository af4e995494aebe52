import shutil

import attrs
import pytest

from ipslib import paths
from ipslib.datasets.slides.sets import describe_bags, open_slides
from ipslib.errors import IpslibError


def test_the_two_sets_are_described_and_opened(standin, bags):
    config = describe_bags(bags, standin.reference)
    assert (config.in_channels, config.n_classes, config.grid) == (128, {"tumour": 2}, None)
    train, test = open_slides(config, "train"), open_slides(config, "test")
    assert {name[:6] for name in train.names} == {"normal", "tumor_"} and len(train) == 12
    assert {name[:5] for name in test.names} == {"test_"} and len(test) == 8
    assert train.provenance == {"slide_source": "standin", "n_slides": 12, "n_skipped": 0}
    assert test.chance == {"tumour": 0.5}
    assert test.labels.tolist() == [0, 1] * 4


def test_without_labels_the_test_slides_are_left_out_with_their_reasons(bags):
    config = describe_bags(bags)
    train = open_slides(config, "train")
    assert len(train) == 12 and len(train.skipped) == 8
    assert "test_501: wanted a label" in train.skipped["test_501"]
    with pytest.raises(IpslibError, match="wanted bags of the test set, got none; name them"):
        open_slides(config, "test")


def test_a_run_belongs_to_its_bags_and_labels(standin, bags, tmp_path):
    for name in ("normal_501", "tumor_501", "test_501"):
        shutil.copy(bags / f"{name}.h5", tmp_path)
    config = describe_bags(tmp_path)
    assert describe_bags(tmp_path) == config
    shutil.copy(bags / "tumor_502.h5", tmp_path)
    other = describe_bags(tmp_path)
    assert attrs.evolve(other, bags_sha256=config.bags_sha256) == config != other
    with pytest.raises(IpslibError, match="wanted the bags and labels that this run was described"):
        open_slides(config, "train")


def test_bags_of_other_names_are_told(bags, tmp_path):
    shutil.copy(bags / "normal_501.h5", tmp_path / "mine.h5")
    with pytest.raises(IpslibError, match="wanted bags with labels, got none; the first: mine:"):
        describe_bags(tmp_path)
    (tmp_path / "labels.csv").write_text("mine,normal\ntumor_501,tumor\n")
    shutil.copy(bags / "tumor_501.h5", tmp_path)
    train = open_slides(describe_bags(tmp_path, tmp_path / "labels.csv"), "train")
    assert train.names == ["tumor_501"]
    assert "mine: wanted a name that says its set" in train.skipped["mine"]


def test_a_path_inside_the_project_is_kept_relative_to_it(standin, bags, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    shutil.copytree(bags, tmp_path / "data" / "bags")
    config = describe_bags(tmp_path / "data" / "bags", standin.reference)
    assert config.bags == "data/bags" and config.labels == str(standin.reference)
    assert len(open_slides(config, "train")) == 12  # whatever the current folder is
    monkeypatch.chdir(tmp_path / "data")
    assert describe_bags("bags", standin.reference) == config
