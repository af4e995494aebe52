"""Handwritten digits: the real MNIST, or an embedded set that needs no network.

The embedded set is UCI's optical digits as scikit-learn ships them (1797 images of 8 x 8),
enlarged to 20 px and centred by mass in a 28 px box as MNIST is. Its images stand in the order
of their writers, so a cut in that order gives train and test sets of different writers.
"""

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path

import attrs
import numpy as np
from PIL import Image

from ipslib.datasets.megapixel_mnist.config import N_CLASSES, SOURCES
from ipslib.errors import IpslibError, did_you_mean
from ipslib.patches import SPLITS
from ipslib.paths import DATA_ROOT_VARIABLE, data_root, reachable

BOX = 28  # px, the side of a digit as it is stored


@attrs.frozen(eq=False)
class DigitSet:
    """Images (n, 28, 28) uint8 and labels (n,) of one split of one source."""

    images: np.ndarray
    labels: np.ndarray

    def of_class(self, digit: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the images of a class, and of all the others."""
        return self._by_class[digit]

    @cached_property
    def _by_class(self) -> list[tuple[np.ndarray, np.ndarray]]:
        members = [self.labels == digit for digit in range(N_CLASSES)]
        return [(np.flatnonzero(member), np.flatnonzero(~member)) for member in members]

    @cached_property
    def sha256(self) -> str:
        """Of the images' and labels' bytes: what a result was computed on."""
        content = self.images.tobytes() + self.labels.astype(np.uint8).tobytes()
        return hashlib.sha256(content).hexdigest()


def find_source() -> str:
    """`mnist` when it is here or can be downloaded now, else `embedded`, within 10 seconds."""
    return "mnist" if _mnist_is_here() or _network_answers() else "embedded"


@lru_cache
def load_digits(source: str, split: str) -> DigitSet:
    """The digits of a split; IpslibError for an unknown source or split, missing or truncated MNIST
    files, or no network."""
    for name, value, known in (("digits", source, SOURCES), ("split", split, SPLITS)):
        if value not in known:
            raise IpslibError(f"{name}: unknown {value!r}{did_you_mean(value, known)}.")
    images, labels = _mnist(split) if source == "mnist" else _embedded(split)
    for array in (images, labels):
        array.setflags(write=False)
    return DigitSet(images, labels)


def _mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import MNIST

    raw, missing = data_root() / "MNIST" / "raw", not _mnist_is_here()
    remedy = f"set {DATA_ROOT_VARIABLE} to a root that holds MNIST/raw, or use digits: embedded"
    if missing and not _network_answers():
        raise IpslibError(f"MNIST is not at {raw} and no mirror answers; {remedy}.")
    try:
        dataset = MNIST(data_root(), train=split == "train", download=missing)
        return dataset.data.numpy().copy(), dataset.targets.numpy().copy()
    except Exception as error:  # torchvision asserts, raises ValueError, RuntimeError or OSError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise IpslibError(
            f"MNIST could not be read from {raw}: a file is missing, truncated or damaged "
            f"({reason}); delete that folder to download it again, {remedy}."
        ) from error


def _mnist_is_here() -> bool:
    from torchvision.datasets import MNIST

    raw = data_root() / "MNIST" / "raw"
    return all((raw / Path(name).stem).is_file() for name, _ in MNIST.resources)


def _embedded(split: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits as optical_digits

    bundle = optical_digits()
    n_train = round(0.75 * len(bundle.target))
    rows = slice(0, n_train) if split == "train" else slice(n_train, None)
    images = np.stack([_like_mnist(image) for image in bundle.images[rows]])
    return images, bundle.target[rows].astype(np.int64)


def _like_mnist(image: np.ndarray) -> np.ndarray:
    """An 8 x 8 image of 0..16 at 20 px in a 28 px box, its centre of mass in the middle."""
    small = Image.fromarray((image * 255 / 16).astype(np.uint8))
    large = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)).astype(np.int64)
    along = large.sum(axis=1), large.sum(axis=0)
    centre = [int(ink @ np.arange(20) / ink.sum() + 0.5) for ink in along]
    top, left = (min(max(14 - c, 0), 8) for c in centre)
    return np.pad(large, ((top, 8 - top), (left, 8 - left))).astype(np.uint8)


def _network_answers() -> bool:
    from torchvision.datasets import MNIST

    return reachable(*(mirror + MNIST.resources[0][0] for mirror in MNIST.mirrors))


def resize_area(images: np.ndarray, new_size: int) -> np.ndarray:
    """Resize square uint8 images (..., S, S) so that each new pixel is the mean of its area. The
    sums are of whole numbers, exact in any order: the same bytes on every machine."""
    size = images.shape[-1]
    cell = np.arange(size * new_size)  # along a side, fine enough for both grids
    shared = np.zeros((new_size, size))
    np.add.at(shared, (cell // size, cell // new_size), 1)
    return (shared @ images @ shared.T / size**2 + 0.5).astype(np.uint8)
