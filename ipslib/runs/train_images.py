"""Train on images of one's own, name what is on further ones, and see where the network looks.

trained = train_images("labels.csv", patch_size=100, epochs=30, folder="outputs/mine")
print(trained.accuracy, trained.predict(["new.jpg"]))
trained.attention_map("new.jpg").savefig("map.png")
trained.save("model.ipslib")  # one file for another machine: load("model.ipslib")
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pandas as pd
from torch import bfloat16, nn

from ipslib.config import ARITHMETIC, ModelConfig, RunConfig, TrainingConfig, arithmetic_of
from ipslib.datasets.images.attention import Attention, attention_of, to_geojson
from ipslib.datasets.images.attention_page import attention_page
from ipslib.datasets.images.own_images import OwnImagesConfig, describe_images, image_stamps
from ipslib.datasets.images.sources import SourceBatch, with_channels
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.paths import changed_files, found, from_here, from_project, stamp, write_atomically
from ipslib.runs import reporting
from ipslib.runs.model_file import read_model, write_model
from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore
from ipslib.runtime import chosen_device
from ipslib.training import answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = str | Path | np.ndarray

# of images, for which none are published
DEFAULTS = {"position_encoding": False, "memory_size": 50, "iter_size": 50}


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
        """A network from elsewhere: an original checkpoint, or trained in a loop of one's own.

        Args:
            network: in evaluation mode or not; it is not copied.
            patch_size: in pixels.
            classes: names of the outputs by task; 0, 1, 2, ... for a task that is not in it.
            fields: others of `OwnImagesConfig`, such as `patch_stride`.
        """
        heads = zip(network.tasks, network.heads.values(), strict=True)
        names = {task: [str(i) for i in range(head.out_features)] for task, head in heads}
        names |= {task: list(of_task) for task, of_task in (classes or {}).items()}
        for task, head in zip(network.tasks, network.heads.values(), strict=True):
            if list(names) != list(network.tasks) or len(names[task]) != head.out_features:
                raise IpslibError(
                    f"classes: wanted {head.out_features} names of {task}, and none of other tasks "
                    f"than {', '.join(network.tasks)}, got {classes}."
                )
        data = OwnImagesConfig(
            labels="",
            labels_sha256="",
            classes=names,
            in_channels=network.in_channels,
            patch_size=patch_size,
            **fields,
        )
        precision = "bf16" if network.precision == bfloat16 else "fp32"
        training = TrainingConfig(precision=precision)
        config = RunConfig(data=data, model=network.config, training=training)
        return cls({"arithmetic": ARITHMETIC, "result": {}}, config, network)

    @property
    def accuracy(self) -> dict[str, float]:
        """Of the last epoch on the test images, by task."""
        return self.record["result"].get("accuracy", {})

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
        """Classify images, one at a time.

        Args:
            images: files or arrays, or a single one.

        Returns:
            A row an image and task: `image`, `task`, `predicted` and a column of probability for
            each class of the task; that of a class called like one of these three is followed by
            ` (class)`.
        """
        several = isinstance(images, Iterable) and not isinstance(images, str | bytes)
        if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # no paths
            several = images.ndim > 3
        images = images if several else [images]
        rows = []
        for image in images:
            batch = self._batch(image)
            output = answer(self.network, batch)
            for task, names in self.config.data.classes.items():
                shares = output.logits[task][0].softmax(dim=0).tolist()
                best = names[int(np.argmax(shares))]
                row = {"image": batch.sources[0].name, "task": task, "predicted": best}
                columns = [f"{name} (class)" if name in row else name for name in names]
                rows.append(row | dict(zip(columns, shares, strict=True)))
        return pd.DataFrame(rows)

    def attention(self, image: Image) -> Attention:
        """What the network keeps of an image, how it attends to it and what it answers."""
        return attention_of(self.network, self._batch(image), classes=self.config.data.classes)

    def attention_map(
        self,
        image: Image,
        *,
        scale: str = "rank",
        attention: Attention | None = None,
        **part: object,
    ) -> "Figure":
        """Draw what the network kept of an image, coloured by attention.

        Args:
            image: a file or an array, as for training.
            scale: `rank`, `linear` or `log`, see `ipslib.datasets.maps`.
            attention: of the image, where it is there already.
            part: `task` and `head`; the mean over all of them without.
        """
        from matplotlib import pyplot as plt

        from ipslib.datasets.maps import attention_figure, map_of

        source = self._batch(image).sources[0]
        attention = attention or self.attention(image)
        kept_patches = map_of(source, attention, title=Path(source.name).name, **part)
        figure = attention_figure([kept_patches], scale=scale)
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
        """Write an HTML page to zoom into what the network kept of an image; `options` are those of
        `ipslib.attention_page`."""
        source = self._batch(image).sources[0]
        return attention_page(source, attention or self.attention(image), path, **options)

    def to_geojson(
        self,
        image: Image,
        path: str | Path | None = None,
        *,
        attention: Attention | None = None,
        **options: object,
    ) -> dict:
        """The kept patches of an image for QuPath; `options` are those of `ipslib.to_geojson`."""
        return to_geojson(attention or self.attention(image), path, **options)

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


def train_images(
    labels: str | Path,
    *,
    folder: str | Path,
    device: str | None = None,
    group: str | None = None,
    tasks: str | Sequence[str] | None = None,
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
        tasks: the columns of labels; all others if None.
        fields: of `OwnImagesConfig`, `ModelConfig` and `TrainingConfig`: `patch_size`, `epochs`,
            `weights="imagenet_v1"`, ... Images have no published defaults: M = I = 50 and no
            position encoding unless said otherwise.

    Raises:
        IpslibError: for labels, images, settings or a device that cannot be used, before anything
            is trained; a single image that cannot be read whole is left out and named in `skipped`.
    """
    device, store = chosen_device(device), RecordStore(from_here(folder))
    known = {field.name for of in (ModelConfig, TrainingConfig) for field in attrs.fields(of)}
    settings = DEFAULTS | {name: value for name, value in fields.items() if name in known}
    described = {name: value for name, value in fields.items() if name not in known}
    memory = store.folder / ".contents" / f"{Path(labels).name}.json"
    try:
        before = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):  # none, or torn: all is read anew
        before = {}
    data = describe_images(labels, group=group, tasks=tasks, known=before, **described)
    config = run_config({"dataset": data.kind} | attrs.asdict(data) | settings)
    record = store.find(config)
    if record is None:
        after = image_stamps(data, before) | {data.labels: stamp(from_project(data.labels))}
        changed = changed_files(before, after) if data.labels in before else []
        images = data.open_split("train")
        data.open_split("test").batch([0])
        _say(data, images.skipped, images.notes, changed)
        with suppress(OSError):  # a folder that cannot be written is told with the run
            write_atomically(memory, json.dumps(after))
        with reporting([], [config]) as report:
            record = train_and_record(config, store, device=device, report=report)
            report({"event": "run", "id": config.id, "status": "made"})
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
