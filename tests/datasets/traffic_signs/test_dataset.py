import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from ipslib.datasets import synthetic
from ipslib.datasets.synthetic import MARKER
from ipslib.datasets.traffic_signs.annotations import CLASSES, OTHER_SIGNS, Box
from ipslib.datasets.traffic_signs.config import PUBLISHED_COUNTS, TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import (
    class_counts,
    load_traffic_signs,
    read_set,
    signs_folder,
    thinned,
)
from ipslib.datasets.traffic_signs.photographs import Example
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError
from ipslib.metrics import touches
from ipslib.model.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN
from ipslib.paths import DATA_ROOT_VARIABLE

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


def test_the_boxes_lie_on_the_signs(train):
    """In what is left when all other patches are blackened there is still the red ring."""
    batch = train.batch(range(len(train)))
    every = torch.arange(train.grid.n_patches)[None].expand(len(train), -1)
    on_signs = touches(train.grid, every, batch.boxes).any(dim=1)  # (B, N)
    for i, example in enumerate(train.examples):
        assert on_signs[i].any() == (CLASSES[example.label] != "EMPTY")
        if on_signs[i].any():
            patches = on_signs[i].nonzero()[:, 0]
            read = batch.read(torch.full_like(patches, i), patches)
            mean, deviation = torch.tensor([IMAGENET_MEAN, IMAGENET_DEVIATION])[..., None, None]
            shown = read * deviation + mean
            assert ((shown[:, 0] - shown[:, 1:].amax(dim=1)) > 40 / 255).sum() > 15
            top, left, height, width = batch.boxes[i, 0].tolist()
            assert 4 <= height <= 14 and 4 <= width <= 14
            assert 0 <= top <= 90 - height and 0 <= left <= 120 - width
    assert batch.labels["sign"].tolist() == [example.label for example in train.examples]


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


def test_the_test_set_is_never_augmented(folder):
    with pytest.raises(IpslibError, match="split"):
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
    with pytest.raises(IpslibError, match="traffic_signs"):
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


def examples_of(counts) -> tuple[Example, ...]:
    """Classes take turns, so that no class lies in one piece."""
    rest, labels = list(counts), []
    while any(rest):
        for label in range(len(rest)):
            if rest[label]:
                labels.append(label)
                rest[label] -= 1
    return tuple(Example(Path(f"{i}"), i, label, (), (9, 9)) for i, label in enumerate(labels))


@pytest.mark.parametrize(
    ("split", "sizes"), [("train", (747, 372, 184)), ("test", (684, 341, 169))]
)
def test_fractions_have_the_published_sizes(split, sizes):
    whole = examples_of(PUBLISHED_COUNTS[split])
    parts = [thinned(whole, fraction) for fraction in (1.0, 0.5, 0.25)]
    assert tuple(map(len, parts)) == sizes
    for part, fraction in zip(parts, (1.0, 0.5, 0.25), strict=True):
        expected = [int(n * fraction) for n in PUBLISHED_COUNTS[split]]
        assert list(class_counts(part).values()) == expected
        assert list(part) == sorted(part, key=lambda example: example.line)


def test_a_smaller_fraction_is_the_first_of_each_class_and_part_of_a_larger_one():
    whole = examples_of(PUBLISHED_COUNTS["train"])
    half, quarter = thinned(whole, 0.5), thinned(whole, 0.25)
    assert set(quarter) < set(half) < set(whole) == set(thinned(whole, 1.0))
    for label in range(len(CLASSES)):
        mine = [example for example in whole if example.label == label]
        kept = [example for example in quarter if example.label == label]
        assert kept == mine[: len(kept)]


def test_a_fraction_that_empties_a_class_is_refused():
    with pytest.raises(IpslibError, match="fraction"):
        thinned(examples_of((20, 8, 8, 3)), 0.25)
    assert len(thinned(examples_of((20, 8, 8, 0)), 0.25)) == 5 + 2 + 2


def write_set(folder: Path, **lines: str) -> Path:
    """A line an image; an image for every line."""
    folder.mkdir()
    for name in lines:
        Image.new("RGB", (80, 60)).save(folder / f"{name}.jpg")
    text = "".join(f"{name}.jpg:{signs}\n" for name, signs in lines.items())
    (folder / "annotations.txt").write_text(text)
    return folder


LIMIT = "VISIBLE, 30, 20, 10, 5, PROHIBITORY, 70_SIGN;"


def test_a_set_is_read_in_the_order_of_its_annotations(tmp_path):
    other = "VISIBLE, 30, 20, 10, 5, INFORMATION, PRIORITY_ROAD;"
    folder = write_set(tmp_path / "Set1", b=LIMIT, c=other, a="", d="MISC_SIGNS;")
    examples, report = read_set(folder)
    assert [example.path.stem for example in examples] == ["b", "a", "d"]
    assert examples[0] == (folder / "b.jpg", 1, 2, (Box(10, 5, 30, 20),), (60, 80))
    assert report.kept == {"EMPTY": 2, "50_SIGN": 0, "70_SIGN": 1, "80_SIGN": 0}
    assert report.left_out == {OTHER_SIGNS: 1} and not report.problems


def test_what_is_missing_or_torn_is_listed_and_the_rest_works(tmp_path):
    folder = write_set(tmp_path / "Set1", a=LIMIT, gone=LIMIT, torn="", b="")
    (folder / "gone.jpg").unlink()
    torn = folder / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:-40])
    (folder / "extra.jpg").write_bytes((folder / "a.jpg").read_bytes())
    examples, report = read_set(folder)
    assert [example.path.stem for example in examples] == ["a", "b"]
    assert [(p.kind, p.image, p.line) for p in report.skipped] == [
        ("missing image", "gone.jpg", 2),
        ("damaged image", "torn.jpg", 3),
        ("no annotation", None, None),
    ]
    for problem, name in zip(report.skipped, ("gone", "torn", "extra"), strict=True):
        assert f"{name}.jpg" in problem.message and problem.message.count("\n") == 0
    assert not report.repaired


def test_an_image_that_the_filter_leaves_out_need_not_be_there(tmp_path):
    blurred = LIMIT.replace("VISIBLE", "BLURRED")
    folder = write_set(tmp_path / "Set1", a="", b=blurred)
    (folder / "b.jpg").unlink()
    assert not read_set(folder).report.skipped


def test_a_set_without_photographs_is_refused(tmp_path):
    folder = write_set(tmp_path / "Set1", a="", b=LIMIT)
    for path in folder.glob("*.jpg"):
        path.unlink()
    with pytest.raises(IpslibError, match="Set1"):
        read_set(folder)
