import numpy as np
import pytest

from ipslib.datasets.slides.annotations import Outlines, read_asap, tumour_mask, tumour_share
from ipslib.datasets.slides.synthetic import write_asap
from ipslib.errors import IpslibError

SQUARE = np.array([(40, 20), (120, 20), (120, 100), (40, 100)], float)  # x 40..120, y 20..100
HOLE = np.array([(60, 40), (80, 40), (80, 60), (60, 60)], float)
SHAPE = (160, 200)

XML = """<?xml version="1.0"?>
<ASAP_Annotations><Annotations>
  <Annotation Name="a" Type="{type}" PartOfGroup="{group}"><Coordinates>
    <Coordinate Order="2" X="9" Y="9"/><Coordinate Order="0" X="1" Y="2"/>
    <Coordinate Order="1" X="9" Y="2"/></Coordinates></Annotation>
</Annotations><AnnotationGroups/></ASAP_Annotations>"""


def test_what_is_written_is_read(tmp_path):
    write_asap(tmp_path / "a.xml", [SQUARE, SQUARE / 2], [HOLE])
    outlines = read_asap(tmp_path / "a.xml")
    assert [len(each) for each in outlines] == [2, 1]
    assert np.array_equal(outlines.tumour[1], SQUARE / 2)
    assert np.array_equal(outlines.cut_out[0], HOLE)


@pytest.mark.parametrize(
    ("group", "is_tumour"),
    [
        *((group, True) for group in ("_0", "_1", "Tumor", "metastases")),
        *((group, False) for group in ("_2", "None", "Exclusion", "normal")),
    ],
)
def test_every_spelling_of_a_group_is_known_and_points_follow_their_order(
    tmp_path, group, is_tumour
):
    (tmp_path / "a.xml").write_text(XML.format(type="Spline", group=group))
    outlines = read_asap(tmp_path / "a.xml")
    [points] = outlines.tumour if is_tumour else outlines.cut_out
    assert points.tolist() == [[1, 2], [9, 2], [9, 9]]
    assert len(outlines.tumour) == is_tumour


def test_dots_enclose_nothing_and_unknown_groups_are_asked_for(tmp_path):
    (tmp_path / "a.xml").write_text(XML.format(type="Dot", group="_0"))
    assert read_asap(tmp_path / "a.xml") == ([], [])
    (tmp_path / "a.xml").write_text(XML.format(type="Polygon", group="Tumr"))
    with pytest.raises(IpslibError, match=r"a\.xml: wanted a known group.*'Tumr'.*mean 'Tumor'"):
        read_asap(tmp_path / "a.xml")
    assert len(read_asap(tmp_path / "a.xml", groups={"Tumr": True}).tumour) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<ASAP_Annotations>", "damaged"),
        (XML.format(type="Polygon", group="_0").replace('X="1"', 'X="one"'), "damaged"),
        ("<html></html>", "got XML of 'html'"),
    ],
)
def test_what_is_no_annotation_is_refused(tmp_path, text, said):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(IpslibError, match=rf"a\.xml: wanted.*{said}"):
        read_asap(tmp_path / "a.xml")


def test_a_mask_has_the_area_of_the_outlines_less_what_is_cut_out():
    mask = tumour_mask(Outlines([SQUARE], [HOLE]), SHAPE, 1)
    assert mask.shape == SHAPE
    expected = np.zeros(SHAPE, bool)
    expected[20:100, 40:120] = True
    expected[40:60, 60:80] = False
    assert (mask != expected).sum() <= 2 * 80 + 2 * 20  # pixels on an edge fall to either side
    small = tumour_mask(Outlines([SQUARE], [HOLE]), SHAPE, 8)
    assert small.shape == (20, 25) and 64 * small.sum() == pytest.approx(80**2 - 20**2, rel=0.15)


def test_the_smallest_metastasis_leaves_a_mark_where_touching_counts():
    dot = Outlines([np.array([(70.1, 50.1), (70.6, 50.1), (70.6, 50.6)])], [])
    assert not tumour_mask(dot, SHAPE, 32).any()
    marked = np.argwhere(tumour_mask(dot, SHAPE, 32, touched=True))
    assert marked.tolist() == [[1, 2]]


def test_an_outline_may_leave_the_slide():
    assert tumour_mask(Outlines([SQUARE * 10 - 500], []), SHAPE, 4, touched=True).all()


def test_the_share_of_a_tile_that_is_tumour():
    coords = np.array([(40, 20), (80, 60), (100, 20), (120, 100), (0, 0), (64, 44)])
    share = tumour_share(Outlines([SQUARE], [HOLE]), SHAPE, coords, 16)
    assert share[[0, 1]] == pytest.approx(1, abs=0.13)
    assert share[[3, 4, 5]] == pytest.approx(0, abs=0.13)
    assert tumour_share(Outlines([SQUARE], []), SHAPE, np.array([[112, 40]]), 16)[0] == (
        pytest.approx(0.5, abs=0.07)
    )
    assert not tumour_share(Outlines([], []), SHAPE, coords, 16).any()
