import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.datasets.slides.annotations import Outlines, covered, read_asap, tumour_mask
from ipslib.datasets.slides.synthetic import write_asap
from ipslib.errors import IpslibError

SQUARE = np.array([(40, 20), (120, 20), (120, 100), (40, 100)], float)  # x 40..120, y 20..100
HOLE = np.array([(60, 40), (80, 40), (80, 60), (60, 60)], float)
SHAPE = (160, 200)


def asap(folder, *outlines: tuple, text: str = "{}", kind="Polygon"):
    """A file of outlines, each a group (None: no attribute) and its corners; `{}` holds an X."""
    annotations = []
    for group, points in outlines:
        corners = "".join(
            f'<Coordinate Order="{n}" X="{text.format(x)}" Y="{y}"/>'
            for n, (x, y) in reversed(list(enumerate(points)))
        )
        of_group = "" if group is None else f' PartOfGroup="{group}"'
        annotations.append(
            f'<Annotation Name="a" Type="{kind}"{of_group}>'
            f"<Coordinates>{corners}</Coordinates></Annotation>"
        )
    path = folder / "a.xml"
    inside = f"<Annotations>{''.join(annotations)}</Annotations>"
    path.write_text(f"<ASAP_Annotations>{inside}</ASAP_Annotations>")
    return path


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
        *((group, False) for group in ("_2", "None", "Exclusion", "normal", None)),
    ],
)
def test_every_spelling_of_a_group_is_known_and_points_follow_their_order(
    tmp_path, group, is_tumour
):
    outlines = read_asap(asap(tmp_path, ("_0", SQUARE), (group, HOLE), kind="Spline"))
    assert np.array_equal((outlines.tumour if is_tumour else outlines.cut_out)[-1], HOLE)
    assert (len(outlines.tumour), len(outlines.cut_out)) == (1 + is_tumour, 1 - is_tumour)


@pytest.mark.parametrize("group", ["None", None])
@pytest.mark.parametrize("others", [[], [("_2", HOLE)], [("_0", SQUARE + 500)]])
def test_an_outline_without_a_group_that_lies_in_no_tumour_is_asked_for(tmp_path, group, others):
    path = asap(tmp_path, *others, (group, SQUARE))
    with pytest.raises(IpslibError, match=r"a\.xml.*--groups"):
        read_asap(path)
    n_others = sum(name == "_0" for name, _ in others)
    assert len(read_asap(path, groups={"None": True}).tumour) == n_others + 1
    assert len(read_asap(path, groups={"None": None}).tumour) == n_others


def test_own_groups_are_asked_for_by_name(tmp_path):
    path = asap(tmp_path, ("Tumr", SQUARE), ("stroma", HOLE))
    with pytest.raises(IpslibError, match=r"a\.xml.*'Tumr'.*'Tumor'.*--groups"):
        read_asap(path)
    assert [len(each) for each in read_asap(path, groups={"Tumr": True, "stroma": None})] == [1, 0]
    assert [len(each) for each in read_asap(path, groups={"Tumr": True, "stroma": False})] == [1, 1]


def test_what_encloses_nothing_is_told_and_a_decimal_comma_is_a_number(tmp_path):
    dots, line = asap(tmp_path, ("_0", SQUARE), kind="Dot"), [("_0", SQUARE), ("_0", SQUARE[:2])]
    with pytest.warns(UserWarning, match="1 annotations enclose no area"):
        assert read_asap(dots) == ([], [])
    with pytest.warns(UserWarning, match="1 annotations enclose no area"):
        assert len(read_asap(asap(tmp_path, *line)).tumour) == 1
    [points] = read_asap(asap(tmp_path, ("_0", SQUARE), text="{:.0f},5")).tumour
    assert np.array_equal(points, SQUARE + np.array([0.5, 0]))


@pytest.mark.parametrize("text", ["one", "nan", "inf", None, "<ASAP_Annotations>", "<html></html>"])
def test_what_is_no_annotation_or_has_no_numbers_as_corners_is_refused(tmp_path, text):
    path = tmp_path / "a.xml"
    if text and text.startswith("<"):
        path.write_text(text)
    elif text:
        asap(tmp_path, ("_0", SQUARE), text=text)
    with pytest.raises(IpslibError, match=r"a\.xml"):
        read_asap(path)


def test_a_mask_has_the_area_of_the_outlines_less_what_is_cut_out():
    mask = tumour_mask(Outlines([SQUARE], [HOLE]), SHAPE, 1)
    assert mask.shape == SHAPE
    expected = np.zeros(SHAPE, bool)
    expected[20:100, 40:120] = True
    expected[40:60, 60:80] = False
    assert (mask != expected).sum() <= 2 * 80 + 2 * 20  # pixels on an edge fall to either side
    small = tumour_mask(Outlines([SQUARE], [HOLE]), SHAPE, 8)
    assert small.shape == (20, 25) and 64 * small.sum() == pytest.approx(80**2 - 20**2, rel=0.15)
    assert tumour_mask(Outlines([SQUARE * 10 - 500], []), SHAPE, 4).all()  # it leaves the slide


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
