"""The speed limit task of the Swedish traffic signs: 50, 70, 80 or none, on a whole photograph.

    signs = load_traffic_signs(TrafficSignsConfig(), "train")
    batch = signs.augmented(seed=0, epoch=1).batch([0, 1, 2])

Katharopoulos and Fleuret, arXiv 1905.03711, made it of Larsson and Felsberg's data (SCIA 2011).
Set1 trains and Set2 tests, always (as published, the parity of a seed decided).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch

from ipslib.datasets.synthetic import is_synthetic, stream, synthetic_folder
from ipslib.datasets.traffic_signs.annotations import (
    ANNOTATIONS,
    CLASSES,
    SKIPPED,
    Problem,
    ReadReport,
    judge,
    read_annotations,
)
from ipslib.datasets.traffic_signs.config import SET_OF, TrafficSignsConfig
from ipslib.datasets.traffic_signs.photographs import (
    Augmentation,
    Example,
    SignBatch,
    boxes_on_canvas,
    draw_augmentation,
    image_size,
    read_photograph,
)
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError, did_you_mean
from ipslib.patches import SPLITS, PatchGrid
from ipslib.paths import DATA_ROOT_VARIABLE, data_root

_AUGMENT_KEY = 2


class SignSet(NamedTuple):
    examples: tuple[Example, ...]  # in the order of the annotations
    report: ReadReport


@attrs.frozen
class TrafficSigns:
    """One split of the task; made by `load_traffic_signs`.

    Attributes:
        examples: the images in use, in the order of the annotations.
        report: what reading found, in the whole set.
        folder: that holds both sets.
    """

    uneven = True
    config: TrafficSignsConfig
    split: str
    examples: tuple[Example, ...] = attrs.field(repr=False)
    report: ReadReport = attrs.field(repr=False)
    folder: Path = attrs.field(repr=False)
    _moment: tuple[int, int] | None = attrs.field(default=None, kw_only=True)  # seed and epoch

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def grid(self) -> PatchGrid:
        return self.config.grid

    @property
    def class_counts(self) -> dict[str, int]:
        """Images of each class in use, by name."""
        return class_counts(self.examples)

    @property
    def chance(self) -> dict[str, float]:
        """Share of the most frequent class: the accuracy of naming it always."""
        return {"sign": max(self.class_counts.values()) / len(self)}

    @property
    def provenance(self) -> dict[str, object]:
        """Where the photographs are from, and what was read of this split's set."""
        files = {name: self.folder / name / ANNOTATIONS for name in SET_OF.values()}
        return {
            "sign_source": self.config.signs,
            "annotations_sha256": {
                name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
            },
            "n_repaired": len(self.report.repaired),
            "n_skipped": len(self.report.skipped),
        }

    def augmented(self, *, seed: int, epoch: int) -> "TrafficSigns":
        """The training set as it looks in an epoch; IpslibError for a test set, never augmented."""
        if self.split != "train":
            raise IpslibError(
                f"split: wanted train, since no other is augmented, got {self.split}."
            )
        return attrs.evolve(self, moment=(seed, epoch))

    def augmentation(self, index: int) -> Augmentation | None:
        """Of image `index`: by seed, epoch and its line, so the same in every smaller set."""
        if self._moment is None:
            return None
        seed, epoch = self._moment
        random = stream(seed, SPLITS[self.split], _AUGMENT_KEY, epoch, self.examples[index].line)
        config = self.config
        return draw_augmentation(random, jitter=config.jitter, translate=config.translate)

    def canvas(self, index: int) -> np.ndarray:
        """Image `index` whole, (H, W, 3) uint8."""
        path, config = self.examples[index].path, self.config
        return read_photograph(path, config.canvas, self.augmentation(index))

    def boxes(self, index: int) -> np.ndarray:
        """Signs of image `index` on the canvas, (n, 4) of top, left, height, width in pixels."""
        augmentation = self.augmentation(index)
        shift = (0, 0) if augmentation is None else augmentation.shift
        return boxes_on_canvas(self.examples[index], self.config.canvas, shift)

    def batch(self, indices: Sequence[int]) -> SignBatch:
        """Several images as one PatchBatch with `labels` and `boxes`, decoded here, so that a
        batch can be made ahead.

        Raises:
            IpslibError: when an image is damaged.
        """
        indices = [int(index) for index in indices]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            images = list(pool.map(self.canvas, indices))
        labels = torch.tensor([self.examples[index].label for index in indices])
        return SignBatch(images, [self.boxes(index) for index in indices], labels, grid=self.grid)


def load_traffic_signs(
    config: TrafficSignsConfig, split: str, *, folder: str | Path | None = None
) -> TrafficSigns:
    """Open a split; Set1 trains and Set2 tests. Synthetic sets are drawn where there are none yet.

    Args:
        config: sizes and variants.
        split: `train` or `test`.
        folder: that holds `Set1` and `Set2`; `signs_folder` if None.

    Raises:
        IpslibError: when the photographs are not there or none is sound, or when the folder holds
            the real ones where drawn ones were asked for, or the other way round.
    """
    if split not in SET_OF:
        raise IpslibError(f"split: unknown {split!r}{did_you_mean(split, SET_OF)}.")
    if folder is None:
        folder = signs_folder(config)
        if config.is_synthetic:
            shares = (1, 1, 1, 1) if config.standin_shares == "equal" else None
            n_train, n_test = config.standin_train, config.standin_test
            write_synthetic(folder, n_train, n_test, size=config.standin_size, shares=shares)
    folder = Path(folder)
    _check_folder(folder, config)
    whole = _read_set_once(folder / SET_OF[split], _stamp(folder / SET_OF[split]))
    is_thinned = split == "train" or config.thin_test
    examples = thinned(whole.examples, config.fraction) if is_thinned else whole.examples
    return TrafficSigns(config, split, examples, whole.report, folder)


def signs_folder(config: TrafficSignsConfig) -> Path:
    """Where the photographs lie: the real ones in $IPSLIB_DATA or the project's
    data, drawn ones in the project's alone."""
    if not config.is_synthetic:
        return data_root() / "traffic_signs"
    height, width = config.standin_size
    name = f"{config.standin_train}_{config.standin_test}_{height}_{width}_{config.standin_shares}"
    return synthetic_folder(f"traffic_signs_{name}")


def _check_folder(folder: Path, config: TrafficSignsConfig) -> None:
    if not all((folder / name).is_dir() for name in SET_OF.values()):
        raise IpslibError(
            f"{folder}: wanted Set1 and Set2 of the Swedish traffic signs, found none; fetch them "
            f"(python -m ipslib.datasets.traffic_signs.download), put them there, set "
            f"{DATA_ROOT_VARIABLE} to a root that holds {folder.name}, or use signs: standin."
        )
    drawn, kinds = is_synthetic(folder), ("the real photographs", "drawn ones")
    if drawn != config.is_synthetic:
        raise IpslibError(
            f"{folder}: wanted {kinds[not drawn]}, got {kinds[drawn]}; name the other folder, or "
            f"use signs: {'standin' if drawn else 'real'}."
        )


def read_set(folder: str | Path) -> SignSet:
    """Read a set's annotations, filter them, and see that its images are sound.

    An image that is missing or damaged, or whose line is broken, is skipped and listed.

    Args:
        folder: `Set1` or `Set2`, with `annotations.txt` beside the JPEGs.

    Raises:
        IpslibError: when the annotations cannot be read, or no image of the task is there.
    """
    folder = Path(folder)
    annotations = read_annotations(folder / ANNOTATIONS)
    file = f"{folder.name}/{ANNOTATIONS}"
    examples, problems, left_out = [], list(annotations.problems), Counter()
    for name, line, signs in annotations.images:
        verdict, path = judge(signs), folder / name
        if verdict.left_out:
            left_out[verdict.left_out] += 1
            continue
        try:
            examples.append(Example(path, line, verdict.label, verdict.boxes, image_size(path)))
        except IpslibError as error:
            kind = "damaged image" if path.is_file() else "missing image"
            sentence = f"{file} line {line}: {error}"
            problems.append(Problem(SKIPPED, kind, file, line, name, sentence))
    if not examples:
        raise IpslibError(
            f"{folder}: wanted the JPEGs that {ANNOTATIONS} names beside it, found no sound one of "
            f"{annotations.n_lines}; unpack {folder.name}Part0.zip into that folder."
        )
    problems.sort(key=lambda problem: (problem.line is None, problem.line or 0))
    known = {problem.image for problem in problems} | {each.image for each in annotations.images}
    extra = sorted(path.name for path in folder.glob("*.jpg") if path.name not in known)
    if extra:  # one entry for all of them: the full drives hold thousands
        none = f"none for {len(extra)} ({extra[0]} is the first)"
        sentence = f"{file}: wanted a line for every image, got {none}; add lines, or leave it."
        problems.append(Problem(SKIPPED, "no annotation", folder.name, None, None, sentence))
    counts = annotations.n_lines, annotations.n_misc, class_counts(examples), dict(left_out)
    return SignSet(tuple(examples), ReadReport(folder.name, *counts, tuple(problems)))


@lru_cache(maxsize=4)
def _read_set_once(folder: Path, _stamp: tuple) -> SignSet:
    return read_set(folder)


def _stamp(folder: Path) -> tuple:
    """Changes when the annotations or the files of a folder do."""
    paths = [path for path in (folder, folder / ANNOTATIONS) if path.exists()]
    return tuple(path.stat().st_mtime_ns for path in paths)


def class_counts(examples: Sequence[Example]) -> dict[str, int]:
    """Images of each class, by name."""
    counts = Counter(example.label for example in examples)
    return {name: counts[label] for label, name in enumerate(CLASSES)}


def thinned(examples: Sequence[Example], fraction: float) -> tuple[Example, ...]:
    """The first images of each class, rounded down as published, in their order: a smaller
    fraction is part of a larger one.

    Raises:
        IpslibError: where a class would be left without an image that it had.
    """
    had = class_counts(examples)
    room = {label: int(fraction * had[name] + 1e-9) for label, name in enumerate(CLASSES)}
    emptied = [name for label, name in enumerate(CLASSES) if had[name] and not room[label]]
    if emptied:
        raise IpslibError(
            f"fraction: wanted at least one image of each class, got none of {emptied[0]}, which "
            f"has {had[emptied[0]]}, at {fraction:g}; use a larger fraction."
        )
    kept = []
    for example in examples:
        if room[example.label]:
            room[example.label] -= 1
            kept.append(example)
    return tuple(kept)
