"""Where a slide holds tissue: stained tissue has colour, glass and scanner's padding have none."""

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.filters import apply_hysteresis_threshold, threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from ipslib.errors import IpslibError

MASK_MPP = 8.0  # microns per pixel: a tile of 128 µm is 16 x 16 pixels of the mask
_LEAST_SATURATION = 0.05  # Otsu splits noise too: a slide of glass alone has no tissue
_DARKEST = 30  # of 255: padding is black, and its noise would count as strong colour


def tissue_mask(
    image: np.ndarray,
    mpp: float,
    *,
    hysteresis: float = 0.5,
    min_area: float = 10_000.0,
    name: str = "slide",
) -> np.ndarray:
    """Find tissue: Otsu's threshold on saturation, with hysteresis.

    Pixels above the threshold are tissue, and so are those above `hysteresis` times it that hang
    together with them. The threshold is the slide's own, so that pale slides keep their tissue.

    Args:
        image: (H, W, 3) uint8, the slide at a low resolution.
        mpp: its microns per pixel.
        hysteresis: the lower threshold as a share of the upper one, above 0 and at most 1.
        min_area: in µm²; smaller islands are dropped and smaller holes are filled.
        name: what errors call the slide.

    Returns:
        (H, W) bool.

    Raises:
        IpslibError: when nothing is found.
    """
    if not 0 < hysteresis <= 1:
        raise IpslibError(
            f"hysteresis: wanted a share above 0 and at most 1, got {hysteresis:g}; 1 is one "
            "threshold alone."
        )
    smooth = gaussian_filter(image, sigma=(1, 1, 0))
    strongest = smooth.max(axis=2).astype(np.float32)
    saturation = (strongest - smooth.min(axis=2)) / np.maximum(strongest, 1)  # that of HSV
    saturation[strongest < _DARKEST] = 0
    threshold = max(threshold_otsu(saturation), _LEAST_SATURATION)
    mask = apply_hysteresis_threshold(saturation, hysteresis * threshold, threshold)
    n_pixels = int(min_area / mpp**2)
    mask = remove_small_holes(remove_small_objects(mask, max_size=n_pixels), max_size=n_pixels)
    if not mask.any():
        raise IpslibError(
            f"{name}: wanted tissue, found none that is stained and larger than {min_area:g} µm² "
            f"(saturation up to {saturation.max():.2f}); leave the slide out, or lower min_area."
        )
    return mask
