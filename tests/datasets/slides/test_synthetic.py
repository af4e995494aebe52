import numpy as np
import pytest

from ipslib.datasets.slides.annotations import Outlines, read_asap, tumour_mask
from ipslib.datasets.slides.camelyon16 import NOT_EXHAUSTIVE, REMOVED, find_slides
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import draw_slide, write_synthetic
from ipslib.datasets.synthetic import is_synthetic
from ipslib.errors import IpslibError

from .conftest import SMALL


def test_it_is_marked_as_drawn_and_no_slide_has_a_real_name(standin):
    folder = standin.images.parent
    assert is_synthetic(folder) and write_synthetic(folder, **SMALL) == standin
    with pytest.raises(IpslibError, match=str(folder)):
        write_synthetic(folder, **SMALL | {"seed": 1})
    names = set(find_slides(standin.images))
    assert len(names) == 20 and not names & (NOT_EXHAUSTIVE | REMOVED.keys())
    assert min(int(name.split("_")[1]) for name in names) > 160


def test_slides_are_the_same_for_one_seed_only():
    one, same, other = (
        draw_slide(128, np.random.Generator(np.random.PCG64(seed)), has_tumour=True)[0]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_outlines_enclose_darker_tissue_and_holes_do_not(standin):
    for name in ("tumor_501", "tumor_503", "test_502"):
        image = Slide(standin.images / f"{name}.tif").overview(4.0).mean(axis=2)
        outlines = read_asap(standin.annotations / f"{name}.xml")
        inside = tumour_mask(outlines, (512, 512), 1)
        tissue = (image < 215) & ~inside
        assert image[inside].mean() < image[tissue].mean() - 15
        assert 0.004 < inside.mean() < 0.03
        cut = tumour_mask(Outlines(outlines.cut_out, []), (512, 512), 1)
        assert cut.any() == (name == "tumor_503") and (not cut.any() or image[cut].mean() > 160)
