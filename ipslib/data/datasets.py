"""What training asks of a data set, whatever its images are, and where each kind is opened."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from ipslib.config import DataConfig, DatasetConfig
from ipslib.data.megapixel_mnist import MegapixelMNIST
from ipslib.data.patches import PatchBatch, PatchGrid


class LabelledBatch(PatchBatch, Protocol):
    """Images with what is known of them."""

    labels: Mapping[str, Tensor]  # {task: (B,) classes or (B, C) multi-hot}
    boxes: Tensor | None  # (B, R, 4) objects in pixels, see `localisation`; None: not known


class Dataset(Protocol):
    """One split of a data set.

    `grid` is that of every image. Where images differ in size it is None, and they are trained
    on one at a time, their gradients added up to those of a batch.
    """

    grid: PatchGrid | None

    def __len__(self) -> int: ...

    def augmented(self, *, seed: int, epoch: int) -> "Dataset":
        """The training set as it looks in an epoch, the same whenever asked."""
        ...

    def batch(self, indices: Sequence[int]) -> LabelledBatch: ...


def open_dataset(data: DatasetConfig, split: str) -> Dataset:
    """Open a split, `train` or `test`, of any kind of data.

    Raises:
        IpslibError: when its files are missing or unfit.
    """
    return _OPENED_BY[type(data)](data, split)


_OPENED_BY: dict[type, Callable[..., Dataset]] = {
    DataConfig: MegapixelMNIST,
}
