"""Images of one's own, named with their labels in a CSV: one line an image, one column a task.

    image,split,species
    photos/0001.jpg,train,oak
    photos/0002.jpg,test,beech

`image` is a path relative to the CSV (JPEG, PNG, TIFF, ...), `split` may be left out. Every
other column is a task, its values are the classes; but for one such as `patient`, whose images
stay together. What is read, refused and left out stands in README.md beside this module.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import attrs
import numpy as np
import torch

from ipslib.datasets.images import labels as tables
from ipslib.datasets.images.labels import IMAGE, SPLIT, Labels
from ipslib.datasets.images.own_files import Labelled, check_distinct, files_of, readable, stamps
from ipslib.datasets.images.sources import (
    PatchSource,
    SourceBatch,
    open_source,
    with_channels,
)
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice, integer, number
from ipslib.patches import SPLITS, MixedBatch
from ipslib.paths import Stamp, digest_of, found, from_project, inside_project, stamp


@attrs.frozen(kw_only=True)
class OwnImagesConfig:
    """Images of one's own; made by `describe_images`, which reads what the CSV says.

    The hashes are of the CSV and of all images that it names, so that a run belongs to what it was
    trained on.
    """

    labels: str  # path of the CSV, relative to the project where it lies inside
    labels_sha256: str
    images_sha256: str = ""  # empty: of a run from before images counted
    classes: dict[str, list[str]]  # by task, in the order of the outputs
    group: str = ""  # column of what images belong to, which stays in one part
    in_channels: int = integer(1)
    patch_size: int = integer(50, at_least=4)
    patch_stride: int = integer(lambda self: self.patch_size)
    level: int = integer(0, at_least=0)  # of a pyramidal TIFF
    test_share: float = number(0.2, at_least=0.01, at_most=0.99)  # where there is no split
    split_seed: int = integer(0, at_least=0)

    kind = "own_images"
    is_synthetic = False
    grid = None  # images may differ in size

    def open_split(self, split: str) -> "OwnImages":
        return OwnImages(self, split)

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return {task: len(names) for task, names in self.classes.items()}

    @property
    def source(self) -> str:
        return f"the images of {Path(self.labels).name}"

    @property
    def short_name(self) -> str:
        return f"images_{Path(self.labels).stem}_PS_{self.patch_size}"

    def open(self, image: str | Path) -> PatchSource:
        """Any image as patches of this size."""
        level = {"level": self.level} if self.level else {}
        return open_source(
            image, patch_size=self.patch_size, patch_stride=self.patch_stride, **level
        )


def describe_images(
    labels: str | Path,
    *,
    group: str | None = None,
    tasks: str | Sequence[str] | None = None,
    known: Mapping[str, Sequence] | None = None,
    **fields: object,
) -> OwnImagesConfig:
    """Read a CSV of labels into a configuration.

    Args:
        labels: the CSV.
        group, tasks: its columns, see `ipslib.datasets.images.labels.read_labels`.
        known: earlier `image_stamps`, so that images are not all hashed again.
        fields: of `OwnImagesConfig`, such as `patch_size`.

    Raises:
        IpslibError: when the CSV is missing or not as described above, two lines name one image,
            or no image can be read.
    """
    path = found(labels)
    table = tables.read_labels(path, group=group, tasks=tasks)
    check_distinct(path, table)
    content = {
        "labels": inside_project(path),
        "labels_sha256": stamp(path).sha256,
        "images_sha256": digest_of(stamps(path.parent, table.columns[IMAGE], known)),
        "classes": {task: sorted(set(table.columns[task])) for task in table.tasks},
        "group": table.group,
    }
    for task, names in content["classes"].items():
        if len(names) < 2:
            raise IpslibError(f"{path}: wanted two classes in column {task!r}, got {names}.")
    try:
        config = OwnImagesConfig(**content, **fields)
    except TypeError as error:
        known_fields = [field.name for field in attrs.fields(OwnImagesConfig)]
        wrong = next(name for name in fields if name not in known_fields)
        raise IpslibError(
            f"{wrong!r} is no field of images{did_you_mean(wrong, known_fields)}."
        ) from error
    skipped: list[str] = []
    opened = _readable(config, table, skipped, whole=False)
    channels = Counter(image.source.patch_shape[0] for image in opened)
    if not channels:
        has_suffix = any(Path(name).suffix for name in table.columns[IMAGE])
        hint = "" if has_suffix else ", whose names have no suffix"
        raise IpslibError(
            f"{path}: wanted images beside it, could read none of the {len(skipped)} that it "
            f"names; correct the column {IMAGE}{hint}. The first is left out: {skipped[0]}"
        )
    most = channels.most_common(1)[0][0]
    return attrs.evolve(config, in_channels=3 if most == 1 and 3 in channels else most)


def read_labels(labels: str | Path, **columns: object) -> dict[str, list[str]]:
    """The columns of a CSV that say something of images, checked; see
    `ipslib.datasets.images.labels.read_labels` for `group`, `tasks` and what is refused."""
    return tables.read_labels(found(labels), **columns).columns


def image_stamps(
    config: OwnImagesConfig, known: Mapping[str, Sequence] | None = None
) -> dict[str, Stamp]:
    """What the images that the CSV names hold, by name; without those that are not there."""
    return stamps(from_project(config.labels).parent, _labels_of(config).columns[IMAGE], known)


def _labels_of(config: OwnImagesConfig) -> Labels:
    path, tasks = from_project(config.labels), list(config.classes)
    return tables.read_labels(path, group=config.group, tasks=tasks)


def _readable(
    config: OwnImagesConfig, table: Labels, skipped: list[str], *, whole: bool
) -> Iterator[Labelled]:
    """Images that can be opened, or read whole; sentences about the others go to `skipped`."""
    files = files_of(from_project(config.labels).parent, table.columns[IMAGE])
    cut = config.patch_size, config.patch_stride, config.level
    return readable(files, config.open, settings=cut, whole=whole, skipped=skipped)


@attrs.frozen
class OwnImages:
    """One split. Images that cannot be read whole are left out and named in `skipped`.

    Raises:
        IpslibError: when the CSV or an image is another than was described, or a part lacks
            images, or those to train on a class.
    """

    grid = None
    uneven = True
    config: OwnImagesConfig
    split: str = choice("train", tuple(SPLITS))

    def __len__(self) -> int:
        return len(self._images)

    @property
    def skipped(self) -> tuple[str, ...]:
        """A sentence for every image of either split that could not be used."""
        return self._readable[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on how the table was read, and on what the parts do to what was measured."""
        return (*self._labels.notes, *self._doubtful)

    def augmented(self, *, seed: int, epoch: int) -> "OwnImages":
        """The set itself: nothing is known of what may be done to its images."""
        return self

    def batch(self, indices: Sequence[int]) -> MixedBatch:
        """Several images as one batch."""
        images = [self._images[int(index)] for index in indices]
        labels = {
            task: torch.tensor([names.index(self._column(task)[image.line]) for image in images])
            for task, names in self.config.classes.items()
        }
        return MixedBatch([SourceBatch([image.source]) for image in images], labels=labels)

    def labels(self, task: str) -> list[str]:
        """What a column says of every image: its class, its group."""
        return [self._column(task)[image.line] for image in self._images]

    @property
    def chance(self) -> dict[str, float]:
        """Share of the most frequent class, by task."""
        tasks = self.config.classes
        return {task: max(Counter(self.labels(task)).values()) / len(self) for task in tasks}

    @property
    def provenance(self) -> dict[str, object]:
        """What the images are, and what a person is to know of them."""
        return {
            "labels_sha256": self.config.labels_sha256,
            "images_sha256": self.config.images_sha256,
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "notes": list(self.notes),
        }

    @property
    def names(self) -> list[str]:
        return [image.source.name for image in self._images]

    @property
    def _images(self) -> list[Labelled]:
        return self._parts[self.split]

    def _column(self, name: str) -> list[str]:
        return self._labels.columns[name]

    @cached_property
    def _stamps(self) -> dict[str, Stamp]:
        return image_stamps(self.config)

    @cached_property
    def _labels(self) -> Labels:
        config = self.config
        if stamp(from_project(config.labels)).sha256 != config.labels_sha256:
            raise IpslibError(
                f"{config.labels}: wanted the labels that this run was described with, got a file "
                "that has changed since; describe the images anew."
            )
        if config.images_sha256 not in ("", digest_of(self._stamps)):
            raise IpslibError(
                f"{config.labels}: wanted the images that this run was described with, got others "
                "under their names; describe the images anew."
            )
        return _labels_of(config)

    @cached_property
    def _readable(self) -> tuple[list[Labelled], tuple[str, ...]]:
        """Images that can be read whole, and why the others are left out."""
        skipped: list[str] = []
        images = []
        for image in _readable(self.config, self._labels, skipped, whole=True):
            try:
                source = with_channels(image.source, self.config.in_channels)
                images.append(image._replace(source=source))
            except IpslibError as error:
                skipped.append(str(error))
        folder = f"{from_project(self.config.labels).parent}{os.sep}"
        return images, tuple(sentence.replace(folder, "") for sentence in skipped)

    @cached_property
    def _parts(self) -> dict[str, list[Labelled]]:
        """The images of each split."""
        images, config = self._readable[0], self.config
        if SPLIT in self._labels.columns:
            of_line = self._column(SPLIT)
            parts = {s: [image for image in images if of_line[image.line] == s] for s in SPLITS}
        else:
            parts = self._divided(images)
        for split, of_split in parts.items():
            if not of_split:
                raise IpslibError(
                    f"{config.labels}: wanted images to {split} on, got none; see to the files "
                    f"and groups that it names, or to the column {SPLIT}."
                )
        for task, names in config.classes.items():
            of_line = self._column(task)
            missing = set(names) - {of_line[image.line] for image in parts["train"]}
            if missing:
                raise IpslibError(
                    f"{config.labels}: wanted images of every class of {task} to train on, got "
                    f"none of {', '.join(sorted(missing))}; add some, delete these lines, or try "
                    "another split."
                )
        return parts

    def _divided(self, images: list[Labelled]) -> dict[str, list[Labelled]]:
        """Parts where the table names none. In random order, each group is for testing if that
        brings the classes of the first task nearer to their shares; a class that none of these has
        is tested on the smallest group that has it."""
        config, task = self.config, next(iter(self.config.classes))
        classes, of_line = config.classes[task], self._column(task)
        groups = self._column(config.group) if config.group else range(len(of_line))
        counts = {groups[image.line]: np.zeros(len(classes)) for image in images}
        for image in images:
            counts[groups[image.line]][classes.index(of_line[image.line])] += 1
        missing = config.test_share * sum(counts.values())
        names, chosen = sorted(counts), set()
        order = [names[i] for i in stream(config.split_seed, 0).permutation(len(names))]
        for group in order:
            if abs(missing - counts[group]).sum() < abs(missing).sum():
                chosen.add(group)
                missing = missing - counts[group]
        for i in range(len(classes)):
            with_it = [group for group in order if counts[group][i]]
            if len(with_it) > 1 and not chosen.intersection(with_it):
                chosen.add(min(with_it, key=lambda group: counts[group].sum()))
        parts = {"train": [], "test": []}
        for image in images:
            parts["test" if groups[image.line] in chosen else "train"].append(image)
        for of_split in parts.values():
            if {of_line[image.line] for image in of_split} != set(classes):
                n_images = Counter(of_line[image.line] for image in images)
                of_groups = f" in {len(counts)} of {config.group}" if config.group else ""
                raise IpslibError(
                    f"{config.labels}: wanted enough images of each class of {task} to train and "
                    f"test on, got {dict(n_images)}{of_groups}; add images, or a column {SPLIT} of "
                    "train and test."
                )
        return parts

    @property
    def _doubtful(self) -> list[str]:
        """What the parts do to what is measured: classes that are not tested, images in both."""
        notes, parts = [], self._parts
        for task, names in self.config.classes.items():
            tested = {self._column(task)[image.line] for image in parts["test"]}
            if untested := [name for name in names if name not in tested]:
                notes.append(f"no image to test on is of {task} {', '.join(untested)}.")
        names = self._column(IMAGE)
        trained = {self._stamps[names[image.line]].sha256: image.line for image in parts["train"]}
        twins = [
            f"{names[image.line]} = {names[trained[digest]]}"
            for image in parts["test"]
            if (digest := self._stamps[names[image.line]].sha256) in trained
        ]
        if twins:
            notes.append(
                f"{len(twins)} images to test on are trained on under other names ({twins[0]})."
            )
        return notes
