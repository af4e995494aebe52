import shutil

import attrs
import numpy as np
import pytest
import torch

from ipslib.datasets import synthetic
from ipslib.datasets.megapixel_mnist.digits import DATA_ROOT_VARIABLE
from ipslib.datasets.synthetic import MARKER
from ipslib.datasets.traffic_signs.annotations import CLASSES
from ipslib.datasets.traffic_signs.classes import class_counts
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import load_traffic_signs, signs_folder
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError
from ipslib.metrics import localise
from ipslib.model.imagenet import denormalised

CONFIG = TrafficSignsConfig(signs="standin", canvas=(90, 120), patch_size=15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("signs") / "standin"
    return write_synthetic(path, 24, 12, size=(120, 160), shares=(3, 1, 1, 1))


@pytest.fixture
def train(folder):
    return load_traffic_signs(CONFIG, "train", folder=folder)


def with_changes(**changes) -> TrafficSignsConfig:
    return attrs.evolve(CONFIG, **changes)


def test_set1_trains_and_set2_tests(folder, train):
    test = load_traffic_signs(CONFIG, "test", folder=folder)
    assert (len(train), len(test)) == (24, 12)
    assert {e.path.parent.name for e in train.examples} == {"Set1"}
    assert {e.path.parent.name for e in test.examples} == {"Set2"}
    assert train.report.name == "Set1"


def test_chance_is_the_share_of_the_most_frequent_class_in_use(folder):
    train = load_traffic_signs(with_changes(fraction=0.5), "train", folder=folder)
    labels = [example.label for example in train.examples]
    assert list(train.class_counts.values()) == np.bincount(labels, minlength=4).tolist()
    assert train.chance == {"sign": np.bincount(labels).max() / len(labels)}


def test_a_fraction_leaves_the_test_set_whole_unless_thinned_as_published(folder, train):
    halves = [load_traffic_signs(with_changes(fraction=0.5), s, folder=folder)
              for s in ("train", "test")]  # fmt: skip
    assert list(halves[0].class_counts.values()) == [
        n // 2 for n in class_counts(train.examples).values()
    ]
    assert len(halves[1]) == 12
    thin = load_traffic_signs(with_changes(fraction=0.5, thin_test=True), "test", folder=folder)
    assert list(thin.class_counts.values()) == [n // 2 for n in halves[1].class_counts.values()]


def test_a_batch_is_its_images_cut_and_labelled(train):
    indices = [5, 0, 17]
    batch = train.batch(indices)
    assert (batch.batch_size, batch.n_patches) == (3, train.grid.n_patches)
    assert batch.labels["sign"].tolist() == [train.examples[i].label for i in indices]
    image, patch = torch.tensor([0, 1, 2]), torch.tensor([0, 9, 47])
    shown = denormalised(batch.read(image, patch))
    for got, index, p in zip(shown, indices, patch.tolist(), strict=True):
        row, col = train.grid.corners(np.array([p]))[0]
        expected = train.canvas(index)[row : row + 15, col : col + 15]
        assert np.array_equal(got.numpy().transpose(1, 2, 0), expected)


def test_a_sign_lies_in_the_patches_of_interest(train):
    """In what is left when all other patches are blackened there is still the red ring."""
    batch = train.batch(range(len(train)))
    for i, example in enumerate(train.examples):
        assert batch.roi[i].any() == (CLASSES[example.label] != "EMPTY")
        if batch.roi[i].any():
            patches = batch.roi[i].nonzero()[:, 0]
            shown = denormalised(batch.read(torch.full_like(patches, i), patches)).int()
            assert ((shown[:, 0] - shown[:, 1:].amax(dim=1)) > 40).sum() > 15
            top, left, height, width = batch.boxes[i, 0].tolist()
            assert 4 <= height <= 14 and 4 <= width <= 14
            assert 0 <= top <= 90 - height and 0 <= left <= 120 - width


def test_localisation_takes_the_boxes(train):
    signs = [i for i, example in enumerate(train.examples) if len(example.boxes) == 1][:4]
    batch = train.batch(signs)
    kept = torch.stack([roi.nonzero()[:1, 0] for roi in batch.roi])  # a patch on each sign
    measured = localise(batch.grid, kept, torch.ones(4, 1, 1, 1), batch.boxes)
    assert measured.roi_recall == 1.0 and measured.attention_on_digits == 1.0
    share = batch.roi.double().mean().item()
    assert measured.attention_on_digits_random == pytest.approx(share)


def test_augmentation_is_fixed_by_seed_epoch_and_image(folder, train):
    again = train.augmented(seed=1, epoch=3)
    assert np.array_equal(train.augmented(seed=1, epoch=3).canvas(4), again.canvas(4))
    drawn = {
        view.augmentation(i)
        for view in (train.augmented(seed=s, epoch=e) for s, e in [(1, 3), (1, 4), (2, 3), (3, 1)])
        for i in range(len(train))
    }
    assert len(drawn) == 4 * len(train)
    assert train.augmentation(4) is None  # the set itself stays as it is


def test_an_image_is_augmented_alike_in_a_smaller_set(folder, train):
    half = load_traffic_signs(with_changes(fraction=0.5), "train", folder=folder)
    half, whole = (each.augmented(seed=0, epoch=2) for each in (half, train))
    for i, example in enumerate(half.examples):
        assert half.augmentation(i) == whole.augmentation(train.examples.index(example))


def test_boxes_move_with_the_image(train):
    moved = train.augmented(seed=0, epoch=1)
    for i, example in enumerate(train.examples):
        if not example.boxes:
            continue
        (top, left, height, width), *_ = train.boxes(i)
        down, right = moved.augmentation(i).shift
        if 8 <= top <= 70 and 8 <= left <= 100:  # stays inside
            assert moved.boxes(i)[0].tolist() == [top + down, left + right, height, width]


def test_without_strength_an_augmented_set_is_the_set(folder):
    still = load_traffic_signs(with_changes(jitter=0.0, translate=0), "train", folder=folder)
    moment = still.augmented(seed=0, epoch=1)
    assert np.array_equal(moment.canvas(3), still.canvas(3))


def test_the_test_set_is_never_augmented(folder):
    with pytest.raises(IpslibError, match=r"wanted train, .* got test"):
        load_traffic_signs(CONFIG, "test", folder=folder).augmented(seed=0, epoch=1)


def test_real_and_drawn_never_pass_for_each_other(folder, tmp_path):
    with pytest.raises(IpslibError, match="signs: standin"):
        load_traffic_signs(with_changes(signs="real"), "train", folder=folder)
    unmarked = tmp_path / "unmarked"
    shutil.copytree(folder, unmarked)
    (unmarked / MARKER).unlink()
    with pytest.raises(IpslibError, match="signs: real"):
        load_traffic_signs(CONFIG, "train", folder=unmarked)
    assert len(load_traffic_signs(with_changes(signs="real"), "train", folder=unmarked)) == 24


def test_without_the_files_one_sentence_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(IpslibError) as refusal:
        load_traffic_signs(TrafficSignsConfig(), "train")
    message = str(refusal.value)
    assert str(tmp_path / "traffic_signs") in message and "Set1 and Set2" in message
    assert "signs: standin" in message and "\n" not in message


def test_what_changed_on_disk_is_read_again(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = load_traffic_signs(CONFIG, "train", folder=copy)
    before.examples[0].path.unlink()
    after = load_traffic_signs(CONFIG, "train", folder=copy)
    assert len(after) == len(before) - 1
    assert len(after.report.skipped) == len(before.report.skipped) + 1


def test_a_standin_is_drawn_where_it_is_not_there_and_lies_apart(monkeypatch, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root))
    monkeypatch.setattr(synthetic, "project_root", lambda: tmp_path / "project")
    small = {"canvas": (100, 120), "patch_size": 20, "standin_train": 9, "standin_test": 6}
    config = TrafficSignsConfig(signs="standin", **small)
    train, test = (load_traffic_signs(config, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 6)
    assert train.examples[0].size == config.standin_size == (80, 96)
    assert train.class_counts["EMPTY"] > 9 / 3
    equal = attrs.evolve(config, standin_shares="equal")
    assert signs_folder(equal) != signs_folder(config) != signs_folder(TrafficSignsConfig())
    assert max(load_traffic_signs(equal, "train").class_counts.values()) == 3
    with pytest.raises(IpslibError, match="wanted Set1 and Set2"):
        load_traffic_signs(TrafficSignsConfig(**small), "train")
    assert not any(root.iterdir())  # the user's own data root is never drawn in


def test_the_provenance_tells_drawn_from_real_and_one_set_from_another(folder, train, tmp_path):
    said = train.provenance
    assert said["sign_source"] == "standin"
    assert said["n_skipped"] == len(train.report.skipped) == 5
    unmarked = tmp_path / "unmarked"
    shutil.copytree(folder, unmarked)
    (unmarked / MARKER).unlink()
    with (unmarked / "Set2" / "annotations.txt").open("a") as file:
        file.write("\n")
    real = load_traffic_signs(with_changes(signs="real"), "train", folder=unmarked).provenance
    assert real["sign_source"] == "real"
    ours, theirs = said["annotations_sha256"], real["annotations_sha256"]
    assert ours["Set1"] == theirs["Set1"] and ours["Set2"] != theirs["Set2"]


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(IpslibError, match=r"unknown 'tset' \(did you mean 'test'\?\)"):
        load_traffic_signs(CONFIG, "tset", folder=folder)
