import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare

from ipslib.datasets.megapixel_mnist.dataset import NEEDLE_CLASS, MegapixelMNIST, NeedleMNIST
from ipslib.datasets.megapixel_mnist.digits import load_digits, resize_area
from ipslib.datasets.megapixel_mnist.noise import noise_pool
from ipslib.datasets.megapixel_mnist.scenes import draw_whole
from ipslib.errors import IpslibError
from ipslib.patches import cut_image
from tests.reference import all_known_blank

VARIANTS = [
    {},
    {"patch_stride": 17},  # overlap and overhang
    {"digit_size": 35, "noise_size": 20, "canvas": (150, 230), "n_noise": 40},
    {"noise": "line", "patch_size": 40},
    {"n_noise": 0},
]


def read_all(batch) -> torch.Tensor:
    shape = batch.batch_size, batch.n_patches
    read = batch.read(*torch.cartesian_prod(*map(torch.arange, shape)).T)
    return read.view(*shape, *read.shape[1:])


def paint(dataset: MegapixelMNIST, index: int) -> np.ndarray:
    """The whole image, pixel by pixel from its objects: the last one that covers a pixel has it."""
    config, placed = dataset.config, dataset.placement(index)
    key = (config.data_seed, ("train", "test").index(dataset.split), 0)
    look = {"size": 28, "stroke_width": config.stroke_width}
    pool = noise_pool(config.noise, config.n_noise, key=key, **look)
    noise, digits = pool[placed.patterns], dataset.digits.images[placed.digits]
    image = np.zeros(config.canvas, np.uint8)
    for size, objects, corners in (
        (config.noise_size, noise, placed.noise_corners),
        (config.digit_size, digits, placed.digit_corners),
    ):
        for shown, (row, col) in zip(resize_area(objects, size), corners, strict=True):
            for (r, c), value in np.ndenumerate(shown):
                image[row + r, col + c] = value
    return image


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_patches_are_the_cut_canvas_and_the_canvas_is_the_painting(small_data, variant):
    dataset = MegapixelMNIST(small_data(**variant), "train")
    batch = dataset.batch([4, 1, 4])
    drawn = read_all(batch)
    for image, index in enumerate([4, 1, 4]):
        painted = paint(dataset, index)
        assert np.array_equal(dataset.canvas(index), painted)
        assert torch.equal(drawn[image], cut_image(painted, dataset.grid))
    assert not drawn[all_known_blank(batch)].any()
    assert drawn.dtype == torch.uint8
    assert not len(batch.read(*torch.zeros(2, 0, dtype=torch.long)))


@pytest.mark.parametrize("shrunk_to", [(65, 55), (26, 22), (76, 60)], ids=str)
def test_a_shrunk_image_is_the_whole_one_by_area(small_data, shrunk_to):
    whole = MegapixelMNIST(small_data(), "train")
    shrunk = MegapixelMNIST(small_data(shrunk_to=shrunk_to, patch_size=20), "train")
    assert whole.config.shrunk_to == whole.config.canvas
    seen, batch = whole.batch([4, 1]), shrunk.batch([4, 1])
    for image, index in enumerate([4, 1]):
        pixels = torch.from_numpy(whole.canvas(index)).double()[None, None]
        area = torch.nn.functional.interpolate(pixels, shrunk_to, mode="area")[0, 0].numpy()
        assert np.abs(shrunk.canvas(index) - area).max() <= 0.5  # rounded to bytes
        assert torch.equal(read_all(batch)[image], cut_image(shrunk.canvas(index), shrunk.grid))
    assert all(torch.equal(batch.labels[task], seen.labels[task]) for task in seen.labels)
    scale = torch.tensor(shrunk_to).double() / torch.tensor(whole.config.canvas)
    start, end = ((seen.boxes + far).double()[..., :2] for far in (0, seen.boxes.roll(2, dims=-1)))
    first, last = (start * scale + 1e-9).floor(), (end * scale - 1e-9).ceil()
    assert torch.equal(batch.boxes.double(), torch.cat([first, last - first], dim=-1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_follow_from_what_lies_in_the_boxes(small_data, split):
    dataset = MegapixelMNIST(small_data(), split)
    label_of = {
        image.tobytes(): label
        for image, label in zip(dataset.digits.images, dataset.digits.labels.tolist(), strict=True)
    }
    batch = dataset.batch(range(30))
    for index in range(30):
        canvas, seen = dataset.canvas(index), []
        for top, left, height, width in batch.boxes[index].tolist():
            seen.append((top, label_of[canvas[top : top + height, left : left + width].tobytes()]))
        classes = [label for _, label in seen]
        labels = {task: label[index] for task, label in batch.labels.items()}
        assert classes.count(int(labels["majority"])) == 3
        assert int(labels["max"]) == max(classes)
        assert int(labels["top"]) == min(seen, key=lambda each: each[0])[1]
        assert labels["multi"].tolist() == [float(c in classes) for c in range(10)]
    few = small_data(tasks=("top", "multi"))
    assert list(MegapixelMNIST(few, split).batch([3]).labels) == ["top", "multi"]


def test_class_statistics(small_data):
    dataset = MegapixelMNIST(small_data(n_noise=0), "train")
    placements = [dataset.placement(i) for i in range(1000)]
    labels = [dataset.labels(p) for p in placements]
    majority = [int(each["majority"]) for each in labels]
    assert chisquare(np.bincount(majority, minlength=10)).pvalue > 1e-3
    # The topmost digit is of the majority class in 3 of 5 images: places know no classes.
    same = sum(int(each["top"]) == m for each, m in zip(labels, majority, strict=True))
    assert binomtest(same, 1000, 0.6).pvalue > 1e-3
    # The two others coincide about 1 time in 9, and the pictures are drawn with replacement.
    twins = sum(int(each["multi"].sum()) == 2 for each in labels)
    assert binomtest(twins, 1000, 1 / 9).pvalue > 1e-3
    drawn = np.concatenate([p.digits for p in placements])
    assert len(np.unique(drawn)) > 0.9 * len(dataset.digits.labels)


def test_training_sets_are_nested_and_the_test_set_stays(small_data):
    few, many = small_data(n_train=3), small_data(n_train=2000)
    assert len(MegapixelMNIST(few, "train")) == 3 and len(MegapixelMNIST(few, "test")) == 40
    for split in ("train", "test"):
        for index in range(3):
            ours, theirs = (MegapixelMNIST(c, split).canvas(index) for c in (few, many))
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("variant", "sha256"),
    [
        (VARIANTS[1], "a13cd61c96b02a96"),
        (VARIANTS[2], "f15148fbe2958266"),
        (VARIANTS[3] | {"canvas": (110, 130), "data_seed": 3}, "fa81300d5f32e7ca"),
        ({"canvas": (84, 84), "noise": "bezier_pixel"}, "de7ef90207a916c0"),
    ],
    ids=str,
)
def test_every_machine_draws_these_bytes(small_data, variant, sha256):
    digest = hashlib.sha256()
    for split in ("train", "test"):
        batch = MegapixelMNIST(small_data(**variant), split).batch([0, 7, 1000])
        digest.update(read_all(batch).numpy().tobytes())
        digest.update(batch.boxes.numpy().tobytes())
    assert digest.hexdigest()[:16] == sha256


def test_noise_comes_from_a_pool_of_its_own_size(small_data):
    few, many = (
        MegapixelMNIST(small_data(n_noise=5, n_patterns=n, n_train=60), "train") for n in (2, 300)
    )
    drawn_few, drawn_many = (
        {int(k) for i in range(60) for k in each.placement(i).patterns} for each in (few, many)
    )
    assert drawn_few == {0, 1}
    assert len(drawn_many) > 150 and max(drawn_many) < 300
    assert small_data(n_noise=5).n_patterns == 5  # as published, one for each object
    with pytest.raises(IpslibError, match="n_patterns"):
        small_data(n_noise=5, n_patterns=0)


def needle(**changes: object) -> NeedleMNIST:
    return NeedleMNIST(**{"digits": "embedded", "canvas": (120, 90), "n_clutter": 7} | changes)


def test_half_of_the_images_have_a_3_and_no_more_objects_than_others():
    drawn, labels = needle(), load_digits("embedded", "train").labels
    has_needle = []
    for index in range(600):
        objects, label = drawn.objects(index)
        classes = labels[objects.objects[0]]
        assert len(classes) == 8
        assert (classes[:-1] != NEEDLE_CLASS).all() and (classes[-1] == NEEDLE_CLASS) == label
        has_needle.append(label)
    assert binomtest(sum(has_needle), 600, 0.5).pvalue > 1e-3


def test_images_are_keyed_by_index_split_and_seed():
    def draw(index: int, **changes: object) -> bytes:
        objects, _ = needle(**changes).objects(index)
        return draw_whole([objects], (120, 90)).tobytes()

    first = draw(0)
    assert len({first, draw(1), draw(0, split="test"), draw(0, data_seed=1)}) == 4
    assert hashlib.sha256(first).hexdigest()[:16] == "2221d89e1d7d105b"


@pytest.mark.parametrize(("field", "value"), [("canvas", (27, 50)), ("split", "val")])
def test_bad_input_is_refused(field, value):
    assert not needle(canvas=28, n_clutter=0).objects(0)[0].corners.any()
    with pytest.raises(IpslibError, match=field):
        needle(**{field: value})


def test_training_moves_an_image_and_its_boxes_another_way_each_epoch(small_data):
    dataset = MegapixelMNIST(small_data(translate=9), "train")
    moved = [dataset.augmented(seed=1, epoch=epoch) for epoch in (1, 2, 1)]
    moves = [each.translation(3).tolist() for each in moved]
    assert moves[0] == moves[2] != moves[1]
    still, batch = dataset.batch([4, 3]), moved[0].batch([4, 3])
    assert torch.equal(read_all(batch)[1], cut_image(moved[0].canvas(3), dataset.grid))
    for task, labels in still.labels.items():
        assert torch.equal(batch.labels[task], labels)
    furthest = torch.tensor(dataset.config.canvas) - dataset.config.digit_size
    for nth, index in enumerate([4, 3]):
        wanted = still.boxes[nth, :, :2] + torch.from_numpy(moved[0].translation(index))
        assert torch.equal(batch.boxes[nth, :, :2], wanted.clamp(min=0).minimum(furthest))
        assert not torch.equal(batch.boxes[nth], still.boxes[nth])


def test_moves_are_uniform_in_either_direction_and_never_of_test_images(small_data):
    dataset = MegapixelMNIST(small_data(translate=2, n_train=4000), "train")
    moved = dataset.augmented(seed=0, epoch=1)
    moves = np.array([moved.translation(index) for index in range(4000)])
    places = 5 * (moves[:, 0] + 2) + moves[:, 1] + 2
    assert chisquare(np.bincount(places, minlength=25)).pvalue > 1e-3
    brief = MegapixelMNIST(small_data(translate=2, translate_epochs=3), "train")
    still = [brief.augmented(seed=0, epoch=epoch) is brief for epoch in (1, 3, 4)]
    assert still == [False, False, True]
    with pytest.raises(IpslibError, match="got test"):
        MegapixelMNIST(small_data(translate=2), "test").augmented(seed=0, epoch=1)
