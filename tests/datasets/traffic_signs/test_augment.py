import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest
from torchvision.transforms import functional

from ipslib.datasets.megapixel_mnist.randomness import stream
from ipslib.datasets.traffic_signs.augment import Augmentation, augmented, draw_augmentation

PIXELS = np.random.RandomState(0).randint(1, 256, (30, 40, 3)).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS)


def draw(key: int = 0, *, jitter: float = 0.1, translate: int = 10) -> Augmentation:
    return draw_augmentation(stream(key, 1), jitter=jitter, translate=translate)


def test_a_stream_draws_the_same_again_and_another_stream_something_else():
    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_no_strength_changes_nothing():
    unchanged = draw(jitter=0, translate=0)
    assert unchanged.shift == (0, 0)
    assert np.array_equal(np.asarray(augmented(IMAGE, unchanged)), PIXELS)


def test_changes_are_uniform_within_their_bounds_and_in_any_order():
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
def test_a_shift_moves_whole_pixels_and_uncovers_black(down, right):
    moved = np.asarray(augmented(IMAGE, Augmentation((), (down, right))))
    for row in range(30):
        for col in range(40):
            r, c = row - down, col - right
            inside = 0 <= r < 30 and 0 <= c < 40
            assert (moved[row, col] == (PIXELS[r, c] if inside else 0)).all()


def test_a_shift_is_the_translation_of_torchvision():
    moved = functional.affine(IMAGE, 0, [9, -4], 1.0, [0.0, 0.0])
    ours = augmented(IMAGE, Augmentation((), (-4, 9)))
    assert np.array_equal(np.asarray(ours), np.asarray(moved))


def test_adjustments_are_made_in_their_order_before_the_shift():
    steps = (("contrast", 1.1), ("brightness", 0.9), ("hue", 0.05), ("saturation", 1.08))
    expected = functional.adjust_contrast(IMAGE, 1.1)
    expected = functional.adjust_brightness(expected, 0.9)
    expected = functional.adjust_saturation(functional.adjust_hue(expected, 0.05), 1.08)
    result = np.asarray(augmented(IMAGE, Augmentation(steps, (0, 3))))
    assert np.array_equal(result[:, 3:], np.asarray(expected)[:, :-3])
    assert not result[:, :3].any()
    swapped = Augmentation((steps[1], steps[0], *steps[2:]), (0, 3))
    assert not np.array_equal(np.asarray(augmented(IMAGE, swapped)), result)
