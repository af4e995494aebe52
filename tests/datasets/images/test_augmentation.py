import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ipslib.datasets.images.augmentation import (
    TURNS,
    UNCHANGED,
    adjusted,
    combined,
    draw_adjustments,
    draw_turn,
    shifted_boxes,
    turned_boxes,
)
from ipslib.datasets.images.sources import open_source, with_channels
from ipslib.datasets.synthetic import stream
from ipslib.patches import PatchGrid, cut_image

RGB = np.random.default_rng(0).integers(0, 256, (50, 67, 3), dtype=np.uint8)
STRONG = dict.fromkeys(UNCHANGED, 0.4)


def turned(image, turn):
    """As viewers turn an image of this EXIF orientation; test_readme.py holds it against Pillow."""
    rows, cols, transposed = TURNS[turn]
    image = image.swapaxes(0, 1) if transposed else image
    return image[:: -1 if rows else 1, :: -1 if cols else 1]


def patches_of(image, size=20, stride=15):
    image = np.ascontiguousarray(image.transpose(2, 0, 1))
    return cut_image(image, PatchGrid(image.shape[1:], size, stride))


def open_as(kind, folder):
    """RGB, as it is shown, in files of several kinds."""
    if kind == "tiled TIFF":
        path = folder / "a.tif"
        tifffile.imwrite(path, RGB, tile=(16, 16), compression="zlib", photometric="rgb")
    elif kind == "PNG that EXIF turns":
        path, exif = folder / "a.png", Image.Exif()
        exif[274] = 6
        Image.fromarray(np.rot90(RGB)).save(path, exif=exif)
    else:
        path = folder / "a.npy"
        np.save(path, RGB)
    return open_source(path, patch_size=20, patch_stride=15)


@pytest.mark.parametrize("kind", ["map", "tiled TIFF", "PNG that EXIF turns"])
@pytest.mark.parametrize("turn", TURNS)
def test_patches_are_those_of_the_image_turned_whole(kind, turn, tmp_path):
    source = open_as(kind, tmp_path).augmented(turn, ())
    expected = patches_of(turned(RGB, turn))
    order = torch.randperm(source.n_patches)
    assert torch.equal(source.read(order), expected[order]) and source.n_patches == len(expected)
    window = source.window(slice(3, 20), slice(5, 9))
    assert np.array_equal(window, turned(RGB, turn)[3:20, 5:9])


@pytest.mark.parametrize("shift", [(0, 7), (-13, 4), (60, 0)])  # the last one moves all off
def test_what_is_moved_is_cut_elsewhere_and_what_that_uncovers_is_black(shift):
    shown, moved = turned(RGB, 6), np.zeros_like(turned(RGB, 6))
    for row, col in np.ndindex(shown.shape[:2]):
        to = row + shift[0], col + shift[1]
        if all(0 <= n < side for n, side in zip(to, shown.shape, strict=False)):
            moved[to] = shown[row, col]
    source = open_source(RGB, patch_size=20, patch_stride=15).augmented(6, (), shift)
    assert torch.equal(source.read(torch.arange(source.n_patches)), patches_of(moved))
    box = np.array([[10, 20, 8, 6]])
    canvas = np.zeros(shown.shape[:2])
    rows, cols = (slice(max(10 + shift[0], 0), 18 + shift[0]), slice(20 + shift[1], 26 + shift[1]))
    canvas[rows, cols] = 1
    top, left, height, width = shifted_boxes(box, canvas.shape, shift)[0]
    assert canvas.sum() == height * width == canvas[top : top + height, left : left + width].sum()


def test_two_turns_make_one():
    for first in TURNS:
        for then in TURNS:
            both = turned(turned(RGB, first), then)
            assert np.array_equal(turned(RGB, combined(first, then)), both)


@pytest.mark.parametrize("turn", TURNS)
def test_boxes_lie_on_what_they_lay_on(turn):
    boxes = np.array([[3, 40, 10, 7], [0, 0, 1, 67], [49, 66, 1, 1]])
    for box, moved in zip(boxes, turned_boxes(boxes, (50, 67), turn), strict=True):
        image, after = np.zeros((50, 67)), np.zeros(turned(RGB, turn).shape[:2])
        for canvas, (top, left, height, width) in ((image, box), (after, moved)):
            canvas[top : top + height, left : left + width] = 1
        assert np.array_equal(turned(image, turn), after)
    assert turned_boxes(np.zeros((0, 4), np.int64), (50, 67), turn).shape == (0, 4)


@pytest.mark.parametrize(
    ("flips", "rotations", "turns"),
    [
        ("none", False, {1}),
        ("horizontal", False, {1, 2}),
        ("both", False, {1, 2, 3, 4}),
        ("none", True, {1, 3, 6, 8}),
        ("horizontal", True, set(TURNS)),
    ],
)
def test_the_options_name_the_turns(flips, rotations, turns):
    random = stream(0, 1)
    drawn = [draw_turn(random, flips=flips, rotations=rotations) for _ in range(400)]
    assert {*drawn} == turns
    assert min(map(drawn.count, turns)) > 400 / len(turns) / 2


class TestLight:
    def test_it_is_the_same_for_all_patches_and_what_hangs_over_stays_zero(self):
        adjustments = draw_adjustments(stream(3, 1), STRONG)
        source = open_source(RGB, patch_size=20, patch_stride=15)
        whole = np.rint(255 * adjusted(RGB.astype(np.float32) / 255, adjustments)).astype(np.uint8)
        assert abs(whole.astype(int) - RGB).mean() > 5
        read = source.augmented(6, adjustments).read(torch.arange(source.n_patches))
        assert torch.equal(read, patches_of(turned(whole, 6)))

    def test_without_strength_nothing_changes(self):
        light = RGB.astype(np.float32) / 255
        adjustments = draw_adjustments(stream(3, 1), dict.fromkeys(UNCHANGED, 0.0))
        assert np.allclose(adjusted(light, adjustments), light, atol=1e-6)

    def test_grey_in_three_channels_stays_grey_and_other_bands_take_brightness(self):
        adjustments = draw_adjustments(stream(3, 1), STRONG)
        grey = with_channels(open_source(RGB[..., 0], patch_size=20), 3)
        read = grey.augmented(1, adjustments).read(torch.arange(3))
        assert (read == read[:, :1]).all() and not torch.equal(read, grey.read(torch.arange(3)))
        bands = np.full((1, 1, 5), 0.5, np.float32)
        assert np.allclose(adjusted(bands, (("brightness", 1.2), ("contrast", 0.5))), 0.55)
