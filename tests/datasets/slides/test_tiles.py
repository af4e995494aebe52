import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.tiles import covered, lay_tiles, read_tile
from ipslib.errors import IpslibError

EVERYWHERE = np.ones((128, 128), bool)


@pytest.fixture(scope="module")
def slide(standin) -> Slide:
    return Slide(standin.images / "tumor_502.tif")  # 512 px, 4 microns per pixel


@settings(max_examples=40, deadline=None)
@given(
    scale=st.integers(1, 5), size=st.integers(1, 30), x=st.integers(0, 60), y=st.integers(0, 60),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_the_share_of_a_tile_is_counted_pixel_by_pixel(scale, size, x, y, seed):
    mask = np.random.RandomState(seed).rand(13, 17) < 0.4
    full = mask.repeat(scale, axis=0).repeat(scale, axis=1)
    x, y = min(x, full.shape[1] - 1), min(y, full.shape[0] - 1)
    share = covered(mask, full.shape, np.array([[x, y]]), size)
    assert share[0] == pytest.approx(full[y : y + size, x : x + size].sum() / size**2, abs=1e-9)


def test_tiles_cover_the_slide_once_and_stand_in_rows(slide):
    grid = lay_tiles(slide, EVERYWHERE, tile_size=100, mpp=4.0, min_tissue=0)
    assert (grid.size_level0, grid.level, grid.read_size) == (100, 0, 100)
    assert grid.coords[:7].tolist() == [[x, 0] for x in range(0, 600, 100)] + [[0, 100]]
    assert len(grid.coords) == 36


def test_size_follows_microns_and_is_read_from_the_level_that_is_fine_enough(slide):
    grid = lay_tiles(slide, EVERYWHERE, tile_size=64, mpp=8.0)
    assert (grid.size_level0, grid.level, grid.read_size) == (128, 1, 64)
    stored = slide.read((128, 256), level=1, shape=(64, 64))
    tile = grid.coords.tolist().index([128, 256])
    assert np.array_equal(read_tile(slide, grid, tile), stored)
    between = lay_tiles(slide, EVERYWHERE, tile_size=64, mpp=6.0)
    assert (between.size_level0, between.level, between.read_size) == (96, 0, 96)
    assert read_tile(slide, between, 0).shape == (64, 64, 3)


def test_a_resized_tile_keeps_its_colours(slide):
    fine, coarse = (lay_tiles(slide, EVERYWHERE, tile_size=n, mpp=256 / n * 2) for n in (128, 80))
    assert coarse.size_level0 == fine.size_level0 == 128
    means = [read_tile(slide, grid, 5).mean(axis=(0, 1)) for grid in (fine, coarse)]
    assert np.abs(means[0] - means[1]).max() < 1.5


def test_tiles_with_too_little_tissue_are_left_out(slide):
    tissue = np.zeros((128, 128), bool)
    tissue[:, 32:48] = True  # x from 128 to 192 px of level 0
    half = lay_tiles(slide, tissue, tile_size=96, mpp=4.0, min_tissue=0.6)
    assert half.coords.tolist() == [[96, y] for y in range(0, 480, 96)]  # two thirds tissue
    some = lay_tiles(slide, tissue, tile_size=64, mpp=4.0, min_tissue=1.0)
    assert some.coords.tolist() == [[128, y] for y in range(0, 512, 64)]
    with pytest.raises(IpslibError, match="wanted tiles that are tissue to 90%, found none; lower"):
        lay_tiles(slide, tissue, tile_size=100, mpp=4.0, min_tissue=0.9)


def test_overlap_brings_tiles_nearer(slide):
    grid = lay_tiles(slide, EVERYWHERE, tile_size=64, mpp=8.0, overlap=16)
    assert (grid.size_level0, grid.step_level0) == (128, 96)
    assert grid.coords[1].tolist() == [96, 0]
    with pytest.raises(IpslibError, match="overlap: wanted 0 to 63 px, got 64"):
        lay_tiles(slide, EVERYWHERE, tile_size=64, mpp=8.0, overlap=64)


def test_tiles_finer_than_the_slide_are_refused(slide):
    with pytest.raises(IpslibError, match="wanted 0.5 microns per pixel, got a slide of 4; choose"):
        lay_tiles(slide, EVERYWHERE, mpp=0.5)
