import numpy as np
import pytest
from PIL import Image

from ipslib.datasets.synthetic import is_synthetic
from ipslib.datasets.traffic_signs.classes import PUBLISHED_COUNTS, read_set
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError

SIZE = (120, 160)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic(tmp_path_factory.mktemp("signs") / "standin", 24, 12, size=SIZE)


def contents(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_filter_keeps_as_many_as_were_asked_for_in_the_published_shares(folder):
    for name, n in [("Set1", 24), ("Set2", 12)]:
        examples, report = read_set(folder / name)
        assert len(examples) == n
        counts = np.array(list(report.kept.values()))
        split = "train" if name == "Set1" else "test"
        shares = np.array(PUBLISHED_COUNTS[split]) / sum(PUBLISHED_COUNTS[split])
        assert counts.min() >= 1 and np.abs(counts - n * shares).max() < 2.5
        assert all(example.size == SIZE for example in examples)


def test_every_awkwardness_is_there_and_told(folder):
    for name in ("Set1", "Set2"):
        report = read_set(folder / name).report
        assert {problem.kind for problem in report.repaired} == {"trailing letters", "CRLF"}
        assert sorted(problem.kind for problem in report.skipped) == [
            "damaged image",
            "inverted box",
            "missing image",
            "no annotation",
            "no image name",
        ]
        assert report.left_out == {"other signs only": 2, "limit sign not VISIBLE": 1}
        assert report.n_misc > 1


def test_the_boxes_lie_on_the_signs(folder):
    for example in read_set(folder / "Set1").examples:
        pixels = np.asarray(Image.open(example.path)).astype(int)
        red = (pixels[..., 0] - pixels[..., 1:].max(axis=-1)) > 50
        for box in example.boxes:
            x_min, y_min, x_max, y_max = (round(value) for value in box)
            assert red[y_min:y_max, x_min:x_max].mean() > 0.1


def test_the_same_again_whatever_else_is_drawn(folder, tmp_path):
    again = write_synthetic(tmp_path / "again", 24, 12, size=SIZE)
    assert contents(again) == contents(folder)
    other = write_synthetic(tmp_path / "other", 24, 12, size=SIZE, seed=1)
    images = [
        {data for name, data in contents(each).items() if name.endswith("jpg")}
        for each in (folder, other)
    ]
    assert len(images[0]) == len(images[1]) and not images[0] & images[1]


def test_train_and_test_show_different_scenes(folder):
    images = [
        {path.read_bytes() for path in (folder / name).glob("*.jpg")} for name in ("Set1", "Set2")
    ]
    assert not images[0] & images[1]


def test_one_that_was_drawn_before_is_found_and_not_drawn_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_synthetic(folder, 24, 12, size=SIZE) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_nothing_is_drawn_over_what_is_there(folder, tmp_path):
    (tmp_path / "Set1").mkdir()
    for place, n_train in [(tmp_path, 24), (folder, 25)]:
        with pytest.raises(IpslibError, match="something else"):
            write_synthetic(place, n_train, 12, size=SIZE)
    assert not is_synthetic(tmp_path)


def test_a_plain_set_has_no_problems(tmp_path):
    folder = write_synthetic(
        tmp_path / "plain", 8, 4, size=SIZE, shares=(1, 1, 1, 1), awkward=False
    )
    assert is_synthetic(folder)
    for name, n in [("Set1", 2), ("Set2", 1)]:
        report = read_set(folder / name).report
        assert list(report.kept.values()) == [n] * 4
        assert not report.problems and not report.left_out


@pytest.mark.parametrize(
    ("n_train", "n_test", "options", "says"),
    [
        (3, 12, {}, "at least 4 images a set"),
        (12, 3, {}, "at least 4 images a set"),
        (12, 12, {"size": (40, 96)}, "sides of at least 64 px"),
        (12, 12, {"shares": (1, 1, 1)}, "wanted 4 shares, of EMPTY, 50_SIGN, 70_SIGN, 80_SIGN"),
        (12, 12, {"shares": (1, 1, 1, -1)}, "wanted 4 shares"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, n_train, n_test, options, says):
    with pytest.raises(IpslibError, match=says):
        write_synthetic(tmp_path / "new", n_train, n_test, **options)
    assert not (tmp_path / "new").exists()
