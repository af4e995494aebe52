from itertools import permutations

import pytest
from PIL import Image

from ipslib.datasets.traffic_signs import annotations
from ipslib.datasets.traffic_signs.annotations import (
    CLASSES,
    NOT_VISIBLE,
    OTHER_SIGNS,
    PUBLISHED_COUNTS,
    REPAIRED,
    SKIPPED,
    VISIBILITIES,
    Box,
    Example,
    Sign,
    SignSet,
    image_size,
    judge,
    read_set,
    thinned,
)
from ipslib.errors import IpslibError

# Quoted in a public README about the set.
PUBLISHED = (
    "Image000004.jpg:MISC_SIGNS;VISIBLE, 616.957210, 718.303048, 580.957210, 679.303048, "
    "INFORMATION, PRIORITY_ROAD;VISIBLE, 176.952430, 725.056080, 139.698699, 691.424239, OTHER, "
    "OTHER;"
)
GOOD = "VISIBLE, 30, 20, 10, 5, PROHIBITORY, 70_SIGN;"
BOX, OTHER = (10, 5, 30, 20), GOOD.replace("70_SIGN", "PRIORITY_ROAD")


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads lines; every image that they name is taken to be there."""
    monkeypatch.setattr(annotations, "image_size", lambda path: (960, 1280))

    def read(*lines: str, end: str = "\n") -> SignSet:
        folder = tmp_path / "Set1"
        folder.mkdir(exist_ok=True)
        (folder / "annotations.txt").write_bytes("".join(line + end for line in lines).encode())
        return read_set(folder)

    return read


def test_published_lines_are_read_and_filtered_in_their_order(read, tmp_path):
    found = read(PUBLISHED, f"b.jpg:{OTHER}{GOOD}", "a.jpg:", "c.jpg:MISC_SIGNS;")
    assert found.examples[0] == (tmp_path / "Set1" / "b.jpg", 2, 2, (BOX,), (960, 1280))
    assert [(e.path.name, CLASSES[e.label]) for e in found.examples[1:]] == [
        ("a.jpg", "EMPTY"),
        ("c.jpg", "EMPTY"),
    ]
    assert (found.name, found.n_lines, found.n_misc) == ("Set1", 4, 2)
    assert found.left_out == {OTHER_SIGNS: 1} and not found.problems


@pytest.mark.parametrize(("text", "value"), [("30l", 30), ("30.5l", 30.5), ("30. l", 30)])
def test_trailing_letters_are_cut_and_counted(read, text, value):
    found = read("e.jpg:", "a.jpg:" + GOOD.replace("30", text))
    assert found.examples[1].boxes[0][2] == value
    (repair,) = found.problems
    assert (repair.action, repair.kind, repair.line) == (REPAIRED, "trailing letters", 2)
    assert "Set1/annotations.txt line 2 (a.jpg)" in repair.message and text in repair.message


def test_a_byte_order_mark_line_ends_of_windows_and_no_last_semicolon_are_no_matter(read):
    plain = read("a.jpg:" + GOOD)
    assert read("\ufeffa.jpg: " + GOOD.removesuffix(";")).examples == plain.examples
    windows = read("a.jpg:" + GOOD, "", end="\r\n")
    assert windows.examples == plain.examples
    (repair,) = windows.problems
    assert repair.kind == "CRLF" and " 1 " in repair.message


@pytest.mark.parametrize(
    ("kind", "line", "says"),
    [
        ("inverted box", "a.jpg:VISIBLE, 10, 20, 30, 5, PROHIBITORY, 70_SIGN;", "exchange"),
        ("inverted box", "a.jpg:VISIBLE, 30, 5, 10, 5, PROHIBITORY, 70_SIGN;", "exchange"),  # flat
        ("no number", "a.jpg:VISIBLE, 1.2.3, 20, 1, 5, PROHIBITORY, 70_SIGN;", "got '1.2.3'"),
        ("no number", "a.jpg:VISIBLE, nan, 20, 30, 5, PROHIBITORY, 70_SIGN;", "got 'nan'"),
        ("unknown visibility", "a.jpg:VISIBEL, 30, 20, 10, 5, PROHIBITORY, 70_SIGN;", "'VISIBLE'?"),
        ("wrong number of fields", "a.jpg:VISIBLE, 30, 20, 10, 5, 70_SIGN;", "got 6"),
        ("no image name", "a.jpg" + GOOD, "(a.jpg)"),
        ("no image name", ":" + GOOD, "NAME.jpg"),
        ("no image name", "../a.jpg:" + GOOD, "NAME.jpg"),
        ("second line", "good.jpg:", "took line 1"),
    ],
)
def test_a_broken_line_is_skipped_by_name_and_the_rest_is_read(read, kind, line, says):
    found = read("good.jpg:" + GOOD, line, "other.jpg:")
    assert [example.path.name for example in found.examples] == ["good.jpg", "other.jpg"]
    (problem,) = found.problems
    assert (problem.action, problem.kind, problem.line) == (SKIPPED, kind, 2)
    assert problem.message.startswith("Set1/annotations.txt line 2 (") and says in problem.message


def test_a_sign_that_decides_nothing_may_have_a_bad_box(read):
    """The image is not EMPTY, whatever the box."""
    bad = OTHER.replace("30, 20, 10", "10, 20, 30")
    found = read("a.jpg:" + bad + GOOD, "b.jpg:" + bad)
    assert found.examples[0].boxes == (BOX,) and found.left_out == {OTHER_SIGNS: 1}
    assert {(p.action, p.kind) for p in found.problems} == {(REPAIRED, "inverted box")}


def test_what_is_missing_or_torn_is_listed_and_the_rest_works(tmp_path):
    names = ["a", "gone", "torn", "padded", "blurred"]
    signs = dict.fromkeys(names, GOOD) | {"blurred": GOOD.replace("VISIBLE", "BLURRED")}
    lines = "".join(f"{name}.jpg:{signs[name]}\n" for name in names)
    (tmp_path / "annotations.txt").write_text(lines)
    for name in ("a", "torn", "padded", "extra"):
        Image.new("RGB", (80, 60)).save(tmp_path / f"{name}.jpg")
    for name, damage in (("torn", lambda b: b[:-40]), ("padded", lambda b: b + bytes(500))):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(damage(path.read_bytes()))
    found = read_set(tmp_path)
    assert [(e.path.stem, e.size) for e in found.examples] == [
        ("a", (60, 80)),
        ("padded", (60, 80)),
    ]
    assert [(p.action, p.kind, p.image, p.line) for p in found.problems] == [
        (SKIPPED, "missing image", "gone.jpg", 2),
        (SKIPPED, "damaged image", "torn.jpg", 3),
        (SKIPPED, "no annotation", None, None),
    ]
    for problem, name in zip(found.problems, ("gone", "torn", "extra"), strict=True):
        assert f"{name}.jpg" in problem.message and "\n" not in problem.message
    for path in tmp_path.glob("*.jpg"):
        path.unlink()
    with pytest.raises(IpslibError, match=str(tmp_path)):
        read_set(tmp_path)


def test_a_sound_image_is_inspected_without_decoding_it(tmp_path, monkeypatch):
    Image.new("RGB", (80, 60)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert image_size(tmp_path / "a.jpg") == (60, 80)


@pytest.mark.parametrize(
    "content", [None, b"\xff\xd8\xff\xe0\x00", b"", b"<html>not found</html>\n"]
)
def test_a_file_that_holds_no_annotations_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "annotations.txt").write_bytes(content)
    with pytest.raises(IpslibError, match=r"annotations\.txt"):
        read_set(tmp_path)


SMALL, LARGE = (0, 0, 10, 10), (20, 20, 40, 40)


def sign(name: str, box: Box | None = SMALL, visibility: str = "VISIBLE") -> Sign:
    return Sign(visibility, box, name)


@pytest.mark.parametrize(
    ("signs", "verdict"),
    [
        ([], ("EMPTY", ())),
        ([sign("PRIORITY_ROAD", None)], (OTHER_SIGNS, ())),
        ([sign("30_SIGN"), sign("100_SIGN")], (OTHER_SIGNS, ())),
        ([sign("80_SIGN"), sign("PRIORITY_ROAD", None), sign("30_SIGN", LARGE)],
         ("80_SIGN", (SMALL,))),
        ([sign("50_SIGN"), sign("70_SIGN", LARGE), sign("80_SIGN", LARGE, "BLURRED")],
         ("70_SIGN", (LARGE,))),
        ([sign("70_SIGN"), sign("70_SIGN", LARGE), sign("70_SIGN", (0, 0, 90, 90), "OCCLUDED")],
         ("70_SIGN", (LARGE, SMALL))),
        *(([sign("70_SIGN", LARGE, each)], (NOT_VISIBLE, ())) for each in VISIBILITIES[1:]),
        *(([sign("70_SIGN", LARGE, each), sign("50_SIGN")], ("50_SIGN", (SMALL,)))
          for each in VISIBILITIES[1:]),
    ],
)  # fmt: skip
def test_the_largest_of_the_most_visible_limits_decides_in_any_order(signs, verdict):
    for order in permutations(signs):
        assert judge(order) == verdict


def examples_of(counts) -> tuple[Example, ...]:
    """Classes take turns, so that no class lies in one piece."""
    turns = sorted((turn, label) for label, n in enumerate(counts) for turn in range(n))
    return tuple(Example(f"{i}", i, label, (), (9, 9)) for i, (_, label) in enumerate(turns))


@pytest.mark.parametrize(
    ("split", "sizes"), [("train", (747, 372, 184)), ("test", (684, 341, 169))]
)
def test_fractions_have_the_published_sizes_and_a_smaller_one_is_part_of_a_larger(split, sizes):
    whole = examples_of(PUBLISHED_COUNTS[split])
    for fraction, size in zip((1.0, 0.5, 0.25), sizes, strict=True):
        part = thinned(whole, fraction)
        assert len(part) == size
        assert list(part) == sorted(part, key=lambda example: example.line)
        for label, n in enumerate(PUBLISHED_COUNTS[split]):
            first = [example for example in whole if example.label == label][: int(n * fraction)]
            assert [example for example in part if example.label == label] == first


def test_a_fraction_that_empties_a_class_is_refused():
    with pytest.raises(IpslibError, match="fraction"):
        thinned(examples_of((20, 8, 8, 3)), 0.25)
    assert len(thinned(examples_of((20, 8, 8, 0)), 0.25)) == 5 + 2 + 2
