from itertools import permutations
from pathlib import Path

import pytest
from PIL import Image

from ipslib.datasets.traffic_signs.annotations import CLASSES, VISIBILITIES, Box, Sign
from ipslib.datasets.traffic_signs.classes import (
    NOT_VISIBLE,
    OTHER_SIGNS,
    PUBLISHED_COUNTS,
    Example,
    class_counts,
    judge,
    read_set,
    thinned,
)
from ipslib.errors import IpslibError

SMALL, LARGE = Box(0, 0, 10, 10), Box(20, 20, 40, 40)


def sign(name: str, box: Box | None = SMALL, visibility: str = "VISIBLE") -> Sign:
    return Sign(visibility, box, "PROHIBITORY", name)


def test_no_sign_is_empty():
    assert judge([]).label == CLASSES.index("EMPTY")


@pytest.mark.parametrize("name", ["50_SIGN", "70_SIGN", "80_SIGN"])
def test_a_visible_limit_is_its_class_whatever_else_there_is(name):
    others = [sign("PRIORITY_ROAD", None), sign("30_SIGN", LARGE)]
    for signs in permutations([sign(name), *others]):
        assert judge(signs) == (CLASSES.index(name), (SMALL,), None)


def test_other_signs_alone_leave_an_image_out():
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


def examples_of(counts) -> tuple[Example, ...]:
    """Classes take turns, so that no class lies in one piece."""
    rest, labels = list(counts), []
    while any(rest):
        for label in range(len(rest)):
            if rest[label]:
                labels.append(label)
                rest[label] -= 1
    return tuple(Example(Path(f"{i}"), i, label, (), (9, 9)) for i, label in enumerate(labels))


@pytest.mark.parametrize(
    ("split", "sizes"), [("train", (747, 372, 184)), ("test", (684, 341, 169))]
)
def test_fractions_have_the_published_sizes(split, sizes):
    whole = examples_of(PUBLISHED_COUNTS[split])
    parts = [thinned(whole, fraction) for fraction in (1.0, 0.5, 0.25)]
    assert tuple(map(len, parts)) == sizes
    for part, fraction in zip(parts, (1.0, 0.5, 0.25), strict=True):
        expected = [int(n * fraction) for n in PUBLISHED_COUNTS[split]]
        assert list(class_counts(part).values()) == expected
        assert list(part) == sorted(part, key=lambda example: example.line)


def test_a_smaller_fraction_is_the_first_of_each_class_and_part_of_a_larger_one():
    whole = examples_of(PUBLISHED_COUNTS["train"])
    half, quarter = thinned(whole, 0.5), thinned(whole, 0.25)
    assert set(quarter) < set(half) < set(whole) == set(thinned(whole, 1.0))
    for label in range(len(CLASSES)):
        mine = [example for example in whole if example.label == label]
        kept = [example for example in quarter if example.label == label]
        assert kept == mine[: len(kept)]


def test_a_fraction_that_empties_a_class_is_refused():
    with pytest.raises(IpslibError, match=r"none of 80_SIGN, which has 3, at 0\.25"):
        thinned(examples_of((20, 8, 8, 3)), 0.25)
    assert len(thinned(examples_of((20, 8, 8, 0)), 0.25)) == 5 + 2 + 2


def write_set(folder: Path, **lines: str) -> Path:
    """A line an image; an image for every line."""
    folder.mkdir()
    for name in lines:
        Image.new("RGB", (80, 60)).save(folder / f"{name}.jpg")
    text = "".join(f"{name}.jpg:{signs}\n" for name, signs in lines.items())
    (folder / "annotations.txt").write_text(text)
    return folder


LIMIT = "VISIBLE, 30, 20, 10, 5, PROHIBITORY, 70_SIGN;"


def test_a_set_is_read_in_the_order_of_its_annotations(tmp_path):
    other = "VISIBLE, 30, 20, 10, 5, INFORMATION, PRIORITY_ROAD;"
    folder = write_set(tmp_path / "Set1", b=LIMIT, c=other, a="", d="MISC_SIGNS;")
    examples, report = read_set(folder)
    assert [example.path.stem for example in examples] == ["b", "a", "d"]
    assert examples[0] == (folder / "b.jpg", 1, 2, (Box(10, 5, 30, 20),), (60, 80))
    assert report.kept == {"EMPTY": 2, "50_SIGN": 0, "70_SIGN": 1, "80_SIGN": 0}
    assert report.left_out == {OTHER_SIGNS: 1} and not report.problems


def test_what_is_missing_or_torn_is_listed_and_the_rest_works(tmp_path):
    folder = write_set(tmp_path / "Set1", a=LIMIT, gone=LIMIT, torn="", b="")
    (folder / "gone.jpg").unlink()
    torn = folder / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:-40])
    (folder / "extra.jpg").write_bytes((folder / "a.jpg").read_bytes())
    examples, report = read_set(folder)
    assert [example.path.stem for example in examples] == ["a", "b"]
    assert [(p.kind, p.image, p.line) for p in report.skipped] == [
        ("missing image", "gone.jpg", 2),
        ("damaged image", "torn.jpg", 3),
        ("no annotation", None, None),
    ]
    for problem, name in zip(report.skipped, ("gone", "torn", "extra"), strict=True):
        assert f"{name}.jpg" in problem.message and problem.message.count("\n") == 0


def test_an_image_that_the_filter_leaves_out_need_not_be_there(tmp_path):
    blurred = LIMIT.replace("VISIBLE", "BLURRED")
    folder = write_set(tmp_path / "Set1", a="", b=blurred)
    (folder / "b.jpg").unlink()
    assert not read_set(folder).report.skipped


def test_a_set_without_photographs_is_refused(tmp_path):
    folder = write_set(tmp_path / "Set1", a="", b=LIMIT)
    for path in folder.glob("*.jpg"):
        path.unlink()
    with pytest.raises(IpslibError, match=r"found no sound one of 2; unpack Set1Part0\.zip"):
        read_set(folder)
