"""Area interpolation in whole numbers: the same bytes on every machine."""

from functools import lru_cache

import numpy as np


@lru_cache
def _overlaps(size: int, new_size: int) -> np.ndarray:
    """Overlap of each new pixel with each old one, in units of 1 / new_size: (new_size, size)."""
    new, old = np.arange(new_size)[:, None], np.arange(size)
    stop = np.minimum((new + 1) * size, (old + 1) * new_size)
    start = np.maximum(new * size, old * new_size)
    return np.maximum(stop - start, 0)


def resize_area(images: np.ndarray, new_size: int) -> np.ndarray:
    """Resize square uint8 images (..., S, S) so that each new pixel is the mean of its area.

    An enlargement by a whole factor replicates pixels.
    """
    size = images.shape[-1]
    if new_size == size:
        return images
    if new_size % size == 0:
        factor = new_size // size
        return images.repeat(factor, axis=-2).repeat(factor, axis=-1)
    weights = _overlaps(size, new_size)
    total = weights @ images.astype(np.int64) @ weights.T
    return ((total + size * size // 2) // (size * size)).astype(np.uint8)
