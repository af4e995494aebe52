"""The speed limit task of the Swedish traffic signs: 50, 70, 80 or none, on a whole photograph.

    signs = load_traffic_signs(TrafficSignsConfig(), "train")
    batch = signs.augmented(seed=0, epoch=1).batch([0, 1, 2])

Katharopoulos and Fleuret, arXiv 1905.03711, made it of Larsson and Felsberg's data (SCIA 2011).
The files lie in the folder `traffic_signs` of the data root; those that this project draws
lie among its own (see `ipslib.datasets.synthetic`) and are marked, and the two never mix.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch

from ipslib.datasets.megapixel_mnist.digits import DATA_ROOT_VARIABLE, data_root
from ipslib.datasets.megapixel_mnist.randomness import SPLITS, stream
from ipslib.datasets.synthetic import is_synthetic, synthetic_folder
from ipslib.datasets.traffic_signs.annotations import ANNOTATIONS
from ipslib.datasets.traffic_signs.augment import Augmentation, draw_augmentation
from ipslib.datasets.traffic_signs.batch import SignBatch, boxes_on_canvas
from ipslib.datasets.traffic_signs.classes import (
    SET_OF,
    Example,
    SignSet,
    class_counts,
    read_set,
    thinned,
)
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.datasets.traffic_signs.fetch import digest
from ipslib.datasets.traffic_signs.image import SignImage
from ipslib.datasets.traffic_signs.report import ReadReport
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice
from ipslib.patches import PatchGrid

_AUGMENT_KEY = 2


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
        folder: that holds both sets.
        threads: that decode the images of a batch.
    """

    uneven = True
    config: TrafficSignsConfig
    split: str = choice("train", tuple(SPLITS))
    examples: tuple[Example, ...] = attrs.field(kw_only=True, repr=False)
    report: ReadReport = attrs.field(kw_only=True, repr=False)
    folder: Path = attrs.field(kw_only=True, repr=False)
    threads: int = attrs.field(factory=torch.get_num_threads, kw_only=True, eq=False)
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
    def chance(self) -> dict[str, float]:
        """Share of the most frequent class, by task: the accuracy of naming it always."""
        largest = max(self.class_counts.values())
        return {task: largest / len(self) for task in self.config.tasks}

    @property
    def provenance(self) -> dict[str, object]:
        """Where the photographs are from, and what was read of this split's set."""
        sums = {
            name: digest(self.folder / name / ANNOTATIONS, "sha256") for name in SET_OF.values()
        }
        return {
            "sign_source": self.config.signs,
            "annotations_sha256": sums,
            "n_repaired": len(self.report.repaired),
            "n_skipped": len(self.report.skipped),
        }

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
        """Image `index` as a source of patches, not yet normalised."""
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

    def batch(self, indices: Sequence[int]) -> SignBatch:
        """Several images as one PatchBatch with `labels`, `boxes` and `roi`, decoded; its patches
        are normalised.

        Raises:
            IpslibError: when an image is damaged.
        """
        indices = [int(index) for index in indices]
        labels = torch.tensor([self.examples[index].label for index in indices])
        return SignBatch(
            [self.source(index) for index in indices],
            [self.boxes(index) for index in indices],
            labels,
            threads=self.threads,
        )

    def canvas(self, index: int) -> np.ndarray:
        """One whole image (H, W, 3) uint8, for figures."""
        return self.source(index).pixels


def signs_folder(config: TrafficSignsConfig) -> Path:
    """Where the photographs of a configuration lie: the real ones in $IPSLIB_DATA or the project's
    data, drawn ones in the project's alone."""
    if config.signs == "real":
        return data_root() / "traffic_signs"
    height, width = config.standin_size
    name = f"{config.standin_train}_{config.standin_test}_{height}_{width}_{config.standin_shares}"
    return synthetic_folder(f"traffic_signs_{name}")


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
            write_synthetic(
                folder,
                config.standin_train,
                config.standin_test,
                size=config.standin_size,
                shares=(1, 1, 1, 1) if config.standin_shares == "equal" else None,
            )
    folder = Path(folder)
    _check_folder(folder, config)
    whole = _read_set(folder / SET_OF[split], _stamp(folder / SET_OF[split]))
    examples = whole.examples
    if split == "train" or config.thin_test:
        examples = thinned(examples, config.fraction)
    return TrafficSigns(
        config,
        split,
        examples=examples,
        report=whole.report,
        folder=folder,
    )


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


@lru_cache(maxsize=4)
def _read_set(folder: Path, _stamp: tuple) -> SignSet:
    return read_set(folder)


def _stamp(folder: Path) -> tuple:
    """Changes when the annotations or the files of a folder do."""
    paths = [path for path in (folder, folder / ANNOTATIONS) if path.exists()]
    return tuple(path.stat().st_mtime_ns for path in paths)
