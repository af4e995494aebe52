"""What several test files share: the folder beside the checkout, MNIST, and a small task."""

from pathlib import Path

import pytest
import torch

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.digits import load_digits
from ipslib.paths import DATA_ROOT_VARIABLE
from tests.project import project  # noqa: F401

_SMALL = {"digits": "embedded", "canvas": (130, 110), "patch_size": 28, "n_noise": 6, "n_test": 40}

# On tensors this small threads would only wait for each other, and the order of sums, and so the
# bits of a run, depend on their number.
torch.set_num_threads(1)


@pytest.fixture
def shared() -> Path:
    """The folder of published results, checkpoints and MNIST beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("there is no ../shared beside this checkout")
    return folder


@pytest.fixture
def fresh_digits():
    """No digits are remembered from, or left to, another test's data root."""
    load_digits.cache_clear()
    yield
    load_digits.cache_clear()


@pytest.fixture
def mnist_root(shared: Path, monkeypatch: pytest.MonkeyPatch, fresh_digits: None) -> Path:
    """The real MNIST, as the data root."""
    if not (shared / "mnist" / "MNIST" / "raw").is_dir():
        pytest.skip("../shared holds no MNIST")
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(shared / "mnist"))
    return shared / "mnist"


@pytest.fixture
def small_data():
    """Builds a small MegapixelMNISTConfig on the embedded digits; arguments change its fields."""
    return lambda **changes: MegapixelMNISTConfig(**_SMALL | changes)
