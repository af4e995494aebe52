"""The speed limit task of the Swedish traffic signs: 50, 70, 80 or none, on a whole photograph.

    signs = load_traffic_signs(TrafficSignsConfig(), "train")
    batch = signs.augmented(seed=0, epoch=1).batch([0, 1, 2])

Katharopoulos and Fleuret, arXiv 1905.03711, made it of Larsson and Felsberg's data (SCIA 2011).
The files lie in the folder `traffic_signs` of the data root; a stand-in that this project draws
(`traffic_signs_standin`) lies in a folder of its own and says so, and the two never mix.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch

from ipslib.data.digits import DATA_ROOT_VARIABLE, data_root
from ipslib.data.patches import PatchGrid
from ipslib.data.randomness import SPLITS, stream
from ipslib.data.traffic_signs_augment import Augmentation, draw_augmentation
from ipslib.data.traffic_signs_batch import SignBatch, boxes_on_canvas
from ipslib.data.traffic_signs_classes import (
    SET_OF,
    Example,
    SignSet,
    class_counts,
    read_set,
    thinned,
)
from ipslib.data.traffic_signs_image import SignImage
from ipslib.data.traffic_signs_marker import is_standin
from ipslib.data.traffic_signs_report import ReadReport
from ipslib.errors import IpslibError
from ipslib.fields import choice, flag, integer, number, side_lengths

TASK = "sign"
FOLDERS = {"real": "traffic_signs", "standin": "traffic_signs_standin"}
_AUGMENT_KEY = 2
_PUBLISHED_WIDTH, _PUBLISHED_SHIFT = 1600, 100


@attrs.frozen(kw_only=True)
class TrafficSignsConfig:
    """The task at the published sizes, in pixels."""

    signs: str = choice("real", tuple(FOLDERS))
    canvas: tuple[int, int] = side_lengths((1200, 1600))  # what the photographs are brought to
    patch_size: int = integer(100, at_least=4)
    patch_stride: int = integer(lambda self: self.patch_size)
    fraction: float = number(1.0, at_least=0.001, at_most=1.0)  # of each training class
    thin_test: bool = flag(False)  # true, as published: the test set too
    jitter: float = number(0.1, at_most=0.5)
    translate: int = integer(
        lambda self: round(self.canvas[1] * _PUBLISHED_SHIFT / _PUBLISHED_WIDTH), at_least=0
    )

    def __attrs_post_init__(self) -> None:
        if self.patch_size > min(self.canvas):
            raise IpslibError(
                f"patch_size: {self.patch_size} px does not fit the canvas of {self.canvas[0]} x "
                f"{self.canvas[1]} px; enlarge canvas or reduce patch_size."
            )
        if self.patch_stride > self.patch_size:
            raise IpslibError(
                f"patch_stride: {self.patch_stride} px leaves gaps between patches of "
                f"{self.patch_size} px; reduce patch_stride or enlarge patch_size."
            )

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.canvas, self.patch_size, self.patch_stride)


class _Moment(NamedTuple):
    """When an image is augmented: never the same in two epochs, always the same in one."""

    seed: int
    epoch: int


@attrs.frozen
class TrafficSigns:
    """One split of the task; made by `load_traffic_signs`.

    Attributes:
        examples: the images in use, in the order of the annotations.
        report: what reading found, in the whole set.
        is_standin: True where the project drew the photographs: every output says so.
    """

    config: TrafficSignsConfig
    split: str = choice("train", tuple(SPLITS))
    examples: tuple[Example, ...] = attrs.field(kw_only=True, repr=False)
    report: ReadReport = attrs.field(kw_only=True, repr=False)
    is_standin: bool = attrs.field(kw_only=True)
    _moment: _Moment | None = attrs.field(default=None, kw_only=True)

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
    def majority_rate(self) -> float:
        """Accuracy of naming the most frequent class always: the chance line of this task."""
        return max(self.class_counts.values()) / len(self)

    def augmented(self, *, seed: int, epoch: int) -> "TrafficSigns":
        """The training set as it looks in an epoch.

        Raises:
            IpslibError: for a test set, which is never augmented.
        """
        if self.split != "train":
            raise IpslibError(
                f"split: wanted train, since no other is augmented, got {self.split}."
            )
        return attrs.evolve(self, moment=_Moment(seed, epoch))

    def augmentation(self, index: int) -> Augmentation | None:
        """Of image `index`: by seed, epoch and its line, so the same in every smaller set."""
        if self._moment is None:
            return None
        key = (self._moment.seed, SPLITS[self.split], _AUGMENT_KEY, self._moment.epoch)
        random = stream(*key, self.examples[index].line)
        config = self.config
        return draw_augmentation(random, jitter=config.jitter, translate=config.translate)

    def source(self, index: int) -> SignImage:
        """Image `index` as a source of normalised patches."""
        config = self.config
        return SignImage(
            self.examples[index].path,
            canvas=config.canvas,
            patch_size=config.patch_size,
            patch_stride=config.patch_stride,
            augmentation=self.augmentation(index),
        )

    def boxes(self, index: int) -> np.ndarray:
        """Signs of image `index` on the canvas, (n, 4) of top, left, height, width in pixels."""
        augmentation = self.augmentation(index)
        shift = (0, 0) if augmentation is None else augmentation.shift
        return boxes_on_canvas(self.examples[index], self.config.canvas, shift)

    def batch(self, indices: Sequence[int], *, threads: int = 1) -> SignBatch:
        """Several images as one PatchBatch with `labels`, `boxes` and `roi`, decoded.

        Raises:
            IpslibError: when an image is damaged.
        """
        indices = [int(index) for index in indices]
        labels = torch.tensor([self.examples[index].label for index in indices])
        return SignBatch(
            [self.source(index) for index in indices],
            [self.boxes(index) for index in indices],
            labels,
            threads=threads,
        )

    def canvas(self, index: int) -> np.ndarray:
        """One whole image (H, W, 3) uint8, for figures."""
        return self.source(index).pixels


def signs_folder(signs: str) -> Path:
    """Where the real photographs or the stand-in's lie: in $IPSLIB_DATA, or the project's data."""
    return data_root() / FOLDERS[signs]


def load_traffic_signs(
    config: TrafficSignsConfig, split: str, *, folder: str | Path | None = None
) -> TrafficSigns:
    """Open a split; Set1 trains and Set2 tests.

    Args:
        config: sizes and variants.
        split: `train` or `test`.
        folder: that holds `Set1` and `Set2`; `signs_folder` if None.

    Raises:
        IpslibError: when the files are not there or none is sound, or when the folder holds the
            real set where a stand-in was asked for, or the other way round.
    """
    folder = signs_folder(config.signs) if folder is None else Path(folder)
    drawn = is_standin(folder)
    if not (folder / SET_OF["train"]).is_dir():
        raise IpslibError(
            f"{folder}: wanted Set1 and Set2 of the Swedish traffic signs, found none; fetch them "
            f"(python -m ipslib.data.traffic_signs_download), put them there, set "
            f"{DATA_ROOT_VARIABLE} to a root that holds {folder.name}, or use signs: standin."
        )
    if drawn != (config.signs == "standin"):
        kinds = ("the real photographs", "a stand-in that was drawn")
        raise IpslibError(
            f"{folder}: wanted {kinds[config.signs == 'standin']}, got {kinds[drawn]}; name the "
            "other folder, or use signs: " + ("standin." if drawn else "real.")
        )
    whole = _read_set(folder / SET_OF[split], _stamp(folder / SET_OF[split]))
    examples = whole.examples
    if split == "train" or config.thin_test:
        examples = thinned(examples, config.fraction)
    return TrafficSigns(config, split, examples=examples, report=whole.report, is_standin=drawn)


@lru_cache(maxsize=4)
def _read_set(folder: Path, _stamp: tuple) -> SignSet:
    return read_set(folder)


def _stamp(folder: Path) -> tuple:
    """Changes when the annotations or the files of a folder do."""
    paths = [path for path in (folder, folder / "annotations.txt") if path.exists()]
    return tuple(path.stat().st_mtime_ns for path in paths)
