"""What training asks of a data set, whatever its images are, and where each kind is opened."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ipslib.config import DataConfig, DatasetConfig
from ipslib.datasets.images.own_images import OwnImages, OwnImagesConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.slides.config import SlidesConfig
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.datasets.traffic_signs.dataset import load_traffic_signs
from ipslib.patches import MixedBatch, PatchBatch, PatchGrid


class LabelledBatch(PatchBatch, Protocol):
    """Images with what is known of them."""

    labels: Mapping[str, Tensor]  # {task: (B,) classes or (B, C) multi-hot}
    boxes: Tensor | None  # (B, R, 4) objects in pixels, see `localisation`; None: not known


class Dataset(Protocol):
    """One split of a data set."""

    grid: PatchGrid | None  # of every image; None where images differ in size
    chance: Mapping[str, float] | None  # accuracy of the best constant answer; None: by its rule
    provenance: Mapping[str, object]  # what the images are, for records

    def __len__(self) -> int: ...

    def augmented(self, *, seed: int, epoch: int) -> "Dataset":
        """The training set as it looks in an epoch, the same whenever asked."""
        ...

    def batch(self, indices: Sequence[int]) -> LabelledBatch | MixedBatch: ...


def open_dataset(data: DatasetConfig, split: str) -> Dataset:
    """Open a split, `train` or `test`, of any kind of data.

    Raises:
        IpslibError: when its files are missing or unfit.
    """
    return _OPENED_BY[type(data)](data, split)


def batch_maker(
    dataset: Dataset, device: torch.device | str
) -> Callable[[Sequence[int]], LabelledBatch | MixedBatch]:
    """What takes indices to a batch for a network on a device: images that are drawn are drawn
    there, others are read on the host."""

    def make(indices: Sequence[int]) -> LabelledBatch | MixedBatch:
        batch = dataset.batch(indices)
        return batch.on(device) if hasattr(batch, "on") else batch

    return make


def _open_slides(data: SlidesConfig, split: str) -> Dataset:
    from ipslib.datasets.slides.sets import open_slides  # and HDF5

    return open_slides(data, split)


_OPENED_BY: dict[type, Callable[..., Dataset]] = {
    DataConfig: MegapixelMNIST,
    TrafficSignsConfig: load_traffic_signs,
    SlidesConfig: _open_slides,
    OwnImagesConfig: OwnImages,
}
