"""Images of one's own, named with their labels in a CSV: one line an image, one column a task.

    image,split,species
    photos/0001.jpg,train,oak
    photos/0002.jpg,test,beech

`image` is a path relative to the CSV (JPEG, PNG, TIFF, ...), `split` may be left out. What is read,
refused and left out stands in README.md beside this module.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path

import attrs
import numpy as np
import torch

from ipslib.datasets.images.image import FileId, file_id
from ipslib.datasets.images.labels import IMAGE, SPLIT, Table, read_labels
from ipslib.datasets.images.sources import PatchSource, SourceBatch, open_source, with_channels
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice, integer, number
from ipslib.patches import SPLITS, MixedBatch
from ipslib.paths import Stamp, digest_of, found, from_project, inside_project, stamp

_KEPT = 100_000  # sources that a process keeps, so that each file is opened once
_READ_AT_ONCE = 2**22  # pixels


@attrs.frozen(kw_only=True)
class OwnImagesConfig:
    """Images of one's own; made by `describe_images`, which reads what the CSV says. The hashes
    are of the CSV and of all images that it names: a run belongs to what it was trained on."""

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

    def open(self, image: str | Path | np.ndarray) -> PatchSource:
        """Any image as patches of this size."""
        cut = {"patch_size": self.patch_size, "patch_stride": self.patch_stride}
        return open_source(image, level=self.level, **cut)


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
        labels, group, tasks: the CSV and columns of it, see `read_labels`.
        known: earlier `image_stamps`, so that images are not all hashed again.
        fields: of `OwnImagesConfig`, such as `patch_size`.

    Raises:
        IpslibError: when the CSV is missing or unclear, two lines name one image, or no image can
            be read.
    """
    names = [field.name for field in attrs.fields(OwnImagesConfig)]
    for name in fields.keys() - {*names}:
        raise IpslibError(f"{name!r} is no field of images{did_you_mean(name, names)}.")
    path = found(labels)
    table = read_labels(path, group=group, tasks=tasks)
    _check_distinct(path, table)
    classes = {task: sorted(set(table.columns[task])) for task in table.tasks}
    for task, values in classes.items():
        if len(values) < 2:
            raise IpslibError(f"{path}: wanted two classes in column {task!r}, got {values}.")
    content = {"labels": inside_project(path), "labels_sha256": stamp(path).sha256}
    config = OwnImagesConfig(**content, classes=classes, group=table.group, **fields)
    sources, skipped = _sources(config, table, whole=False)
    channels = Counter(source.patch_shape[0] for source in sources.values())
    if not channels:
        raise IpslibError(
            f"{path}: wanted images, could read none of {len(skipped)}; see to the column {IMAGE}, "
            f"paths with their suffix. The first is left out: {skipped[0]}"
        )
    most = channels.most_common(1)[0][0]
    return attrs.evolve(
        config,
        in_channels=3 if most == 1 and 3 in channels else most,
        images_sha256=digest_of(image_stamps(config, known)),
    )


def image_stamps(
    config: OwnImagesConfig, known: Mapping[str, Sequence] | None = None
) -> dict[str, Stamp]:
    """What the images that the CSV names hold, by name; without those that are not there."""
    names = _table(config).columns[IMAGE]
    files = zip(names, files_of(from_project(config.labels).parent, names), strict=True)
    return {name: stamp(file, (known or {}).get(name)) for name, file in files if file.is_file()}


def files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where the images of a table lie; one from Windows has other slashes, and a Mac takes letters
    with accents apart."""
    files = []
    for name in names:
        slashed = name.replace("\\", "/")
        forms = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
        written = (folder / each for each in (name, slashed, *forms))
        files.append(next((file for file in written if file.exists()), folder / name))
    return files


def _table(config: OwnImagesConfig) -> Table:
    path, tasks = from_project(config.labels), list(config.classes)
    return read_labels(path, group=config.group, tasks=tasks)


def _check_distinct(path: Path, table: Table) -> None:
    """Refuse two lines of one image, however it is spelt, and say whether they contradict each
    other."""
    columns, by_name, by_file = table.columns, {}, {}
    for row, file in enumerate(files_of(path.parent, columns[IMAGE])):
        is_there, name = file.exists(), os.path.realpath(file).casefold()
        other, other_is_there = by_name.setdefault(name, (row, is_there))
        if is_there and other_is_there:  # then it is the file that counts, not its name
            other = by_file.setdefault(file.stat()[1:3], row)
        if other != row:
            one, same = (f"{columns[IMAGE][i]} in line {table.lines[i]}" for i in (other, row))
            differ = [task for task in table.tasks if columns[task][row] != columns[task][other]]
            raise IpslibError(
                f"{path}: wanted one line an image, got {one}, and the same as {same}, with other "
                f"labels of {', '.join(differ) or 'no task'}; delete the wrong one."
            )


def _sources(
    config: OwnImagesConfig, table: Table, *, whole: bool
) -> tuple[dict[int, PatchSource], tuple[str, ...]]:
    """The images that can be opened by row of the table, and a sentence about each other one; if
    `whole`, those that can be read to their end, and have as many channels as most."""
    folder = from_project(config.labels).parent
    sources, skipped = {}, []
    for row, file in enumerate(files_of(folder, table.columns[IMAGE])):
        try:
            cut = config.patch_size, config.patch_stride, config.level
            source = _opened(file_id(file), *cut, whole=whole)
            sources[row] = with_channels(source, config.in_channels) if whole else source
        except IpslibError as error:
            skipped.append(str(error).replace(f"{folder}{os.sep}", ""))
    return sources, tuple(skipped)


@lru_cache(maxsize=_KEPT)
def _opened(file: FileId, size: int, stride: int, level: int, *, whole: bool) -> PatchSource:
    """A file as it stands; if `whole`, it was read once from end to end: what is damaged there, or
    no number, is found before any work starts."""
    if not whole:
        return open_source(file.path, patch_size=size, patch_stride=stride, level=level)
    source = _opened(file, size, stride, level, whole=False)
    n_together = max(1, _READ_AT_ONCE // prod(source.patch_shape))
    for patches in torch.arange(source.n_patches).split(n_together):
        source.read(patches)
    return source


@attrs.define(slots=False)
class OwnImages:
    """One split: `names` of its images, what was `skipped` (a sentence for every image of either
    split that cannot be read whole), and `notes` on how the table was read and what the parts do
    to what is measured.

    Raises:
        IpslibError: when the CSV or an image is another than was described, or a part lacks
            images, or those to train on a class.
    """

    grid = None
    uneven = True
    config: OwnImagesConfig
    split: str = choice("train", tuple(SPLITS))

    def __attrs_post_init__(self) -> None:
        config, stamps = self.config, image_stamps(self.config)
        is_same = stamp(from_project(config.labels)).sha256 == config.labels_sha256
        if not is_same or config.images_sha256 not in ("", digest_of(stamps)):
            raise IpslibError(
                f"{config.labels}: wanted the labels and images that this run was described with, "
                "got others under their names; describe the images anew."
            )
        table = _table(config)
        sources, self.skipped = _sources(config, table, whole=True)
        parts = _parts(config, table.columns, list(sources))
        self.notes = (*table.notes, *_doubts(table, parts, stamps))
        rows = parts[self.split]
        self._sources = [sources[row] for row in rows]
        self._columns = {name: [cells[r] for r in rows] for name, cells in table.columns.items()}
        self.names = [source.name for source in self._sources]

    def __len__(self) -> int:
        return len(self._sources)

    def augmented(self, *, seed: int, epoch: int) -> "OwnImages":
        """The set itself: nothing is known of what may be done to its images."""
        return self

    def batch(self, indices: Sequence[int]) -> MixedBatch:
        """Several images as one batch."""
        labels = {
            task: torch.tensor([names.index(self._columns[task][i]) for i in indices])
            for task, names in self.config.classes.items()
        }
        return MixedBatch([SourceBatch([self._sources[i]]) for i in indices], labels=labels)

    def labels(self, column: str) -> list[str]:
        """Of every image: its class of a task, its group."""
        return self._columns[column]

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


def _parts(
    config: OwnImagesConfig, columns: Mapping[str, list[str]], rows: Sequence[int]
) -> dict[str, list[int]]:
    """The rows of each split."""
    split_of = columns.get(SPLIT) or _drawn(config, columns, rows)
    parts = {split: [row for row in rows if split_of[row] == split] for split in SPLITS}
    first = next(iter(config.classes))
    for split, of_split in parts.items():
        for task, names in config.classes.items():
            missing = set(names) - {columns[task][row] for row in of_split}
            may_lack = split == "test" and of_split and (SPLIT in columns or task != first)
            if missing and not may_lack:
                n_images = dict(Counter(columns[task][row] for row in rows))
                raise IpslibError(
                    f"{config.labels}: wanted images of every class of {task} to {split} on, got "
                    f"none of {', '.join(sorted(missing))} (in all: {n_images}); add some, delete "
                    f"these lines, or see to the groups or the column {SPLIT}."
                )
    return parts


def _drawn(
    config: OwnImagesConfig, columns: Mapping[str, list[str]], rows: Sequence[int]
) -> dict[int, str]:
    """The split of each row, where the table does not say. In random order, each group is for
    testing if that brings the classes of the first task nearer to their shares; a class that none
    of these has is tested on the smallest group that has it."""
    task, names = next(iter(config.classes.items()))
    of_class = np.array([names.index(columns[task][row]) for row in rows], int)
    group = [columns[config.group][row] for row in rows] if config.group else rows
    groups, of_group = np.unique(group, return_inverse=True)
    counts = np.zeros((len(groups), len(names)))
    np.add.at(counts, (of_group, of_class), 1)
    missing = config.test_share * counts.sum(axis=0)
    is_test = np.zeros(len(groups), bool)
    order = stream(config.split_seed, 0).permutation(len(groups))
    for i in order:
        if abs(missing - counts[i]).sum() < abs(missing).sum():
            is_test[i] = True
            missing = missing - counts[i]
    for of_one in counts.T:
        with_it = order[of_one[order] > 0]
        if len(with_it) > 1 and not is_test[with_it].any():
            is_test[min(with_it, key=lambda i: counts[i].sum())] = True
    return {row: "test" if is_test[i] else "train" for row, i in zip(rows, of_group, strict=True)}


def _doubts(table: Table, parts: Mapping[str, list[int]], stamps: Mapping[str, Stamp]) -> list[str]:
    """What the parts do to what is measured: classes that are not tested, images in both."""
    notes, images = [], table.columns[IMAGE]
    for task in table.tasks:
        of_train, of_test = ({table.columns[task][row] for row in rows} for rows in parts.values())
        if untested := sorted(of_train - of_test):
            notes.append(f"no image to test on is of {task} {', '.join(untested)}.")
    trained = {stamps[images[row]].sha256: images[row] for row in parts["train"]}
    tested = [(images[row], stamps[images[row]].sha256) for row in parts["test"]]
    twins = [f"{image} = {trained[digest]}" for image, digest in tested if digest in trained]
    if twins:
        told = f"trained on under other names ({twins[0]})"
        notes.append(f"{len(twins)} images to test on are {told}.")
    return notes
