import numpy as np
import pytest

from ipslib.datasets.megapixel_mnist.randomness import stream
from ipslib.datasets.traffic_signs.drawing import draw_scene, sign_tile

SIZE = (120, 160)
LIMITS = ("50_SIGN", "70_SIGN", "80_SIGN")


def pixels(scene) -> np.ndarray:
    return np.asarray(scene.image).astype(int)


def test_a_stream_draws_the_same_scene_again_and_another_one_another():
    first, again, other = (draw_scene(stream(key, 1), SIZE, ("70_SIGN",)) for key in (1, 1, 2))
    assert np.array_equal(pixels(first), pixels(again)) and first.signs == again.signs
    assert not np.array_equal(pixels(first), pixels(other))
    assert pixels(first).shape == (*SIZE, 3)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_sign_is_where_its_box_says(name):
    """Of the red ring's pixels, most lie in the box's corners' reach and touch all four sides."""
    for key in range(8):
        scene = draw_scene(stream(key, 2), (240, 320), (name,))
        ((drawn, box),) = scene.signs
        assert drawn == name
        x_min, y_min, x_max, y_max = (round(value) for value in box)
        assert 0 <= x_min < x_max <= 320 and 0 <= y_min < y_max <= 240
        inside = pixels(scene)[y_min:y_max, x_min:x_max]
        red = (inside[..., 0] > 120) & (inside[..., 1] < 80) & (inside[..., 2] < 80)
        rows, cols = np.nonzero(red)
        assert np.ptp(rows) >= 0.8 * (y_max - y_min) and np.ptp(cols) >= 0.8 * (x_max - x_min)
        assert 0.2 < red.mean() < 0.7


def test_signs_are_small_in_the_image():
    for key in range(20):
        ((_, (x_min, y_min, x_max, y_max)),) = draw_scene(stream(key, 3), SIZE, LIMITS[:1]).signs
        assert (x_max - x_min) * (y_max - y_min) < 0.01 * SIZE[0] * SIZE[1]


def test_two_signs_stand_on_either_side():
    for key in range(8):
        left, right = sorted(
            box[0]
            for _, box in draw_scene(stream(key, 4), SIZE, ("50_SIGN", "PRIORITY_ROAD")).signs
        )
        assert left < SIZE[1] / 2 < right


def test_the_limits_differ_in_their_ground_and_in_their_numerals():
    tiles = {name: np.asarray(sign_tile(name)).astype(int) for name in LIMITS}
    grounds = {name: tile[30, 64] for name, tile in tiles.items()}
    inks = {name: tile[..., :3].max(axis=-1) < 40 for name, tile in tiles.items()}
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert np.abs(grounds[LIMITS[a]] - grounds[LIMITS[b]]).max() > 60
        first, second = (inks[LIMITS[i]][:, 30:64] for i in (a, b))
        opaque = [tiles[LIMITS[i]][:, 30:64, 3] == 255 for i in (a, b)]
        first, second = first & opaque[0], second & opaque[1]
        assert (first ^ second).sum() > 0.2 * min(first.sum(), second.sum())


def test_a_blurred_sign_has_lost_its_numerals():
    def contrast(blurred: bool) -> float:
        scene = draw_scene(stream(5, 5), (240, 320), ("70_SIGN",), blurred=blurred)
        ((_, box),) = scene.signs
        x_min, y_min, x_max, y_max = (round(value) for value in box)
        return np.ptp(pixels(scene)[y_min + 5 : y_max - 5, x_min + 5 : x_max - 5, 1])

    assert contrast(True) < 0.6 * contrast(False)
