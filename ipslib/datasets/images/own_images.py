"""Images of one's own, named with their labels in a CSV: one line an image, one column a task.

    image,split,species
    photos/0001.jpg,train,oak
    photos/0002.jpg,test,beech

`image` is a path relative to the CSV (README.md here says what is read), `split` may be left out.
Every other column is a task, its values are the classes.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import attrs
import torch

from ipslib.datasets.images.own_files import Labelled, readable
from ipslib.datasets.images.sources import (
    PatchSource,
    SourceBatch,
    checked,
    open_source,
    with_channels,
)
from ipslib.datasets.megapixel_mnist.randomness import SPLITS
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice, integer, number
from ipslib.patches import MixedBatch
from ipslib.paths import from_project, inside_project

IMAGE, SPLIT = "image", "split"


@attrs.frozen(kw_only=True)
class OwnImagesConfig:
    """Images of one's own; made by `describe_images`, which reads what the CSV says.

    The hash is of the CSV, so that a run belongs to the labels it was trained on.
    """

    labels: str  # path of the CSV, relative to the project where it lies inside
    labels_sha256: str
    classes: dict[str, list[str]]  # by task, in the order of the outputs
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


def describe_images(labels: str | Path, **fields: object) -> OwnImagesConfig:
    """Read a CSV of labels into a configuration.

    Args:
        labels: the CSV.
        fields: of `OwnImagesConfig`, such as `patch_size`.

    Raises:
        IpslibError: when the CSV is missing or not as described above, or no image can be read.
    """
    table = read_labels(labels)
    classes = {task: sorted(set(table[task])) for task in _tasks(table)}
    for task, names in classes.items():
        if len(names) < 2:
            raise IpslibError(
                f"{labels}: wanted at least two classes in column {task}, got {names}; label more "
                "images or leave the column out."
            )
    content = {"labels": inside_project(labels), "labels_sha256": _sha256(labels)}
    try:
        config = OwnImagesConfig(**content, classes=classes, **fields)
    except TypeError as error:
        known = [field.name for field in attrs.fields(OwnImagesConfig)]
        wrong = next(name for name in fields if name not in known)
        raise IpslibError(
            f"{wrong!r} is no field of images{did_you_mean(wrong, known)}."
        ) from error
    channels = Counter(image.source.patch_shape[0] for image in _readable(config, table[IMAGE]))
    if not channels:
        raise IpslibError(
            f"{labels}: wanted images beside it, could read none of the {len(table[IMAGE])} it "
            f"names (the first is {table[IMAGE][0]}); correct the column {IMAGE}."
        )
    most = channels.most_common(1)[0][0]
    return attrs.evolve(config, in_channels=3 if most == 1 and 3 in channels else most)


def read_labels(labels: str | Path) -> dict[str, list[str]]:
    """The columns of a CSV of labels, checked.

    Raises:
        IpslibError: when it is missing, or a line or column is not as it should be.
    """
    try:
        with open(labels, newline="", encoding="utf-8-sig") as file:
            header, *rows = csv.reader(file, skipinitialspace=True, strict=True)
    except FileNotFoundError:
        raise IpslibError(
            f"{labels}: wanted a CSV of labels, found nothing; correct the path."
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise IpslibError(
            f"{labels}: wanted a CSV of labels, could not read it ({error}); correct the file."
        ) from error
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or not all(map(str.strip, row)):
            raise IpslibError(
                f"{labels}: wanted a value in each of the columns {', '.join(header)}, got {row} "
                f"in line {line}; correct or delete the line."
            )
    table = {name.strip(): [row[i].strip() for row in rows] for i, name in enumerate(header)}
    if IMAGE not in table or not _tasks(table) or not rows:
        raise IpslibError(
            f"{labels}: wanted lines under a column {IMAGE!r} and at least one column of labels, "
            f"got {len(rows)} lines under {', '.join(table)}; add what is missing."
        )
    images = table[IMAGE]
    line = next((i for i, name in enumerate(images) if name in images[:i]), None)
    if line is not None:
        raise IpslibError(
            f"{labels}: wanted one line an image, got a second one of {images[line]} in line "
            f"{line + 2}; delete the wrong one."
        )
    if set(table.get(SPLIT, SPLITS)) != set(SPLITS):
        raise IpslibError(
            f"{labels}: wanted train and test in column {SPLIT}, got "
            f"{', '.join(sorted(set(table[SPLIT])))}; correct the column or leave it out."
        )
    return table


@attrs.frozen
class OwnImages:
    """One split. Images that cannot be read are left out and named in `skipped`."""

    grid = None
    uneven = True
    config: OwnImagesConfig
    split: str = choice("train", tuple(SPLITS))

    def __len__(self) -> int:
        return len(self._found)

    @property
    def skipped(self) -> tuple[str, ...]:
        """A sentence for every image of either split that could not be used."""
        return self._opened[1]

    def augmented(self, *, seed: int, epoch: int) -> "OwnImages":
        """The set itself: nothing is known of what may be done to its images."""
        return self

    def batch(self, indices: Sequence[int]) -> MixedBatch:
        """Several images as one batch."""
        found = [self._found[int(index)] for index in indices]
        labels = {
            task: torch.tensor([names.index(self._table[task][image.line]) for image in found])
            for task, names in self.config.classes.items()
        }
        return MixedBatch([SourceBatch([image.source]) for image in found], labels=labels)

    def labels(self, task: str) -> list[str]:
        """The class of every image, by name."""
        return [self._table[task][image.line] for image in self._found]

    @property
    def chance(self) -> dict[str, float]:
        """Share of the most frequent class, by task."""
        tasks = self.config.classes
        return {task: max(Counter(self.labels(task)).values()) / len(self) for task in tasks}

    @property
    def provenance(self) -> dict[str, object]:
        return {"labels_sha256": self.config.labels_sha256, "n_skipped": len(self.skipped)}

    @property
    def names(self) -> list[str]:
        return [image.source.name for image in self._found]

    @cached_property
    def _table(self) -> dict[str, list[str]]:
        config = self.config
        path = from_project(config.labels)
        if _sha256(path) != config.labels_sha256:
            raise IpslibError(
                f"{config.labels}: wanted the labels that this run was described with, got a file "
                "that has changed since; describe the images anew."
            )
        return read_labels(path)

    @cached_property
    def _opened(self) -> tuple[list[Labelled], tuple[str, ...]]:
        skipped: list[str] = []
        found = []
        for image in _readable(self.config, self._table[IMAGE], skipped):
            try:
                source = with_channels(image.source, self.config.in_channels)
                found.append(image._replace(source=source))
            except IpslibError as error:
                skipped.append(str(error))
        return found, tuple(skipped)

    @cached_property
    def _found(self) -> list[Labelled]:
        """The split's images."""
        table, found = self._table, self._opened[0]
        if SPLIT in table:
            of_split = [image for image in found if table[SPLIT][image.line] == self.split]
        else:
            of_split = self._split(found)
        if not of_split:
            raise IpslibError(
                f"{self.config.labels}: wanted images to {self.split} on, can read none; see to "
                "the files it names."
            )
        return of_split

    def _split(self, found: list[Labelled]) -> list[Labelled]:
        """A share of each class of the first task is for testing."""
        from sklearn.model_selection import train_test_split  # brings pandas along

        config = self.config
        task = next(iter(config.classes))
        strata = [self._table[task][image.line] for image in found]
        try:
            parts = train_test_split(
                found,
                test_size=config.test_share,
                stratify=strata,
                random_state=config.split_seed,
            )
        except ValueError as error:
            raise IpslibError(
                f"{config.labels}: wanted enough images of each class of {task} to train and test "
                f"on, got {dict(Counter(strata))}; add images, or a column "
                f"{SPLIT} of train and test."
            ) from error
        return parts[SPLITS[self.split]]


def _readable(
    config: OwnImagesConfig, names: Sequence[str], skipped: list[str] | None = None
) -> Iterator[Labelled]:
    """Images by name; sentences about those that cannot be read are added to `skipped`."""
    folder = from_project(config.labels).parent
    cut = config.patch_size, config.patch_stride, config.level
    files = [folder / name for name in names]
    return readable(files, lambda file: checked(config.open(file)), settings=cut, skipped=skipped)


def _tasks(table: dict[str, list[str]]) -> list[str]:
    return [column for column in table if column not in (IMAGE, SPLIT)]


def _sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
