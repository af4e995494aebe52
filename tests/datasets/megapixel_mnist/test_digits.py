import struct
from http.client import BadStatusLine
from pathlib import Path
from threading import Event
from unittest.mock import MagicMock, Mock
from urllib.error import URLError

import numpy as np
import pytest
from sklearn.datasets import load_digits as optical_digits

from ipslib import paths
from ipslib.datasets.megapixel_mnist.digits import find_source, load_digits, resize_area
from ipslib.errors import IpslibError
from ipslib.paths import DATA_ROOT_VARIABLE, data_root

pytestmark = pytest.mark.usefixtures("fresh_digits")


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    """A project without data, and no data root named; the current directory does not matter."""
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    return tmp_path


def write_mnist(root: Path, n: int) -> Path:
    """Blank MNIST files of n images a split, in MNIST's own format."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        header = struct.pack(">IIII", 2051, n, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + bytes(n * 784))
        labels = bytes(i % 10 for i in range(n))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels)
    return raw


def test_the_embedded_splits_share_no_image_and_cut_the_writers_in_order():
    train, test = load_digits("embedded", "train"), load_digits("embedded", "test")
    assert len(train.labels) == 1348 and len(test.labels) == 449
    joined = np.concatenate([train.labels, test.labels])
    assert np.array_equal(joined, optical_digits().target)
    images = {image.tobytes() for image in train.images}
    assert not images & {image.tobytes() for image in test.images}
    # Every machine enlarges to these bytes.
    assert [each.sha256[:16] for each in (train, test)] == ["48d22b5f65e017ac", "03b01dc96438911b"]


def test_embedded_digits_lie_as_mnists_do_and_cannot_be_changed():
    digit_set = load_digits("embedded", "test")
    assert digit_set.images.shape[1:] == (28, 28) and digit_set.images.dtype == np.uint8
    for image in digit_set.images[:50]:
        inked = np.nonzero(image)
        assert all(np.ptp(axis) < 20 for axis in inked)  # within a 20 px box
        centre = [np.average(axis, weights=image[inked]) for axis in inked]
        assert np.allclose(centre, 14, atol=1.5)
    for digit in range(10):
        same, other = digit_set.of_class(digit)
        assert (digit_set.labels[same] == digit).all()
        assert sorted([*same, *other]) == list(range(len(digit_set.labels)))
    with pytest.raises(ValueError, match="read-only"):
        digit_set.images[0, 0, 0] = 1


def test_real_mnist(mnist_root):
    assert find_source() == "mnist"
    train, test = load_digits("mnist", "train"), load_digits("mnist", "test")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_mnist_at_the_default_root(no_mnist):
    write_mnist(no_mnist / "data", 10)
    assert find_source() == "mnist"
    assert load_digits("mnist", "test").labels.tolist() == list(range(10))


@pytest.mark.parametrize("keep", [3, 16, 1000])
def test_a_truncated_file_is_one_clear_sentence(no_mnist, keep):
    raw = write_mnist(no_mnist / "data", 10)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:keep])
    with pytest.raises(IpslibError, match=f"{raw}.*truncated") as refusal:
        load_digits("mnist", "train")
    assert "\n" not in str(refusal.value)


def test_a_named_root_that_does_not_exist_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "nowhere"))
    for ask in (data_root, find_source, lambda: load_digits("mnist", "train")):
        with pytest.raises(IpslibError, match=DATA_ROOT_VARIABLE):
            ask()


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError(), BadStatusLine("<html>")])
def test_without_network_the_embedded_digits_are_taken(no_mnist, monkeypatch, error):
    monkeypatch.setattr(paths, "urlopen", Mock(side_effect=error))
    assert find_source() == "embedded"
    with pytest.raises(IpslibError, match=DATA_ROOT_VARIABLE):
        load_digits("mnist", "train")
    assert not list(no_mnist.iterdir())  # nothing half-written


def test_a_network_that_never_answers_is_not_waited_for(no_mnist, monkeypatch):
    waits = Event()

    def hang(*args, **kwargs):
        waits.wait()
        raise TimeoutError

    assert paths._PATIENCE_S <= 8  # decided within 10 s
    monkeypatch.setattr(paths, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(paths, "urlopen", hang)
    try:
        assert find_source() == "embedded"  # while the look-up hangs
    finally:
        waits.set()


def test_a_mirror_that_answers_means_mnist(no_mnist, monkeypatch):
    monkeypatch.setattr(paths, "urlopen", MagicMock())
    assert find_source() == "mnist"


@pytest.mark.parametrize(
    ("source", "split", "hint"), [("minst", "train", "'mnist'"), ("embedded", "tset", "'test'")]
)
def test_unknown_names_are_refused(source, split, hint):
    with pytest.raises(IpslibError, match=hint):
        load_digits(source, split)


@pytest.mark.parametrize("new_size", [5, 7, 14, 27, 28, 42, 56])
def test_a_resized_pixel_is_the_mean_of_its_area(new_size):
    """Cut every pixel finely enough that both grids fit, then average blocks."""
    images = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)
    fine = np.kron(images.astype(np.int64), np.ones((1, new_size, new_size), np.int64))
    blocks = fine.reshape(3, new_size, 28, new_size, 28).sum(axis=(2, 4))
    expected = (2 * blocks + 28 * 28) // (2 * 28 * 28)  # halves round up
    assert np.array_equal(resize_area(images, new_size), expected)
