"""Which images of one's own train, validate and test, and what that does to what is measured."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ipslib.datasets.images.config import OwnImagesConfig
from ipslib.datasets.images.labels import IMAGE, SPLIT
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError
from ipslib.patches import SPLITS
from ipslib.paths import Stamp

VALIDATION = "validation"
_KEYS = {"test": 0, VALIDATION: 1}  # of the random streams that draw them

Columns = Mapping[str, list[str]]


def parts_of(
    config: OwnImagesConfig, columns: Columns, rows: Sequence[int]
) -> dict[str, list[int]]:
    """The rows of each part; IpslibError where one lacks images, or those of a class."""
    if SPLIT in columns:
        parts = {split: [row for row in rows if columns[SPLIT][row] == split] for split in SPLITS}
    else:
        parts = _divided(config, columns, rows, "test", config.test_share)
    if config.validation:
        parts |= _divided(config, columns, parts["train"], VALIDATION, config.validation)
    for part, of_part in parts.items():
        for task in config.tasks:
            labels = [config.labels_in(task, columns[task][row]) for row in of_part]
            missing = set(config.classes.get(task, ())).difference(*labels)
            is_drawn = part == VALIDATION or SPLIT not in columns
            may_lack = part != "train" and (task != config.tasks[0] or not is_drawn)
            if not of_part or (missing and not may_lack):
                n_images = dict(Counter(columns[task][row] for row in rows))
                raise IpslibError(
                    f"{config.labels}: wanted images of every class of {task} to {part} on, got "
                    f"none of {', '.join(sorted(missing)) or 'any'} (in all: {n_images}); add "
                    f"some, delete these lines, or see to the groups, the column {SPLIT} or the "
                    "shares."
                )
    return parts


def _divided(
    config: OwnImagesConfig, columns: Columns, rows: Sequence[int], part: str, share: float
) -> dict[str, list[int]]:
    """A share of the rows drawn as a part, the others to train. In random order, each group is
    drawn if that brings the classes of the first task nearer to their shares; a class that none of
    these has is drawn in the smallest group that has it."""
    task = config.tasks[0]
    group = [columns[config.group][row] for row in rows] if config.group else rows
    groups, of_group = np.unique(group, return_inverse=True)
    names = list(config.classes.get(task, ()))
    if task not in config.classes or task in config.several:
        names.append("")  # all images: one may have no label
    counts = np.zeros((len(groups), len(names)))
    for row, i in zip(rows, of_group, strict=True):
        labels = config.labels_in(task, columns[task][row])
        counts[i] += [name in labels or not name for name in names]
    missing = share * counts.sum(axis=0)
    is_drawn = np.zeros(len(groups), bool)
    order = stream(config.split_seed, _KEYS[part]).permutation(len(groups))
    for i in order:
        if abs(missing - counts[i]).sum() < abs(missing).sum():
            is_drawn[i] = True
            missing = missing - counts[i]
    for of_one in counts.T:
        with_it = order[of_one[order] > 0]
        if len(with_it) > 1 and not is_drawn[with_it].any():
            is_drawn[min(with_it, key=lambda i: counts[i].sum())] = True
    drawn = {row: is_drawn[i] for row, i in zip(rows, of_group, strict=True)}
    return {
        "train": [row for row in rows if not drawn[row]],
        part: [row for row in rows if drawn[row]],
    }


def doubts(
    config: OwnImagesConfig,
    columns: Columns,
    parts: Mapping[str, list[int]],
    stamps: Mapping[str, Stamp],
) -> list[str]:
    """What the parts do to what is measured: classes that are not tested, images in both."""
    notes, images = [], columns[IMAGE]
    for task in config.classes:
        of_train, of_test = (
            {label for row in parts[part] for label in config.labels_in(task, columns[task][row])}
            for part in SPLITS
        )
        if untested := sorted(of_train - of_test):
            notes.append(f"no image to test on is of {task} {', '.join(untested)}.")
    known = [row for part, rows in parts.items() if part != "test" for row in rows]
    trained = {stamps[images[row]].sha256: images[row] for row in known}
    tested = [(images[row], stamps[images[row]].sha256) for row in parts["test"]]
    twins = [f"{image} = {trained[digest]}" for image, digest in tested if digest in trained]
    if twins:
        told = f"trained on under other names ({twins[0]})"
        notes.append(f"{len(twins)} images to test on are {told}.")
    return notes
