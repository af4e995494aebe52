import shutil

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest
from torchvision.transforms import functional

from ipslib.datasets import synthetic
from ipslib.datasets.synthetic import MARKER, stream
from ipslib.datasets.traffic_signs.annotations import (
    CLASSES,
    PUBLISHED_COUNTS,
    Box,
    Example,
    image_size,
)
from ipslib.datasets.traffic_signs.dataset import (
    Augmentation,
    SignBatch,
    TrafficSigns,
    TrafficSignsConfig,
    augmented,
    boxes_on_canvas,
    draw_augmentation,
    load_traffic_signs,
    read_photograph,
)
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError
from ipslib.metrics import has_object, touches
from ipslib.model.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN, normalised
from ipslib.patches import PatchGrid, cut_image
from ipslib.paths import DATA_ROOT_VARIABLE

CONFIG = TrafficSignsConfig(signs="standin", canvas=(90, 120), patch_size=15)


class TestConfig:
    def test_the_published_defaults(self):
        config = TrafficSignsConfig()
        assert config.grid.shape == (12, 16) and config.standin_size == (960, 1280)
        assert (config.translate, config.jitter, config.patch_stride) == (100, 0.1, 100)
        assert config.n_train == config.standin_train == sum(PUBLISHED_COUNTS["train"])
        assert config.standin_test == sum(PUBLISHED_COUNTS["test"])
        assert attrs.evolve(CONFIG, standin_train=60, fraction=0.5).n_train == 30
        assert CONFIG.translate == 8  # 100 px of 1600, on a canvas 120 px wide

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({}, "traffic_sign_100"),
            ({"fraction": 0.25, "thin_test": True}, "traffic_sign_025_thinned"),
            ({"fraction": 0.5, "patch_size": 25}, "traffic_sign_050_PS_25"),
            ({"signs": "standin"}, "traffic_standin_100"),
        ],
    )
    def test_the_name_tells_what_differs_and_what_was_drawn(self, changes, name):
        assert TrafficSignsConfig(**changes).short_name == name

    @pytest.mark.parametrize(
        ("field", "value"),
        [("patch_size", 91), ("patch_stride", 16), ("fraction", 1.5), ("signs", "standing"),
         ("standin_train", 3)],
    )  # fmt: skip
    def test_what_cannot_be_is_refused(self, field, value):
        with pytest.raises(IpslibError, match=field):
            attrs.evolve(CONFIG, **{field: value})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("signs") / "standin"
    return write_synthetic(path, {"train": 24, "test": 12}, size=(120, 160), equal=True)


@pytest.fixture
def load(folder):
    def load(split: str = "train", **changes) -> TrafficSigns:
        return load_traffic_signs(attrs.evolve(CONFIG, **changes), split, folder=folder)

    return load


@pytest.fixture
def train(load) -> TrafficSigns:
    return load()


@pytest.fixture
def unmarked(folder, tmp_path):
    """Drawn photographs that pass for real ones."""
    shutil.copytree(folder, tmp_path / "unmarked")
    (tmp_path / "unmarked" / MARKER).unlink()
    return tmp_path / "unmarked"


def test_a_fraction_leaves_the_test_set_whole_unless_thinned_as_published(load):
    assert load(fraction=0.5).class_counts == dict.fromkeys(CLASSES, 3)
    assert load("test", fraction=0.5).class_counts == dict.fromkeys(CLASSES, 3)
    thin = load("test", fraction=0.5, thin_test=True)
    assert thin.class_counts == dict.fromkeys(CLASSES, 1) and thin.chance == {"sign": 1 / 4}


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


def test_augmentation_is_fixed_by_seed_epoch_and_image_also_in_a_smaller_set(load, train):
    view, half = (each.augmented(seed=1, epoch=3) for each in (train, load(fraction=0.5)))
    assert np.array_equal(train.augmented(seed=1, epoch=3).canvas(4), view.canvas(4))
    drawn = {
        train.augmented(seed=s, epoch=e).augmentation(i)
        for s, e in [(1, 3), (1, 4), (2, 3), (3, 1)]
        for i in range(len(train))
    }
    assert len(drawn) == 4 * len(train)
    assert train.augmentation(4) == Augmentation()  # the set itself stays as it is
    for i, example in enumerate(half.examples):
        assert half.augmentation(i) == view.augmentation(train.examples.index(example))
    with pytest.raises(IpslibError, match="split"):
        load("test").augmented(seed=0, epoch=1)


def test_boxes_move_with_the_image(train):
    moved = train.augmented(seed=0, epoch=1)
    for i, example in enumerate(train.examples):
        for before, after in zip(train.boxes(i), moved.boxes(i), strict=True):
            top, left, height, width = before
            down, right = moved.augmentation(i).shift
            if 8 <= top <= 70 and 8 <= left <= 100:  # stays inside
                assert after.tolist() == [top + down, left + right, height, width]
        assert len(train.boxes(i)) == len(example.boxes)


def test_real_and_drawn_never_pass_for_each_other(load, unmarked):
    with pytest.raises(IpslibError, match="signs: standin"):
        load(signs="real")
    with pytest.raises(IpslibError, match="signs: real"):
        load_traffic_signs(CONFIG, "train", folder=unmarked)


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
    equal = attrs.evolve(config, standin_shares="equal")
    assert equal.folder != config.folder
    assert max(equal.open_split("train").class_counts.values()) == 3
    assert train.chance["sign"] == train.class_counts["EMPTY"] / 9 > 3 / 9
    with pytest.raises(IpslibError, match="traffic_signs"):
        load_traffic_signs(TrafficSignsConfig(**small), "train")
    assert not any(root.iterdir())  # the user's own data root is never drawn in


def test_the_provenance_tells_drawn_from_real_and_what_changed_on_disk(train, unmarked):
    config = attrs.evolve(CONFIG, signs="real")
    before = load_traffic_signs(config, "train", folder=unmarked)
    before.examples[0].path.unlink()
    with (unmarked / "Set2" / "annotations.txt").open("a") as file:
        file.write("\n")
    after = load_traffic_signs(config, "train", folder=unmarked)
    assert len(after) == len(before) - 1
    ours, real = train.provenance, after.provenance
    assert (ours["sign_source"], real["sign_source"]) == ("standin", "real")
    assert (ours["n_skipped"], real["n_skipped"]) == (5, 6) and ours["n_repaired"] > 1
    ours, theirs = ours["annotations_sha256"], real["annotations_sha256"]
    assert ours["Set1"] == theirs["Set1"] and ours["Set2"] != theirs["Set2"]


# --- photographs ------------------------------------------------------------------------------

CANVAS = (65, 85)
GRID = PatchGrid(CANVAS, 20, 15)
STORED = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
COLOURS = np.random.RandomState(0).randint(1, 256, (30, 40, 3)).astype(np.uint8)
IMAGE = Image.fromarray(COLOURS)


@pytest.fixture
def path(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


class TestReading:
    def test_it_is_resized_as_published_and_then_augmented(self, path):
        resized = functional.resize(Image.open(path), list(CANVAS))  # by torchvision
        expected = np.asarray(resized)
        assert np.array_equal(read_photograph(path, CANVAS, Augmentation()), expected)
        augmentation = Augmentation((("brightness", 0.9), ("hue", 0.04)), (3, -5))
        expected = np.asarray(augmented(resized, augmentation))
        assert np.array_equal(read_photograph(path, CANVAS, augmentation), expected)

    def test_a_grey_image_is_read_as_colour(self, tmp_path):
        Image.fromarray(STORED[:, :, 0]).save(tmp_path / "grey.jpg")
        pixels = read_photograph(tmp_path / "grey.jpg", CANVAS, Augmentation())
        assert pixels.shape == (*CANVAS, 3)
        assert np.array_equal(pixels[..., 0], pixels[..., 2]) and np.ptp(pixels) > 0

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
    def test_what_is_missing_or_torn_is_refused_by_name(self, path, share):
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        for each in (path, path.with_name("absent.jpg")):
            for read in (image_size, lambda path: read_photograph(path, CANVAS, Augmentation())):
                with pytest.raises(IpslibError, match=each.name):
                    read(each)


class TestAugmentation:
    def test_changes_are_uniform_within_their_bounds_and_in_any_order(self):
        streams = (stream(key, 1) for key in range(400))
        drawn = [draw_augmentation(each, jitter=0.1, translate=100) for each in streams]
        for name, middle in [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)]:
            values = [dict(each.adjustments)[name] for each in drawn]
            assert kstest(values, "uniform", args=(middle - 0.1, 0.2)).pvalue > 1e-3
        for axis in (0, 1):
            shifts = [each.shift[axis] for each in drawn]
            assert max(map(abs, shifts)) <= 100 and np.ptp(shifts) > 180
        orders = {tuple(name for name, _ in each.adjustments) for each in drawn}
        assert len(orders) == 24

    @pytest.mark.parametrize(("down", "right"), [(0, 0), (0, 7), (5, 0), (-4, 9), (6, -8)])
    def test_a_shift_is_the_translation_of_torchvision_which_uncovers_black(self, down, right):
        moved = functional.affine(IMAGE, 0, [right, down], 1.0, [0.0, 0.0])
        ours = augmented(IMAGE, Augmentation((), (down, right)))
        assert np.array_equal(np.asarray(ours), np.asarray(moved))

    def test_adjustments_are_made_in_their_order_before_the_shift(self):
        steps = (("contrast", 1.1), ("brightness", 0.9), ("hue", 0.05), ("saturation", 1.08))
        expected = functional.adjust_contrast(IMAGE, 1.1)
        expected = functional.adjust_brightness(expected, 0.9)
        expected = functional.adjust_saturation(functional.adjust_hue(expected, 0.05), 1.08)
        result = np.asarray(augmented(IMAGE, Augmentation(steps, (0, 3))))
        assert np.array_equal(result[:, 3:], np.asarray(expected)[:, :-3])
        assert not result[:, :3].any()
        swapped = Augmentation((steps[1], steps[0], *steps[2:]), (0, 3))
        assert not np.array_equal(np.asarray(augmented(IMAGE, swapped)), result)


def on_canvas(box: Box, *, stored=(48, 64), canvas=(60, 80), shift=(0, 0)) -> list[int]:
    return boxes_on_canvas(Example("a", 1, 1, (box,), stored), canvas, shift)[0].tolist()


class TestBoxes:
    def test_they_follow_the_resizing_and_the_shift(self):
        """The published scale of 1.25, from 960 x 1280 to 1200 x 1600."""
        assert on_canvas((8, 16, 24, 40)) == [20, 10, 30, 20]
        assert on_canvas((8, 16, 24, 40), shift=(-3, 7)) == [17, 17, 30, 20]
        assert on_canvas((8, 16, 24, 40), canvas=(48, 128)) == [16, 16, 24, 32]

    def test_they_are_rounded_outward_and_cut_off_at_the_canvas(self):
        assert on_canvas((1.2, 2.7, 3.1, 4.2), canvas=(48, 64)) == [2, 1, 3, 3]
        assert on_canvas((56, 40, 64, 48), shift=(5, 4)) == [55, 74, 5, 6]
        assert on_canvas((0, 0, 8, 8), shift=(-4, -2)) == [0, 0, 6, 8]

    def test_a_box_outside_and_what_fills_a_batch_up_are_no_objects(self):
        outside = on_canvas((0, 0, 8, 8), shift=(-20, 0))
        none = boxes_on_canvas(Example("a", 1, 0, (), (48, 64)), (60, 80))
        assert none.shape == (0, 4)
        images = [np.zeros((*CANVAS, 3), np.uint8)] * 3
        boxes = [np.array([[5, 5, 10, 10], [41, 61, 9, 9]]), none, np.array([outside])]
        batch = SignBatch(images, boxes, torch.zeros(3, dtype=torch.long), grid=GRID)
        assert batch.boxes.dtype == torch.int64
        assert has_object(batch.boxes).tolist() == [[True, True], [False] * 2, [False] * 2]
        hit = touches(GRID, torch.arange(GRID.n_patches).expand(3, -1), batch.boxes)
        assert hit[0].any() and not hit[1:].any()


def test_a_batch_is_its_images_cut_normalised_and_labelled():
    images = [np.random.RandomState(i).randint(0, 256, (*CANVAS, 3)).astype(np.uint8)
              for i in range(3)]  # fmt: skip
    boxes = [np.array([[0, 0, 5, 5]])] * 3
    batch = SignBatch(images, boxes, torch.tensor([2, 0, 3]), grid=GRID)
    assert (batch.batch_size, batch.n_patches) == (3, GRID.n_patches)
    assert batch.labels["sign"].tolist() == [2, 0, 3] and batch.normalised
    every = torch.arange(GRID.n_patches)
    for i, image in enumerate(images):
        patches = cut_image(image.transpose(2, 0, 1), GRID)
        assert torch.equal(batch.read(torch.full_like(every, i), every), normalised(patches))


def test_the_real_photographs(shared):
    """Two are at hand: as published they become 192 patches of 100 px."""
    paths = sorted((shared / "traffic_signs").glob("*.jpg"))
    if not paths:
        pytest.skip("../shared holds no photographs of traffic signs")
    grid = PatchGrid((1200, 1600), 100, 100)
    every = torch.arange(grid.n_patches)
    for path in paths:
        assert image_size(path) == (960, 1280)
        image = read_photograph(path, grid.canvas, Augmentation())
        batch = SignBatch([image], [np.zeros((0, 4), int)], torch.tensor([0]), grid=grid)
        patches = batch.read(torch.zeros_like(every), every)
        resized = functional.resize(Image.open(path), list(grid.canvas))  # as published
        expected = cut_image(functional.pil_to_tensor(resized), grid)
        assert torch.equal(patches, normalised(expected))
        assert 0.5 < float(patches.std()) < 2.5  # of one order with ImageNet
