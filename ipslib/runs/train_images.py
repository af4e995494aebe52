"""Train on images of one's own, name what is on further ones, and see where the network looks.

trained = train_images("labels.csv", patch_size=100, epochs=30, folder="outputs/mine")
print(trained.accuracy, trained.predict(["new.jpg"]))
trained.attention_map("new.jpg").savefig("map.png")
"""

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pandas as pd

from ipslib.config import ModelConfig, RunConfig, TrainingConfig
from ipslib.datasets.images.attention import Attention, attention_of, class_named, number_of
from ipslib.datasets.images.attention_page import attention_page
from ipslib.datasets.images.config import OwnImagesConfig
from ipslib.datasets.images.own_images import describe_images, image_stamps
from ipslib.datasets.images.sources import PatchSource, SourceBatch, with_channels
from ipslib.datasets.registry import run_config
from ipslib.model.ips import IPSNet
from ipslib.paths import changed_files, found, from_here, from_project, stamp, write_atomically
from ipslib.runs import reporting
from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore
from ipslib.runtime import chosen_device
from ipslib.training import answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = str | Path | np.ndarray

_DEFAULTS = {"position_encoding": False, "memory_size": 50, "iter_size": 50}


@attrs.frozen
class TrainedImages:
    """A network trained on images of one's own; made by `train_images`."""

    record: dict = attrs.field(repr=False)
    config: RunConfig = attrs.field(repr=False)
    network: IPSNet = attrs.field(repr=False)
    skipped: tuple[str, ...] = ()  # sentences about images that could not be used
    notes: tuple[str, ...] = ()  # sentences about how the table was read and split

    @property
    def accuracy(self) -> dict[str, float]:
        """Of the last epoch on the test images, or with validation images of the epoch that did
        best on them, by task of classes; of several labels, that all of them are right."""
        return self.record["result"]["accuracy"]

    @property
    def measures(self) -> dict[str, dict[str, float]]:
        """As `accuracy`, by name and task: balanced accuracy and AUC; of numbers R2 and the mean
        absolute error, in the units of the table."""
        return self.record["result"].get("measures", {})

    @property
    def chance(self) -> dict[str, float]:
        """Share of the test images that the most frequent class has, by task."""
        return self.record["result"]["chance"]

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
                shares = (logits.sigmoid() if is_set else logits.softmax(dim=0)).tolist()
                best = class_named(np.array(shares), names, is_set)
                row = {"image": name, "task": task, "predicted": best}
                columns = [f"{name} (class)" if name in row else name for name in names]
                rows.append(row | dict(zip(columns, shares, strict=True)))
        return pd.DataFrame(rows)

    def attention_map(self, image: Image, *, scale: str = "rank") -> "Figure":
        """Draw what the network kept of an image, coloured by attention, and its boxes, where
        they are known.

        Args:
            image: a file or an array, as for training.
            scale: `rank`, `linear` or `log`, see `ipslib.datasets.maps`.
        """
        from matplotlib import pyplot as plt

        from ipslib.datasets.maps import attention_figure, map_of

        source, attention = self._attention(image)
        boxes, title = self._boxes(image), Path(source.name).name
        kept_patches = map_of(source, attention, title=title, boxes=boxes)
        figure = attention_figure([kept_patches], scale=scale, box_name="object")
        plt.close(figure)  # returned, not left to be shown a second time
        return figure

    def attention_page(self, image: Image, path: str | Path, **options: object) -> Path:
        """Write a page of an image, of what the network kept of it and of its boxes, where they
        are known; `options` as of `ipslib.attention_page`."""
        source, attention = self._attention(image)
        options = {"boxes": self._boxes(image)} | options
        return attention_page(source, attention, from_here(path), **options)

    def _attention(self, image: Image) -> tuple[PatchSource, Attention]:
        batch, data = self._batch(image), self.config.data
        names = {"classes": data.classes, "several": data.several, "numbers": data.numbers}
        return batch.sources[0], attention_of(self.network, batch, **names)

    def _boxes(self, image: Image) -> np.ndarray | None:
        return None if isinstance(image, np.ndarray) else self.config.data.boxes_of(image)

    def _batch(self, image: Image) -> SourceBatch:
        image = found(image) if isinstance(image, str | Path) else image
        data = self.config.data
        return SourceBatch([with_channels(data.open(image), data.in_channels)])


def train_images(
    labels: str | Path,
    *,
    folder: str | Path,
    device: str | None = None,
    group: str | None = None,
    tasks: str | Sequence[str] | None = None,
    several: str | Sequence[str] = (),
    numbers: str | Sequence[str] = (),
    boxes: str | Path = "",
    **fields: object,
) -> TrainedImages:
    """Train on images of one's own; called again, it goes on from where it was, or is done.

    It is done only if labels, images and settings are the same; which files are not is said.

    Args:
        labels: a CSV of images and labels, see `ipslib.datasets.images.own_images`.
        folder: where record, weights and checkpoints go.
        device: `cpu` or `cuda`; a GPU where there is one if None.
        group: the column of what images belong to, such as `patient`: they are not split. The one
            that is called so if None, none if empty.
        tasks: the columns of labels; all others if None. Their values are classes, but for:
        several: columns of sets of labels, `a|b`.
        numbers: columns of numbers.
        boxes: a CSV of what is to be found, see `ipslib.datasets.images.boxes`.
        fields: of `OwnImagesConfig`, `ModelConfig` and `TrainingConfig`: `patch_size`, `epochs`,
            `weights="imagenet_v1"`, `validation=0.15`, `flips="both"`, `class_weights="balanced"`,
            ... Images have no published defaults: M = I = 50 and no position encoding unless said
            otherwise, and nothing is augmented.

    Raises:
        IpslibError: for labels, images, settings or a device that cannot be used, before anything
            is trained; a single image that cannot be read whole is left out and named in `skipped`.
    """
    device, store = chosen_device(device), RecordStore(from_here(folder))
    known = {field.name for of in (ModelConfig, TrainingConfig) for field in attrs.fields(of)}
    settings = _DEFAULTS | {name: value for name, value in fields.items() if name in known}
    described = {name: value for name, value in fields.items() if name not in known}
    memory = store.folder / ".contents" / f"{Path(labels).name}.json"
    try:
        before = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):  # none, or torn: all is read anew
        before = {}
    described |= {"several": several, "numbers": numbers, "boxes": boxes}
    data = describe_images(labels, group=group, tasks=tasks, known=before, **described)
    config = run_config({"dataset": data.kind} | attrs.asdict(data) | settings)
    record = store.find(config)
    if record is None:
        after = image_stamps(data, before)
        after |= {table: stamp(from_project(table)) for table in (data.labels, data.boxes) if table}
        changed = changed_files(before, after) if data.labels in before else []
        images = data.open_split("train")
        data.open_split("test").batch([0])
        _say(data, images.skipped, images.notes, changed)
        with suppress(OSError):  # a folder that cannot be written is told with the run
            write_atomically(memory, json.dumps(after))
        with reporting([], [config]) as report:
            record = train_and_record(config, store, device=device, report=report)
    else:
        of_images = record["provenance"]
        _say(data, of_images["skipped"], of_images["notes"])
    skipped, notes = (tuple(record["provenance"][of]) for of in ("skipped", "notes"))
    return TrainedImages(record, config, store.load_network(record), skipped, notes)


def _say(
    data: OwnImagesConfig, skipped: Sequence[str], notes: Sequence[str], changed: Sequence[str] = ()
) -> None:
    """What a person is to know of the images, before they are trained on."""
    told = [f"{Path(data.labels).name}: {note}" for note in notes]
    if changed:
        others = f" and {len(changed) - 5} more" * (len(changed) > 5)
        anew = f"trained anew, since these are others than before: {', '.join(changed[:5])}"
        told.insert(0, anew + others)
    if skipped:
        told += [f"left out, {len(skipped)} in all:", *skipped]
    for sentence in told:
        print(sentence, file=sys.stderr)
