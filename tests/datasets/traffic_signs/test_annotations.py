from itertools import permutations

import pytest

from ipslib.datasets.traffic_signs.annotations import (
    CLASSES,
    NOT_VISIBLE,
    OTHER_SIGNS,
    REPAIRED,
    SKIPPED,
    VISIBILITIES,
    Annotations,
    Box,
    Sign,
    judge,
    read_annotations,
)
from ipslib.errors import IpslibError

# Quoted in a public README about the set.
PUBLISHED = (
    "Image000004.jpg:MISC_SIGNS;VISIBLE, 616.957210, 718.303048, 580.957210, 679.303048, "
    "INFORMATION, PRIORITY_ROAD;VISIBLE, 176.952430, 725.056080, 139.698699, 691.424239, OTHER, "
    "OTHER;"
)
GOOD = "VISIBLE, 30, 20, 10, 5, PROHIBITORY, 70_SIGN;"


def read(tmp_path, *lines: str, end: str = "\n") -> Annotations:
    path = tmp_path / "Set1" / "annotations.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return read_annotations(path)


def test_a_published_line(tmp_path):
    annotations = read(tmp_path, PUBLISHED, "1277381680Image000005.jpg:", "b.jpg:MISC_SIGNS;")
    road, empty, misc = annotations.images
    assert road.image == "Image000004.jpg" and road.line == 1
    box = Box(x_min=580.957210, y_min=679.303048, x_max=616.957210, y_max=718.303048)
    assert road.signs[0] == Sign("VISIBLE", box, "INFORMATION", "PRIORITY_ROAD")
    assert road.signs[1].name == "OTHER" and len(road.signs) == 2
    assert empty.signs == misc.signs == ()
    assert annotations.n_misc == 2 and annotations.n_lines == 3 and not annotations.problems


@pytest.mark.parametrize(("text", "value"), [("30l", 30), ("30.5l", 30.5), ("30. l", 30)])
def test_trailing_letters_are_cut_and_counted(tmp_path, text, value):
    annotations = read(tmp_path, "e.jpg:", "a.jpg:" + GOOD.replace("30", text))
    assert annotations.images[1].signs[0].box.x_max == value
    (repair,) = annotations.problems
    assert (repair.action, repair.kind, repair.line) == (REPAIRED, "trailing letters", 2)
    assert "Set1/annotations.txt line 2 (a.jpg)" in repair.message and text in repair.message


def test_line_ends_of_windows_are_read_alike_and_counted(tmp_path):
    plain, windows = read(tmp_path, PUBLISHED, ""), read(tmp_path, PUBLISHED, "", end="\r\n")
    assert windows.images == plain.images
    (repair,) = windows.problems
    assert repair.kind == "CRLF" and " 1 " in repair.message


def test_a_byte_order_mark_and_the_missing_last_semicolon_are_no_matter(tmp_path):
    annotations = read(tmp_path, "\ufeffa.jpg: " + GOOD.removesuffix(";"))
    assert annotations.images[0].image == "a.jpg" and len(annotations.images[0].signs) == 1


BROKEN = [
    ("inverted box", "a.jpg:VISIBLE, 10, 20, 30, 5, PROHIBITORY, 70_SIGN;", "exchange"),
    ("inverted box", "a.jpg:VISIBLE, 30, 5, 10, 5, PROHIBITORY, 70_SIGN;", "exchange"),  # flat
    ("no number", "a.jpg:VISIBLE, x, 20, 30, 5, PROHIBITORY, 70_SIGN;", "got 'x'"),
    ("no number", "a.jpg:VISIBLE, 1.2.3, 20, 1, 5, PROHIBITORY, 70_SIGN;", "got '1.2.3'"),
    ("no number", "a.jpg:VISIBLE, nan, 20, 30, 5, PROHIBITORY, 70_SIGN;", "got 'nan'"),
    ("unknown visibility", "a.jpg:VISIBEL, 30, 20, 10, 5, PROHIBITORY, 70_SIGN;", "'VISIBLE'?"),
    ("wrong number of fields", "a.jpg:VISIBLE, 30, 20, 10, 5, 70_SIGN;", "got 6"),
    ("no image name", "a.jpg" + GOOD, "colon"),
    ("no image name", ":" + GOOD, "NAME.jpg"),
    ("no image name", "../a.jpg:" + GOOD, "NAME.jpg"),
    ("second line", "good.jpg:", "took line 1"),
]


@pytest.mark.parametrize(("kind", "line", "says"), BROKEN)
def test_a_broken_line_is_skipped_by_name_and_the_rest_is_read(tmp_path, kind, line, says):
    annotations = read(tmp_path, "good.jpg:" + GOOD, line, "other.jpg:")
    assert [image.image for image in annotations.images] == ["good.jpg", "other.jpg"]
    assert len(annotations.images[0].signs) == 1
    (problem,) = annotations.problems
    assert (problem.action, problem.kind, problem.line) == (SKIPPED, kind, 2)
    assert problem.message.startswith("Set1/annotations.txt line 2 (")
    assert says in problem.message and problem.message.endswith(".")
    if kind == "no image name" and line.startswith("a.jpg"):
        assert problem.image == "a.jpg"


def test_a_sign_that_decides_nothing_may_have_a_bad_box(tmp_path):
    """The image is not EMPTY, whatever the box."""
    line = "a.jpg:VISIBLE, 10, 20, 30, 5, INFORMATION, PRIORITY_ROAD;" + GOOD
    annotations = read(tmp_path, line)
    road, limit = annotations.images[0].signs
    assert road.box is None and limit.box is not None
    (problem,) = annotations.problems
    assert (problem.action, problem.kind) == (REPAIRED, "inverted box")


@pytest.mark.parametrize(
    "content", [None, b"\xff\xd8\xff\xe0\x00", b"", b"<html>not found</html>\n"]
)
def test_a_file_that_holds_no_annotations_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "annotations.txt").write_bytes(content)
    with pytest.raises(IpslibError, match=r"annotations\.txt: "):
        read_annotations(tmp_path / "annotations.txt")


SMALL, LARGE = Box(0, 0, 10, 10), Box(20, 20, 40, 40)


def sign(name: str, box: Box | None = SMALL, visibility: str = "VISIBLE") -> Sign:
    return Sign(visibility, box, "PROHIBITORY", name)


@pytest.mark.parametrize("name", ["50_SIGN", "70_SIGN", "80_SIGN"])
def test_a_visible_limit_is_its_class_whatever_else_there_is(name):
    others = [sign("PRIORITY_ROAD", None), sign("30_SIGN", LARGE)]
    for signs in permutations([sign(name), *others]):
        assert judge(signs) == (CLASSES.index(name), (SMALL,), None)


def test_no_sign_is_empty_and_other_signs_alone_leave_an_image_out():
    assert judge([]).label == CLASSES.index("EMPTY")
    for name in ("PRIORITY_ROAD", "30_SIGN", "100_SIGN"):
        assert judge([sign(name)]) == (None, (), OTHER_SIGNS)


def test_the_largest_of_the_most_visible_decides():
    signs = [sign("50_SIGN"), sign("70_SIGN", LARGE), sign("80_SIGN", LARGE, "BLURRED")]
    for order in permutations(signs):
        assert judge(order).label == CLASSES.index("70_SIGN")


@pytest.mark.parametrize("visibility", VISIBILITIES[1:])
def test_an_image_whose_limits_are_not_visible_is_left_out(visibility):
    unseen = sign("70_SIGN", LARGE, visibility)
    assert judge([unseen]).left_out == NOT_VISIBLE
    assert judge([unseen, sign("50_SIGN")]).label == CLASSES.index("50_SIGN")


def test_the_boxes_are_those_of_the_visible_signs_of_the_class_the_deciding_one_first():
    signs = [
        sign("70_SIGN", SMALL),
        sign("70_SIGN", LARGE),
        sign("70_SIGN", Box(0, 0, 90, 90), "OCCLUDED"),
        sign("50_SIGN", Box(0, 0, 5, 5)),
    ]
    assert judge(signs).boxes == (LARGE, SMALL)
