import numpy as np
import pytest

from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.tissue import tissue_mask
from ipslib.errors import IpslibError

GLASS, PINK = (242, 240, 243), (225, 170, 200)


def painted(*, side: int = 200, pink=PINK) -> tuple[np.ndarray, np.ndarray]:
    """A pink disc with a hole on noisy glass, and where it is."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:side, :side]
    disc = np.hypot(y - 90, x - 110) < 60
    disc &= np.hypot(y - 90, x - 110) > 20
    image = np.where(disc[..., None], pink, GLASS) + random.normal(0, 2, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), disc


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("pink", [PINK, (236, 222, 230)])
def test_strong_and_pale_tissue_is_found(pink):
    image, disc = painted(pink=pink)
    assert overlap(tissue_mask(image, 8.0), disc) > 0.95


def test_small_holes_are_filled_and_small_islands_dropped():
    image, _ = painted()
    image[5:9, 5:9] = PINK  # 32 x 32 µm
    image[40:44, 108:112] = GLASS
    mask = tissue_mask(image, 8.0)
    assert not mask[:12, :12].any() and mask[38:46, 106:114].all()
    assert not mask[90, 110]  # a hole of 320 µm stays
    every = tissue_mask(image, 8.0, min_area=0)
    assert every[7, 7] and not every[42, 110]


def test_black_padding_is_no_tissue():
    image, disc = painted()
    random = np.random.RandomState(1)
    image[:, :30] = random.randint(0, 9, (200, 30, 3))
    mask = tissue_mask(image, 8.0)
    assert not mask[:, :28].any() and overlap(mask, disc) > 0.95


def test_hysteresis_keeps_faint_tissue_only_where_it_hangs_on_strong():
    image, _ = painted()
    faint = (236, 208, 224)
    image[80:100, 165:190] = faint  # at the disc's edge
    image[165:190, 20:60] = faint  # alone
    mask, strict = tissue_mask(image, 8.0), tissue_mask(image, 8.0, hysteresis=1.0)
    assert mask[85:95, 175:185].all() and not mask[170:185, 25:55].any()
    assert not strict[85:95, 178:185].any()
    with pytest.raises(IpslibError, match="hysteresis: wanted a share above 0.*got 0"):
        tissue_mask(image, 8.0, hysteresis=0)


def test_a_slide_of_glass_alone_says_so():
    random = np.random.RandomState(0)
    glass = (np.array(GLASS) + random.normal(0, 2, (90, 90, 3))).clip(0, 255).astype(np.uint8)
    with pytest.raises(IpslibError, match="normal_9: wanted tissue, found none .* leave the slide"):
        tissue_mask(glass, 8.0, name="normal_9")


def test_the_tissue_of_a_drawn_slide_is_one_lump_away_from_the_corners(standin):
    mask = tissue_mask(Slide(standin.images / "normal_502.tif").overview(8.0), 8.0)
    assert mask.shape == (256, 256) and 0.2 < mask.mean() < 0.7 and mask[128, 128]
    assert not (mask[0].any() or mask[-1].any())
