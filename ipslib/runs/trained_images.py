"""A network trained on images of one's own, as it is used, saved and opened elsewhere.

model = load("model.ipslib")
print(model.accuracy, model.predict(["new.jpg"]))
model.attention_map("new.jpg").savefig("map.png")
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pandas as pd
import torch
from torch import nn

from ipslib.config import ARITHMETIC, RunConfig, TrainingConfig, arithmetic_of
from ipslib.datasets.images.attention import (
    Attention,
    attention_of,
    class_named,
    number_of,
    probabilities_of,
    to_geojson,
)
from ipslib.datasets.images.attention_page import attention_page
from ipslib.datasets.images.config import OwnImagesConfig
from ipslib.datasets.images.sources import PatchSource, SourceBatch, with_channels
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.paths import found, from_here
from ipslib.runs.model_file import read_model, write_model
from ipslib.runtime import chosen_device
from ipslib.training import answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = str | Path | np.ndarray


@attrs.frozen
class TrainedImages:
    """A network that reads images of one's own; made by `train_images`, `load` or `of`."""

    record: dict = attrs.field(repr=False)
    config: RunConfig = attrs.field(repr=False)
    network: IPSNet = attrs.field(repr=False)
    skipped: tuple[str, ...] = ()  # sentences about images that could not be used
    notes: tuple[str, ...] = ()  # sentences about how the table was read and split
    written_by: str = ""  # the versions that wrote the file it is from

    @classmethod
    def of(
        cls,
        network: IPSNet,
        *,
        patch_size: int,
        classes: Mapping[str, Sequence[str]] | None = None,
        **fields: object,
    ) -> "TrainedImages":
        """A network from elsewhere: an original checkpoint, or one trained in a loop of one's own.

        Args:
            network: is taken as it is, not copied.
            patch_size: in pixels.
            classes: names of the outputs by task; 0, 1, 2, ... for a task that is not in it.
            fields: others of `OwnImagesConfig`, such as `patch_stride` or `several`.
        """
        heads = zip(network.tasks, network.heads.values(), strict=True)
        sizes = {task: head.out_features for task, head in heads}
        of_classes = sizes.keys() - fields.get("numbers", {}).keys()
        names = {task: [*map(str, range(n))] for task, n in sizes.items() if task in of_classes}
        names |= {task: list(of_task) for task, of_task in (classes or {}).items()}
        shape = {"in_channels": network.in_channels, "patch_size": patch_size}
        data = OwnImagesConfig(labels="", labels_sha256="", classes=names, **shape, **fields)
        is_known = {*data.several} <= sizes.keys()
        if not is_known or list(data.n_classes.items()) != list(sizes.items()):
            raise IpslibError(
                f"classes and several: wanted outputs {sizes}, got {data.n_classes} and "
                f"{data.several}; correct the names."
            )
        precision = "bf16" if network.precision == torch.bfloat16 else "fp32"
        training = TrainingConfig(precision=precision)
        config = RunConfig(data=data, model=network.config, training=training)
        return cls({"arithmetic": ARITHMETIC, "result": {}}, config, network)

    @property
    def accuracy(self) -> dict[str, float]:
        """Of the last epoch on the test images, or with validation images of the epoch that did
        best on them, by task of classes; of several labels, that all of them are right."""
        return self.record["result"].get("accuracy", {})

    @property
    def measures(self) -> dict[str, dict[str, float]]:
        """As `accuracy`, by name and task: balanced accuracy and AUC; of numbers R2 and the mean
        absolute error, in the units of the table."""
        return self.record["result"].get("measures", {})

    @property
    def chance(self) -> dict[str, float]:
        """Share of the test images that the most frequent class has, by task."""
        return self.record["result"].get("chance", {})

    def save(self, path: str | Path) -> Path:
        """Write it to one file for any machine, which `load` reads: weights, configuration, names
        of classes and results, but no images and no paths."""
        made_by = {"arithmetic": arithmetic_of(self.record), "result": self.record["result"]}
        return write_model(path, self.config, self.network, **made_by)

    def predict(self, images: Image | Iterable[Image]) -> pd.DataFrame:
        """Classify images, one at a time, or tell their number.

        Args:
            images: files or arrays, or a single one.

        Returns:
            A row an image and task: `image`, `task`, `predicted` (a class, `a|b` of several, or a
            number in the units of the table) and a column of probability for each class of the
            task; that of a class called like one of these three is followed by ` (class)`.
        """
        several = isinstance(images, Iterable) and not isinstance(images, str | bytes)
        if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # no paths
            several = images.ndim > 3
        images = images if several else [images]
        rows, data = [], self.config.data
        for image in images:
            batch = self._batch(image)
            name = batch.sources[0].name
            for task, (logits,) in answer(self.network, batch).logits.items():
                if task in data.numbers:
                    predicted = number_of(logits, data.numbers[task])
                    rows.append({"image": name, "task": task, "predicted": predicted})
                    continue
                names, is_set = data.classes[task], task in data.several
                shares = probabilities_of(logits, is_set).tolist()
                best = class_named(np.array(shares), names, is_set)
                row = {"image": name, "task": task, "predicted": best}
                columns = [f"{name} (class)" if name in row else name for name in names]
                rows.append(row | dict(zip(columns, shares, strict=True)))
        return pd.DataFrame(rows)

    def attention(self, image: Image) -> Attention:
        """What the network keeps of an image, how it attends to it and what it answers."""
        return self._seen(image)[1]

    def attention_map(
        self,
        image: Image,
        *,
        scale: str = "rank",
        attention: Attention | None = None,
        **part: object,
    ) -> "Figure":
        """Draw what the network kept of an image, coloured by attention, and its boxes, where
        they are known.

        Args:
            image: a file or an array, as for training.
            scale: `rank`, `linear` or `log`, see `ipslib.datasets.maps`.
            attention: of the image, where it is there already.
            part: `task` and `head`; the mean over all of them without.
        """
        from matplotlib import pyplot as plt

        from ipslib.datasets.maps import attention_figure, map_of

        source, attention = self._seen(image, attention)
        boxes, title = self._boxes(image), Path(source.name).name
        kept_patches = map_of(source, attention, title=title, boxes=boxes, **part)
        figure = attention_figure([kept_patches], scale=scale, box_name="object")
        plt.close(figure)  # returned, not left to be shown a second time
        return figure

    def attention_page(
        self,
        image: Image,
        path: str | Path,
        *,
        attention: Attention | None = None,
        **options: object,
    ) -> Path:
        """Write a page of an image, of what the network kept of it and of its boxes, where they
        are known; `options` as of `ipslib.attention_page`."""
        source, attention = self._seen(image, attention)
        options = {"boxes": self._boxes(image)} | options
        return attention_page(source, attention, from_here(path), **options)

    def to_geojson(
        self,
        image: Image,
        path: str | Path | None = None,
        *,
        attention: Attention | None = None,
        **options: object,
    ) -> dict:
        """The kept patches of an image for QuPath; `options` as of `ipslib.to_geojson`."""
        path = path and from_here(path)
        return to_geojson(attention or self.attention(image), path, **options)

    def _seen(
        self, image: Image, attention: Attention | None = None
    ) -> tuple[PatchSource, Attention]:
        """An image, opened once, and what is kept of it, where that is not there already."""
        batch, data = self._batch(image), self.config.data
        names = {"classes": data.classes, "several": data.several, "numbers": data.numbers}
        return batch.sources[0], attention or attention_of(self.network, batch, **names)

    def _boxes(self, image: Image) -> np.ndarray | None:
        return None if isinstance(image, np.ndarray) else self.config.data.boxes_of(image)

    def _batch(self, image: Image) -> SourceBatch:
        image = found(image) if isinstance(image, str | Path) else image
        data = self.config.data
        return SourceBatch([with_channels(data.open(image), data.in_channels)])


def load(
    path: str | Path, *, encoder: nn.Module | None = None, device: str = "cpu"
) -> TrainedImages:
    """Open what `TrainedImages.save` wrote, on this or any other machine.

    Args:
        path: of the file.
        encoder: of one's own, where the network was trained with one; it takes up the weights.
        device: where the network goes. On a CPU with as many threads the answers are the same to
            the bit.

    Raises:
        IpslibError: for what is no such file, torn or changed, or needs another version or package.
    """
    device = chosen_device(device)
    config, network, about = read_model(path, encoder=encoder)
    versions = (f"{name} {about[name]}" for name in ("ipslib", "arithmetic", "torch"))
    return TrainedImages(about, config, network.to(device), written_by=", ".join(versions))
