"""The speed limit task of the Swedish traffic signs: 50, 70, 80 or none, on a whole photograph.

    signs = load_traffic_signs(TrafficSignsConfig(), "train")
    batch = signs.augmented(seed=0, epoch=1).batch([0, 1, 2])

Katharopoulos and Fleuret, arXiv 1905.03711, made it of Larsson and Felsberg's data (SCIA 2011).
Set1 trains and Set2 tests, always (as published, the parity of a seed decided). Photographs are
read as by Bergner et al., arXiv 2210.13007: resized to the canvas, whatever their proportions;
colour jitter and a translation; normalised for ImageNet.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch
from numpy.random import RandomState
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ipslib.datasets.images.augmentation import UNCHANGED, Adjustments, draw_adjustments
from ipslib.datasets.images.image import ArraySource
from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.synthetic import is_synthetic, stream, synthetic_folder
from ipslib.datasets.traffic_signs.annotations import (
    ANNOTATIONS,
    CLASSES,
    PUBLISHED_COUNTS,
    REPAIRED,
    SET_OF,
    SKIPPED,
    Example,
    SignSet,
    class_counts,
    opened,
    read_set,
    thinned,
)
from ipslib.datasets.traffic_signs.synthetic import write_synthetic
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import check_fits, choice, flag, integer, number, side_lengths
from ipslib.patches import SPLITS, PatchGrid, check_augmented
from ipslib.paths import DATA_ROOT_VARIABLE, data_root, stamp

_N_TRAIN, _N_TEST = (sum(counts) for counts in PUBLISHED_COUNTS.values())
_AUGMENT_KEY = 2


@attrs.frozen(kw_only=True)
class TrafficSignsConfig:
    """What a run on them is made of: sizes in pixels, counts in images; the defaults are the
    published sizes. The largest shift follows the canvas's width. Synthetic photographs have 4/5
    of the canvas's sides, as the real ones (960 x 1280) of theirs.
    """

    signs: str = choice("real", ("real", "standin"))
    canvas: tuple[int, int] = side_lengths((1200, 1600))  # what the photographs are brought to
    patch_size: int = integer(100, at_least=4)
    patch_stride: int = integer(lambda self: self.patch_size)
    fraction: float = number(1.0, at_least=0.001, at_most=1.0)  # of each training class
    thin_test: bool = flag(False)  # true, as published: the test set too
    jitter: float = number(0.1, at_most=0.5)
    translate: int = integer(lambda self: round(self.canvas[1] * 100 / 1600), at_least=0)
    standin_train: int = integer(_N_TRAIN, at_least=len(CLASSES))  # as the real sets have
    standin_test: int = integer(_N_TEST, at_least=len(CLASSES))
    standin_shares: str = choice("published", ("published", "equal"))  # of the classes

    kind = "traffic_signs"
    in_channels = 3

    def __attrs_post_init__(self) -> None:
        check_fits(self.canvas, patch_size=self.patch_size)
        _ = self.grid  # which checks itself

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.canvas, self.patch_size, self.patch_stride)

    @property
    def n_classes(self) -> dict[str, int]:
        return {"sign": len(CLASSES)}

    @property
    def is_synthetic(self) -> bool:
        return self.signs == "standin"

    @property
    def source(self) -> str:
        if self.is_synthetic:
            return "SYNTHETIC road scenes, drawn by this project, not the Swedish traffic signs"
        return "the Swedish traffic signs"

    @property
    def short_name(self) -> str:
        """In the published convention; what was drawn is called so."""
        parts = ["traffic_standin" if self.is_synthetic else "traffic_sign"]
        parts.append(f"{100 * self.fraction:03.4g}")
        parts += ["thinned"] if self.thin_test else []
        parts += [f"PS_{self.patch_size}"] if self.patch_size != 100 else []
        return "_".join(parts)

    @property
    def n_train(self) -> int:
        """Images that train, as far as can be told before they are read."""
        return int(self.fraction * (self.standin_train if self.is_synthetic else _N_TRAIN))

    @property
    def standin_size(self) -> tuple[int, int]:
        """Height and width of a drawn photograph."""
        height, width = (round(side * 4 / 5) for side in self.canvas)
        return height, width

    @property
    def folder(self) -> Path:
        """Where the photographs lie: the real ones in $IPSLIB_DATA or the project's data, drawn
        ones in the project's alone."""
        if not self.is_synthetic:
            return data_root() / "traffic_signs"
        drawn = self.standin_train, self.standin_test, *self.standin_size, self.standin_shares
        return synthetic_folder("_".join(map(str, ("traffic_signs", *drawn))))

    def open_split(self, split: str) -> "TrafficSigns":
        return load_traffic_signs(self, split)


def load_traffic_signs(
    config: TrafficSignsConfig, split: str, *, folder: str | Path | None = None
) -> "TrafficSigns":
    """Open a split: `Set1` of a folder trains and `Set2` tests. Without a folder it is that of the
    configuration, where synthetic sets are drawn once.

    Raises:
        IpslibError: when the photographs are not there or none is sound, or when the folder holds
            the real ones where drawn ones were asked for, or the other way round.
    """
    if split not in SET_OF:
        raise IpslibError(f"split: unknown {split!r}{did_you_mean(split, SET_OF)}.")
    if folder is None and config.is_synthetic:
        n_images = {"train": config.standin_train, "test": config.standin_test}
        equal = config.standin_shares == "equal"
        write_synthetic(config.folder, n_images, size=config.standin_size, equal=equal)
    folder = Path(folder or config.folder)
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
    whole = read_set(folder / SET_OF[split])
    is_thinned = split == "train" or config.thin_test
    examples = thinned(whole.examples, config.fraction) if is_thinned else whole.examples
    return TrafficSigns(config, split, examples, whole, folder)


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
    report: SignSet = attrs.field(repr=False)
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
        names = SET_OF.values()
        return {
            "sign_source": self.config.signs,
            "annotations_sha256": {n: stamp(self.folder / n / ANNOTATIONS).sha256 for n in names},
            "n_repaired": self.report.n_of(REPAIRED),
            "n_skipped": self.report.n_of(SKIPPED),
        }

    def augmented(self, *, seed: int, epoch: int) -> "TrafficSigns":
        """The training set as it looks in an epoch; IpslibError for a test set, never augmented."""
        check_augmented(self.split)
        return attrs.evolve(self, moment=(seed, epoch))

    def augmentation(self, index: int) -> "Augmentation":
        """Of image `index`: by seed, epoch and its line, so the same in every smaller set."""
        if self._moment is None:
            return Augmentation()
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
        shift = self.augmentation(index).shift
        return boxes_on_canvas(self.examples[index], self.config.canvas, shift)

    def batch(self, indices: Sequence[int]) -> "SignBatch":
        """Several images as one PatchBatch with `labels` and `boxes`, decoded here, so that a
        batch can be made ahead. IpslibError when an image is damaged."""
        indices = [int(index) for index in indices]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            images = list(pool.map(self.canvas, indices))
        labels = torch.tensor([self.examples[index].label for index in indices])
        return SignBatch(images, [self.boxes(index) for index in indices], labels, grid=self.grid)


class SignBatch(SourceBatch):
    """B photographs (H, W, 3) uint8 as a PatchBatch of normalised patches, with labels (B,) and the
    boxes (n, 4) of each, together (B, R, 4) int64; where an image has fewer than R, the rest are
    zero."""

    normalised = True

    def __init__(self, images: Sequence, boxes: Sequence, labels: Tensor, *, grid: PatchGrid):
        size = {"patch_size": grid.patch_size, "patch_stride": grid.patch_stride}
        super().__init__([ArraySource(image, **size) for image in images], labels={"sign": labels})
        self.boxes = pad_sequence([torch.from_numpy(each) for each in boxes], batch_first=True)

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """Patches at pairs of indices (n,), (n,): (n, 3, P, P) float32, normalised."""
        from ipslib.model.encoder import normalised  # loads torchvision

        return normalised(super().read(image, patch))


class Augmentation(NamedTuple):
    """What is done to one image."""

    adjustments: Adjustments = ()
    shift: tuple[int, int] = (0, 0)  # pixels down and to the right; what it uncovers is black


def draw_augmentation(random: RandomState, *, jitter: float, translate: int) -> Augmentation:
    """Draw colour jitter, from 0 to 0.5, and a translation of at most so many pixels along either
    axis, uniform; a given stream gives the same whatever its strength."""
    adjustments = draw_adjustments(random, dict.fromkeys(UNCHANGED, jitter))
    down, right = random.uniform(-1, 1, size=2)
    return Augmentation(adjustments, (round(translate * down), round(translate * right)))


def read_photograph(path: Path, canvas: tuple[int, int], augmentation: Augmentation) -> np.ndarray:
    """A photograph at the canvas's height and width, whatever its proportions (bilinear with
    antialiasing), and augmented: (H, W, 3) uint8. IpslibError when the file is damaged."""
    with opened(path) as stored:
        image = stored if stored.mode == "RGB" else stored.convert("RGB")
        image = image.resize(canvas[::-1], Image.Resampling.BILINEAR)
    return np.asarray(augmented(image, augmentation))


def augmented(image: Image.Image, augmentation: Augmentation) -> Image.Image:
    """An RGB image with its adjustments and its shift."""
    from torchvision.transforms import functional  # takes a second

    for name, value in augmentation.adjustments:
        if value != UNCHANGED[name]:
            image = getattr(functional, f"adjust_{name}")(image, value)
    down, right = augmentation.shift
    moved = Image.new("RGB", image.size)
    moved.paste(image, (right, down))
    return moved


def boxes_on_canvas(
    example: Example, canvas: tuple[int, int], shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """An image's boxes on the canvas that it is brought to and shifted on: (n, 4) int64 of top,
    left, height, width in whole pixels, outward; what lies outside the canvas is cut off, and a
    box that lies outside whole becomes zero."""
    boxes = np.array(example.boxes).reshape(-1, 4)  # x_min, y_min, x_max, y_max
    scale = np.array(canvas) / np.array(example.size)
    start = np.clip(np.floor(boxes[:, [1, 0]] * scale) + shift, 0, canvas)
    stop = np.clip(np.ceil(boxes[:, [3, 2]] * scale) + shift, 0, canvas)
    inside = (stop > start).all(axis=1, keepdims=True)
    return np.where(inside, np.concatenate([start, stop - start], axis=1), 0).astype(np.int64)
