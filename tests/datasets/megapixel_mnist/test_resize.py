import numpy as np
import pytest
import torch

from ipslib.datasets.megapixel_mnist.resize import resize_area

IMAGES = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)


def test_the_same_size_is_the_same_image():
    assert np.array_equal(resize_area(IMAGES, 28), IMAGES)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_whole_enlargement_replicates_pixels(factor):
    block = np.ones((1, factor, factor), np.uint8)
    assert np.array_equal(resize_area(IMAGES, 28 * factor), np.kron(IMAGES, block))


@pytest.mark.parametrize("new_size", [7, 14])
def test_a_whole_reduction_is_the_mean_of_blocks(new_size):
    pooled = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(IMAGES.astype(np.float64)), new_size
    )
    assert np.array_equal(resize_area(IMAGES, new_size), np.floor(pooled.numpy() + 0.5))


@pytest.mark.parametrize("new_size", [5, 21, 27, 42, 50])
def test_a_pixel_is_the_mean_of_its_area(new_size):
    # Cut every pixel finely enough that both grids fit, then average blocks.
    fine = np.kron(IMAGES.astype(np.int64), np.ones((1, new_size, new_size), np.int64))
    blocks = fine.reshape(3, new_size, 28, new_size, 28).sum(axis=(2, 4))
    expected = (2 * blocks + 28 * 28) // (2 * 28 * 28)  # halves round up
    assert np.array_equal(resize_area(IMAGES, new_size), expected)


@pytest.mark.parametrize("new_size", [13, 20, 45, 100])
def test_ink_is_conserved_and_flat_stays_flat(new_size):
    mean = resize_area(IMAGES, new_size).mean(axis=(1, 2))
    assert np.allclose(mean, IMAGES.mean(axis=(1, 2)), atol=0.5)
    flat = np.full((28, 28), 200, np.uint8)
    assert (resize_area(flat, new_size) == 200).all()
