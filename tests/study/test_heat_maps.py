import matplotlib.pyplot as plt
import numpy as np
import pytest

from ipslib.errors import IpslibError
from ipslib.study.heat_maps import draw_heat_map, heat_map

SHAPE = (400, 800)
COORDS = np.array([(0, 0), (100, 0), (700, 300)])


def test_every_patch_stands_in_its_place():
    heat = heat_map([0.2, 0.4, 0.9], COORDS, 100, SHAPE, pixels=(40, 80))
    assert heat.shape == (40, 80)
    assert (heat[:10, :10] == 0.2).all() and (heat[:10, 10:20] == 0.4).all()
    assert (heat[30:, 70:] == 0.9).all()
    assert np.isfinite(heat).sum() == 300


def test_overlapping_patches_are_averaged_and_tiny_ones_still_seen():
    heat = heat_map([0.2, 1.0], np.array([(0, 0), (50, 0)]), 100, SHAPE, pixels=(40, 80))
    assert heat[0, [0, 7, 12]].tolist() == pytest.approx([0.2, 0.6, 1.0])
    tiny = heat_map([0.7], np.array([(403, 203)]), 4, SHAPE, pixels=(40, 80))
    assert np.argwhere(tiny == 0.7).tolist() == [[20, 40]]


def test_scores_without_corners_are_refused():
    with pytest.raises(IpslibError, match=r"wanted one \(x, y\) corner a score, got corners"):
        heat_map([0.1], COORDS, 100, SHAPE, pixels=(4, 8))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("rank", [0.0, 0.5, 1.0]),
        ("linear", [0.3, 0.6, 2.1]),
        ("log", [0.3, 0.6, 2.1]),
        ("score", [0.1, 0.2, 0.7]),
    ],
)
def test_the_figure_shows_the_slide_its_outlines_and_the_colours(scale, expected):
    overview = np.full((40, 80, 3), 230, np.uint8)
    square = np.array([(0, 0), (90, 0), (90, 90)])
    figure = draw_heat_map(
        overview, [0.1, 0.2, 0.7], COORDS, 100, SHAPE, outlines=[square], scale=scale, title="t"
    )
    plain, coloured, _ = figure.axes
    shown = coloured.images[1].get_array()
    assert shown[[0, 0, 39], [0, 15, 79]].tolist() == pytest.approx(expected)
    for ax in (plain, coloured):
        assert ax.get_xlim() == (0, 800) and ax.get_ylim() == (400, 0)
        assert np.array_equal(ax.patches[0].get_xy()[:3], square)
    plt.close(figure)


def test_an_unknown_scale_is_refused():
    with pytest.raises(IpslibError, match="no scale 'ranks'.*mean 'rank'"):
        draw_heat_map(np.zeros((4, 8, 3), np.uint8), [1.0], COORDS[:1], 100, SHAPE, scale="ranks")
