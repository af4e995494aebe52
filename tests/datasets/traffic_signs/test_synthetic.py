import numpy as np
import pytest

from ipslib.datasets.synthetic import is_synthetic
from ipslib.datasets.traffic_signs.annotations import (
    LIMITS,
    PUBLISHED_COUNTS,
    REPAIRED,
    SET_OF,
    SKIPPED,
    class_counts,
    read_set,
)
from ipslib.datasets.traffic_signs.synthetic import sign_tile, write_synthetic
from ipslib.errors import IpslibError

SIZE, N_IMAGES = (120, 160), {"train": 24, "test": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic(tmp_path_factory.mktemp("signs") / "standin", N_IMAGES, size=SIZE)


def contents(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("split", ["train", "test"])
def test_as_many_are_kept_as_were_asked_for_and_every_awkwardness_is_there(folder, split):
    found = read_set(folder / SET_OF[split])
    assert len(found.examples) == N_IMAGES[split]
    counts = np.array(list(class_counts(found.examples).values()))
    shares = np.array(PUBLISHED_COUNTS[split]) / sum(PUBLISHED_COUNTS[split])
    assert counts.min() >= 1 and np.abs(counts - len(found.examples) * shares).max() < 2.5
    assert all(example.size == SIZE for example in found.examples)
    assert sorted({(problem.action, problem.kind) for problem in found.problems}) == [
        (REPAIRED, "CRLF"), (REPAIRED, "trailing letters"), (SKIPPED, "damaged image"),
        (SKIPPED, "inverted box"), (SKIPPED, "missing image"), (SKIPPED, "no annotation"),
        (SKIPPED, "no image name"),
    ]  # fmt: skip
    assert found.n_of(SKIPPED) == 5 and found.n_misc > 1
    assert found.left_out == {"other signs only": 2, "limit sign not VISIBLE": 1}


def test_the_same_again_byte_for_byte_in_two_sets_of_different_scenes(folder, tmp_path):
    assert contents(write_synthetic(tmp_path / "again", N_IMAGES, size=SIZE)) == contents(folder)
    images = [{path.read_bytes() for path in (folder / n).glob("*.jpg")} for n in SET_OF.values()]
    assert not images[0] & images[1] and is_synthetic(folder / "Set1")


@pytest.mark.parametrize(
    ("n_images", "size", "named"),
    [(N_IMAGES | {"train": 25}, SIZE, "standin"), (N_IMAGES, (40, 96), "canvas")],
)
def test_what_cannot_be_drawn_or_is_drawn_otherwise_is_refused(folder, n_images, size, named):
    with pytest.raises(IpslibError, match=named):
        write_synthetic(folder, n_images, size=size)


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
