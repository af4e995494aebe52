"""Images of one's own, named with their labels in a CSV: one line an image, one column a task.

    image,split,species
    photos/0001.jpg,train,oak
    photos/0002.jpg,test,beech

`image` is a path relative to the CSV (JPEG, PNG, TIFF, ...), `split` may be left out. What is read,
refused and left out stands in README.md beside this module.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from math import prod
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ipslib.datasets.images.augmentation import (
    TURNS,
    UPRIGHT,
    Adjustments,
    draw_adjustments,
    draw_shift,
    draw_turn,
    shifted_boxes,
    turned_boxes,
)
from ipslib.datasets.images.boxes import Boxes
from ipslib.datasets.images.config import OwnImagesConfig
from ipslib.datasets.images.image import FileId, file_id
from ipslib.datasets.images.labels import IMAGE, Table, files_of, labels_in, read_labels
from ipslib.datasets.images.sources import (
    PatchSource,
    SourceBatch,
    batch_of,
    open_source,
    with_channels,
)
from ipslib.datasets.images.splits import VALIDATION, doubts, parts_of
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice
from ipslib.patches import SPLITS, MixedBatch, check_augmented
from ipslib.paths import Stamp, digest_of, found, from_project, inside_project, stamp

_KEPT = 100_000  # sources that a process keeps, so that each file is opened once
_READ_AT_ONCE = 2**22  # pixels
_AUGMENT_KEY = 2


def describe_images(
    labels: str | Path,
    *,
    group: str | None = None,
    tasks: str | Sequence[str] | None = None,
    several: str | Sequence[str] = (),
    numbers: str | Sequence[str] = (),
    boxes: str | Path = "",
    known: Mapping[str, Sequence] | None = None,
    **fields: object,
) -> OwnImagesConfig:
    """Read a CSV of labels into a configuration.

    Args:
        labels, group, tasks, several, numbers: the CSV and columns of it, see `read_labels`.
        boxes: a CSV of what is to be found, see `ipslib.datasets.images.boxes`.
        known: earlier `image_stamps`, so that images are not all hashed again.
        fields: of `OwnImagesConfig`, such as `patch_size`. `class_weights` of a single task may
            be by class alone.

    Raises:
        IpslibError: when the CSV is missing or unclear, two lines name one image, no image can be
            read, or an option makes no sense.
    """
    names = [field.name for field in attrs.fields(OwnImagesConfig) if not field.inherited]
    for name in fields.keys() - {*names}:
        raise IpslibError(f"{name!r} is no field of images{did_you_mean(name, names)}.")
    several, numbers = (
        [columns] if isinstance(columns, str) else list(columns) for columns in (several, numbers)
    )
    path = found(labels)
    table = read_labels(path, group=group, tasks=tasks, several=several, numbers=numbers)
    _check_distinct(path, table)
    classes = {
        task: sorted({each for c in table.columns[task] for each in labels_in(c, task in several)})
        for task in table.tasks
        if task not in numbers
    }
    for task, values in classes.items():
        if len(values) < 2 - (task in several):
            raise IpslibError(f"{path}: wanted two classes in column {task!r}, got {values}.")
    content = {"labels": inside_project(path), "labels_sha256": stamp(path).sha256}
    if boxes:
        of_boxes = found(boxes)
        content |= {"boxes": inside_project(of_boxes), "boxes_sha256": stamp(of_boxes).sha256}
    weights = fields.get("class_weights")
    if isinstance(weights, Mapping) and len(classes) == 1 and {*weights}.isdisjoint(classes):
        fields["class_weights"] = {next(iter(classes)): weights}
    config = OwnImagesConfig(
        **content,
        **fields | {"in_channels": 3},  # until they are counted
        classes=classes,
        several=several,
        numbers={task: [0.0, 1.0] for task in numbers},
        group=table.group,
    )
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
        numbers=_scales(config, table, list(sources)),
        in_channels=3 if most == 1 and 3 in channels else most,
        images_sha256=digest_of(image_stamps(config, known)),
    )


def _scales(config: OwnImagesConfig, table: Table, rows: Sequence[int]) -> dict[str, list[float]]:
    """Mean and deviation of the numbers to train on, by task."""
    scales = {}
    train = parts_of(config, table.columns, rows)["train"] if config.numbers else ()
    for task in config.numbers:
        values = np.array([table.columns[task][row] for row in train], float)
        scales[task] = [float(values.mean()), float(values.std())]
        if not np.ptp(values):  # the deviation of 0.1, 0.1, 0.1 is not 0
            raise IpslibError(
                f"{config.labels}: wanted numbers that differ in column {task!r}, got {values[0]:g}"
                " in every image to train on."
            )
    return scales


def image_stamps(
    config: OwnImagesConfig, known: Mapping[str, Sequence] | None = None
) -> dict[str, Stamp]:
    """What the images that the CSV names hold, by name; without those that are not there."""
    names = _table(config).columns[IMAGE]
    files = zip(names, files_of(from_project(config.labels).parent, names), strict=True)
    return {name: stamp(file, (known or {}).get(name)) for name, file in files if file.is_file()}


def _table(config: OwnImagesConfig) -> Table:
    columns = {"tasks": config.tasks, "several": config.several, "numbers": [*config.numbers]}
    return read_labels(from_project(config.labels), group=config.group, **columns)


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
    """One part: `names` of its images, what was `skipped` (a sentence for every image of any part
    that cannot be read whole), and `notes` on how the table was read and what the parts do to what
    is measured.

    Raises:
        IpslibError: when a CSV or an image is another than was described, a box lies outside its
            image, or a part lacks images, or those to train on a class.
    """

    grid = None
    uneven = True
    config: OwnImagesConfig
    split: str = choice("train", (*SPLITS, VALIDATION))

    def __attrs_post_init__(self) -> None:
        config, stamps = self.config, image_stamps(self.config)
        tables = [(config.labels, config.labels_sha256), (config.boxes, config.boxes_sha256)]
        files = [(from_project(path), digest) for path, digest in tables if path]
        is_same = all(file.is_file() and stamp(file).sha256 == digest for file, digest in files)
        if not is_same or config.images_sha256 not in ("", digest_of(stamps)):
            raise IpslibError(
                f"{config.labels}: wanted the labels, boxes and images that this run was described "
                "with, got others under their names; describe the images anew."
            )
        table = _table(config)
        sources, self.skipped = _sources(config, table, whole=True)
        parts = parts_of(config, table.columns, list(sources))
        if self.split not in parts:
            raise IpslibError(f"split: wanted one of {', '.join(parts)}, got {self.split}.")
        boxes, of_boxes = _located(config, table, sources) if config.boxes else ({}, [])
        self.notes = (*table.notes, *doubts(config, table.columns, parts, stamps), *of_boxes)
        self._rows = rows = parts[self.split]
        self._sources = [sources[row] for row in rows]
        self._boxes = [boxes.get(row) for row in rows]
        self._columns = {name: [cells[r] for r in rows] for name, cells in table.columns.items()}
        self._moment: tuple[int, int] | None = None  # seed and epoch
        self.names = [source.name for source in self._sources]
        self.class_weights = _class_weights(config, table, parts["train"])  # (C,) by task

    def __len__(self) -> int:
        return len(self._sources)

    def augmented(self, *, seed: int, epoch: int) -> "OwnImages":
        """The training set as it looks in an epoch; IpslibError for another, never augmented."""
        check_augmented(self.split)
        images = copy(self)
        images._moment = seed, epoch
        return images

    def augmentation(self, index: int) -> tuple[int, Adjustments, tuple[int, int]]:
        """Of image `index`, turn, adjustments and shift: by seed, epoch and its line."""
        config = self.config
        if self._moment is None:
            return UPRIGHT, (), (0, 0)
        (seed, epoch), line = self._moment, self._rows[index]
        random = stream(seed, SPLITS[self.split], _AUGMENT_KEY, epoch, line)
        turn = draw_turn(random, flips=config.flips, rotations=config.rotations)
        adjustments = ()
        if config.brightness or config.colour:
            strengths = dict.fromkeys(("brightness", "contrast"), config.brightness)
            strengths |= dict.fromkeys(("saturation", "hue"), config.colour)
            adjustments = draw_adjustments(random, strengths)
        return turn, adjustments, draw_shift(random, config.translate)

    def source(self, index: int) -> PatchSource:
        """Image `index`, augmented where the set is."""
        return self._sources[index].augmented(*self.augmentation(index))

    def boxes(self, index: int) -> np.ndarray | None:
        """What is to be found in `source`, (n, 4) of top, left, height, width in its pixels; None
        where no boxes are known."""
        if self._boxes[index] is None:
            return None
        canvas, (turn, _, shift) = self._sources[index].grid.canvas, self.augmentation(index)
        boxes = turned_boxes(self._boxes[index], canvas, turn)
        return shifted_boxes(boxes, canvas[::-1] if TURNS[turn][2] else canvas, shift)

    def batch(self, indices: Sequence[int]) -> SourceBatch | MixedBatch:
        """Several images as one batch; with the boxes of each, where they are known, (B, R, 4)
        int64, zero behind those of an image that has fewer than R."""
        sources = [self.source(i) for i in indices]
        labels = {task: self._label(task, indices) for task in self.config.tasks}
        batch = batch_of(sources, labels=labels)
        batch.class_weights = self.class_weights
        if self.config.boxes:
            boxes = [torch.from_numpy(self.boxes(i)) for i in indices]
            batch.boxes = pad_sequence(boxes, batch_first=True)
            batch.grids = [source.grid for source in sources]
        return batch

    def _label(self, task: str, indices: Sequence[int]) -> Tensor:
        """Classes (B,), sets (B, C) multi-hot, or standardised numbers (B,)."""
        config, cells = self.config, [self._columns[task][i] for i in indices]
        if task in config.numbers:
            mean, deviation = config.numbers[task]
            return torch.tensor([(float(cell) - mean) / deviation for cell in cells])
        names = config.classes[task]
        if task in config.several:
            sets = [config.labels_in(task, cell) for cell in cells]
            return torch.tensor([[float(name in each) for name in names] for each in sets])
        return torch.tensor([names.index(cell) for cell in cells])

    def labels(self, column: str) -> list[str]:
        """Of every image: its class of a task, its set as `a|b`, its number, its group."""
        return self._columns[column]

    @property
    def deviations(self) -> dict[str, float]:
        """Of numbers, by task: what one unit of their labels is in the table."""
        return {task: deviation for task, (_, deviation) in self.config.numbers.items()}

    @property
    def sampling_weights(self) -> Tensor | None:
        """How often each image is drawn in an epoch, (n,) relative to each other; None: once."""
        task = self.config.balanced_sampling
        if not task:
            return None
        n_images = Counter(self.labels(task))
        return torch.tensor([1 / n_images[label] for label in self.labels(task)])

    @property
    def chance(self) -> dict[str, float]:
        """Share of the most frequent class, or set of them, by task."""
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


def _located(
    config: OwnImagesConfig, table: Table, sources: Mapping[int, PatchSource]
) -> tuple[dict[int, np.ndarray], list[str]]:
    """The boxes of every image by row, and sentences on those that are not used as they stand."""
    path, table_of = from_project(config.boxes), Path(config.labels).name
    boxes, notes = Boxes(path), []
    files = files_of(from_project(config.labels).parent, table.columns[IMAGE])
    found_on = {row: boxes.on(source, files[row]) for row, source in sources.items()}
    n_used = sum(len(each) for each, _ in found_on.values())
    n_cut = sum(n for _, n in found_on.values())
    if not n_used:
        raise IpslibError(f"{path}: wanted boxes of the images of {table_of}, found none of them.")
    if n_used < len(boxes):
        others = f"boxes in {path.name} are of no image of {table_of}, or of one left out"
        notes.append(f"{len(boxes) - n_used} {others}.")
    if n_cut:
        notes.append(f"{n_cut} boxes in {path.name} reach beyond their image and are cut off.")
    return {row: each for row, (each, _) in found_on.items()}, notes


def _class_weights(
    config: OwnImagesConfig, table: Table, train: Sequence[int]
) -> dict[str, Tensor]:
    """Weights in the loss by task, (C,): of a class, or of having one label of several. Balanced
    are n / (C n_c), as scikit-learn has it, and the images without a label over those with it."""
    if isinstance(config.class_weights, Mapping):
        given = config.class_weights.items()
        return {t: torch.tensor([float(w[c]) for c in config.classes[t]]) for t, w in given}
    weights = {}
    for task, names in config.classes.items() if config.class_weights else ():
        cells = [table.columns[task][row] for row in train]
        n_with = Counter(label for cell in cells for label in config.labels_in(task, cell))
        counts = torch.tensor([float(n_with[name]) for name in names])
        if task in config.several:
            weights[task] = (len(cells) - counts).clamp(min=1) / counts
        else:
            weights[task] = len(cells) / (len(names) * counts)
    return weights
