import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest
from torchvision.transforms import functional

from ipslib.datasets.synthetic import stream
from ipslib.datasets.traffic_signs.annotations import Box
from ipslib.datasets.traffic_signs.photographs import (
    Augmentation,
    Example,
    SignBatch,
    augmented,
    boxes_on_canvas,
    draw_augmentation,
    image_size,
    read_photograph,
)
from ipslib.errors import IpslibError
from ipslib.metrics import has_object, touches
from ipslib.model.encoder import normalised
from ipslib.patches import PatchGrid, cut_image

CANVAS = (65, 85)
GRID = PatchGrid(CANVAS, 20, 15)
STORED = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
COLOURS = np.random.RandomState(0).randint(1, 256, (30, 40, 3)).astype(np.uint8)
IMAGE = Image.fromarray(COLOURS)


@pytest.fixture
def path(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


def resized(path, canvas=CANVAS) -> torch.Tensor:
    """By torchvision, as published: (3, H, W) uint8."""
    return functional.pil_to_tensor(functional.resize(Image.open(path), list(canvas)))


def every_patch(batch, i: int = 0) -> torch.Tensor:
    return batch.read(torch.full((batch.n_patches,), i), torch.arange(batch.n_patches))


class TestReading:
    def test_it_is_resized_as_published(self, path):
        expected = resized(path).permute(1, 2, 0).numpy()
        assert np.array_equal(read_photograph(path, CANVAS), expected)

    def test_it_is_resized_first_and_then_augmented(self, path):
        augmentation = Augmentation((("brightness", 0.9), ("hue", 0.04)), (3, -5))
        image = functional.resize(Image.open(path), list(CANVAS))
        expected = np.asarray(augmented(image, augmentation))
        assert np.array_equal(read_photograph(path, CANVAS, augmentation), expected)

    def test_a_grey_image_is_read_as_colour(self, tmp_path):
        Image.fromarray(STORED[:, :, 0]).save(tmp_path / "grey.jpg")
        pixels = read_photograph(tmp_path / "grey.jpg", CANVAS)
        assert pixels.shape == (*CANVAS, 3)
        assert np.array_equal(pixels[..., 0], pixels[..., 2]) and np.ptp(pixels) > 0

    def test_a_sound_image_is_inspected_without_decoding_it(self, path, monkeypatch):
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        assert image_size(path) == (48, 64)

    def test_padding_behind_a_jpeg_is_no_damage(self, path):
        path.write_bytes(path.read_bytes() + bytes(500))
        assert image_size(path) == (48, 64)

    @pytest.mark.parametrize("share", [None, 0.0, 0.05, 0.5, 0.9])
    def test_what_is_missing_or_torn_is_one_sentence(self, path, share):
        if share is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        for read in (image_size, lambda path: read_photograph(path, CANVAS)):
            with pytest.raises(IpslibError, match=r"a\.jpg: [^\n]*\.$"):
                read(path)


def draw(key: int = 0, *, jitter: float = 0.1, translate: int = 10) -> Augmentation:
    return draw_augmentation(stream(key, 1), jitter=jitter, translate=translate)


class TestAugmentation:
    def test_no_strength_changes_nothing(self):
        unchanged = draw(jitter=0, translate=0)
        assert unchanged.shift == (0, 0)
        assert np.array_equal(np.asarray(augmented(IMAGE, unchanged)), COLOURS)

    def test_changes_are_uniform_within_their_bounds_and_in_any_order(self):
        drawn = [draw(key, jitter=0.1, translate=100) for key in range(400)]
        for name, middle in [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)]:
            values = [dict(each.adjustments)[name] for each in drawn]
            assert kstest(values, "uniform", args=(middle - 0.1, 0.2)).pvalue > 1e-3
        for axis in (0, 1):
            shifts = [each.shift[axis] for each in drawn]
            assert max(map(abs, shifts)) <= 100 and np.ptp(shifts) > 180
        orders = {tuple(name for name, _ in each.adjustments) for each in drawn}
        assert len(orders) == 24

    @pytest.mark.parametrize(("down", "right"), [(0, 7), (5, 0), (-4, 9), (6, -8)])
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
        assert on_canvas(Box(8, 16, 24, 40)) == [20, 10, 30, 20]
        assert on_canvas(Box(8, 16, 24, 40), shift=(-3, 7)) == [17, 17, 30, 20]
        assert on_canvas(Box(8, 16, 24, 40), canvas=(48, 128)) == [16, 16, 24, 32]

    def test_they_are_rounded_outward_and_cut_off_at_the_canvas(self):
        assert on_canvas(Box(1.2, 2.7, 3.1, 4.2), canvas=(48, 64)) == [2, 1, 3, 3]
        assert on_canvas(Box(56, 40, 64, 48), shift=(5, 4)) == [55, 74, 5, 6]
        assert on_canvas(Box(0, 0, 8, 8), shift=(-4, -2)) == [0, 0, 6, 8]

    def test_a_box_outside_and_what_fills_a_batch_up_are_no_objects(self):
        outside = on_canvas(Box(0, 0, 8, 8), shift=(-20, 0))
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
    for i, image in enumerate(images):
        patches = cut_image(image.transpose(2, 0, 1), GRID)
        assert torch.equal(every_patch(batch, i), normalised(patches))


def test_the_real_photographs(shared):
    """Two are at hand: as published they become 192 patches of 100 px."""
    paths = sorted((shared / "traffic_signs").glob("*.jpg"))
    if not paths:
        pytest.skip("../shared holds no photographs of traffic signs")
    grid = PatchGrid((1200, 1600), 100, 100)
    for path in paths:
        assert image_size(path) == (960, 1280)
        image = read_photograph(path, grid.canvas)
        batch = SignBatch([image], [np.zeros((0, 4), int)], torch.tensor([0]), grid=grid)
        patches = every_patch(batch)
        assert torch.equal(patches, normalised(cut_image(resized(path, grid.canvas), grid)))
        assert 0.5 < float(patches.std()) < 2.5  # of one order with ImageNet
