import numpy as np
import pytest

from ipslib.datasets.synthetic import is_synthetic, stream
from ipslib.datasets.traffic_signs.config import PUBLISHED_COUNTS
from ipslib.datasets.traffic_signs.dataset import read_set
from ipslib.datasets.traffic_signs.synthetic import draw_scene, sign_tile, write_synthetic
from ipslib.errors import IpslibError

SIZE = (120, 160)
LIMITS = ("50_SIGN", "70_SIGN", "80_SIGN")


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


def test_the_same_again_byte_for_byte(folder, tmp_path):
    again = write_synthetic(tmp_path / "again", 24, 12, size=SIZE)
    assert contents(again) == contents(folder)


def test_train_and_test_show_different_scenes(folder):
    images = [
        {path.read_bytes() for path in (folder / name).glob("*.jpg")} for name in ("Set1", "Set2")
    ]
    assert not images[0] & images[1]


def test_what_was_drawn_before_is_found_and_nothing_is_drawn_over_it(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_synthetic(folder, 24, 12, size=SIZE) == folder
    with pytest.raises(IpslibError, match=str(folder)):
        write_synthetic(folder, 25, 12, size=SIZE)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert is_synthetic(folder / "Set1")


def test_classes_can_be_equally_frequent(tmp_path):
    folder = write_synthetic(tmp_path / "equal", 8, 4, size=SIZE, shares=(1, 1, 1, 1))
    for name, n in [("Set1", 2), ("Set2", 1)]:
        assert list(read_set(folder / name).report.kept.values()) == [n] * 4


@pytest.mark.parametrize(
    ("n_train", "n_test", "options", "says"),
    [
        (3, 12, {}, "at least 4"),
        (12, 3, {}, "at least 4"),
        (12, 12, {"size": (40, 96)}, "at least 64 px"),
        (12, 12, {"shares": (1, 1, 1)}, "shares"),
        (12, 12, {"shares": (1, 1, 1, -1)}, "shares"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, n_train, n_test, options, says):
    with pytest.raises(IpslibError, match=says):
        write_synthetic(tmp_path / "new", n_train, n_test, **options)
    assert not (tmp_path / "new").exists()


def pixels(scene) -> np.ndarray:
    return np.asarray(scene.image).astype(int)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_sign_is_where_its_box_says(name):
    """Of the red ring's pixels, most lie in the box's corners' reach and touch all four sides."""
    for key in range(8):
        scene = draw_scene(stream(key, 2), (240, 320), (name,))
        ((drawn, box),) = scene.signs
        assert drawn == name
        x_min, y_min, x_max, y_max = (round(value) for value in box)
        assert 0 <= x_min < x_max <= 320 and 0 <= y_min < y_max <= 240
        inside = pixels(scene)[y_min:y_max, x_min:x_max]
        red = (inside[..., 0] > 120) & (inside[..., 1] < 80) & (inside[..., 2] < 80)
        rows, cols = np.nonzero(red)
        assert np.ptp(rows) >= 0.8 * (y_max - y_min) and np.ptp(cols) >= 0.8 * (x_max - x_min)
        assert 0.2 < red.mean() < 0.7


def test_the_limits_differ_in_their_ground_and_in_their_numerals():
    tiles = {name: np.asarray(sign_tile(name)).astype(int) for name in LIMITS}
    grounds = {name: tile[30, 64] for name, tile in tiles.items()}
    inks = {name: tile[..., :3].max(axis=-1) < 40 for name, tile in tiles.items()}
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert np.abs(grounds[LIMITS[a]] - grounds[LIMITS[b]]).max() > 60
        first, second = (inks[LIMITS[i]][:, 30:64] for i in (a, b))
        opaque = [tiles[LIMITS[i]][:, 30:64, 3] == 255 for i in (a, b)]
        first, second = first & opaque[0], second & opaque[1]
        assert (first ^ second).sum() > 0.2 * min(first.sum(), second.sum())
