"""Megapixel MNIST: five digits among noise on a canvas of any size, drawn patch by patch; and
Needle MNIST, which it is set beside.

An image is a key and its placements. Nothing is stored: patches are drawn when they are asked
for, and the same key gives the same bytes whatever the machine, the order or the other images.
Three digits share a class (`majority`), two are of other classes; Katharopoulos and Fleuret,
arXiv 1905.03711, introduced the task, Bergner et al., arXiv 2210.13007, its four labels.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.megapixel_mnist.config import (
    N_CLASSES,
    N_DIGITS,
    MegapixelMNISTConfig,
    chance_level,
)
from ipslib.datasets.megapixel_mnist.digits import SOURCES, DigitSet, load_digits, resize_area
from ipslib.datasets.megapixel_mnist.noise import BOX, noise_pool
from ipslib.datasets.megapixel_mnist.placement import (
    Placement,
    PublishedStart,
    place_apart,
    place_freely,
)
from ipslib.datasets.megapixel_mnist.scenes import Layer, Scene, SceneBatch, Sheet
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError
from ipslib.fields import choice, integer, side_lengths
from ipslib.patches import SPLITS, PatchGrid

NEEDLE_CLASS = 3
_POOL_KEY, _IMAGE_KEY, _NEEDLE_KEY = 0, 1, 2
_REMEMBERED_OBJECTS = 1_000_000  # of all images together; a larger set is placed anew each time


@attrs.frozen
class MegapixelMNIST:
    """One split of the task. Image i of a split does not depend on how many images are used, so
    smaller training sets are subsets of larger ones and the test set is always the same."""

    config: MegapixelMNISTConfig
    split: str = choice("train", tuple(SPLITS))
    uneven = False
    _placed: dict[int, Placement] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def __len__(self) -> int:
        return self.config.n_train if self.split == "train" else self.config.n_test

    @property
    def grid(self) -> PatchGrid:
        return self.config.grid

    @property
    def chance(self) -> dict[str, float]:
        """By the rule that draws images, not by this split's."""
        return {task: chance_level(task) for task in self.config.tasks}

    @property
    def digits(self) -> DigitSet:
        return load_digits(self.config.digits, self.split)

    @property
    def provenance(self) -> dict[str, object]:
        digits = {split: load_digits(self.config.digits, split) for split in SPLITS}
        sums = {split: each.sha256 for split, each in digits.items()}
        return {"digit_source": self.config.digits, "digits_sha256": sums}

    def placement(self, index: int) -> Placement:
        """Draw what lies where on image `index`; remembered where the split is small enough."""
        if self._published is not None:
            return self._published.placement(index)
        placement = self._placed.get(index)
        if placement is None:
            placement = self._place(self._stream(_IMAGE_KEY, index))
            if len(self) * (self.config.n_noise + N_DIGITS) <= _REMEMBERED_OBJECTS:
                self._placed[index] = placement
        return placement

    def _place(self, random: np.random.RandomState) -> Placement:
        config = self.config
        same, other = self.digits.of_class(random.randint(N_CLASSES))
        digits = np.concatenate([random.choice(same, 3), random.choice(other, N_DIGITS - 3)])
        corners = place_apart(random, N_DIGITS, config.digit_size, config.canvas)
        patterns = random.randint(0, max(config.n_patterns, 1), size=config.n_noise)
        margin = BOX if config.noise == "line" else 0
        noise_corners = place_freely(
            random, config.n_noise, config.noise_size, config.canvas, margin=margin
        )
        return Placement(digits, corners, patterns, noise_corners)

    def scene(self, placement: Placement) -> Scene:
        """Make a placement drawable whole: noise first, in order, then digits."""
        sizes = np.repeat(
            [self.config.noise_size, self.config.digit_size], [self.config.n_noise, N_DIGITS]
        )
        corners = np.concatenate([placement.noise_corners, placement.digit_corners])
        boxes = np.column_stack([corners, sizes, sizes])
        return Scene(
            boxes, [*self._noise_pool[placement.patterns], *self._digit_images(placement.digits)]
        )

    def labels(self, placement: Placement) -> dict[str, Tensor]:
        """The label of each task; `multi` is a multi-hot vector (10,) of float32. Those of stacked
        placements are stacked."""
        present = torch.from_numpy(self.digits.labels[placement.digits])  # (..., 5)
        topmost = torch.from_numpy(placement.digit_corners)[..., 0].argmin(dim=-1, keepdim=True)
        multi = torch.zeros(*present.shape[:-1], N_CLASSES).scatter_(-1, present, 1.0)
        all_labels = {
            "majority": present.mode(dim=-1).values,
            "max": present.amax(dim=-1),
            "top": present.gather(-1, topmost).squeeze(-1),
            "multi": multi,
        }
        return {task: all_labels[task] for task in self.config.tasks}

    def augmented(self, *, seed: int, epoch: int) -> "MegapixelMNIST":
        """The set itself: its images are never augmented."""
        return self

    def batch(self, indices: Sequence[int]) -> SceneBatch:
        """Several images as one PatchBatch; its `boxes` are the digits'."""
        placements = [self.placement(int(index)) for index in indices]
        stacked = Placement(*(np.stack(parts) for parts in zip(*placements, strict=True)))
        digits = np.arange(stacked.digits.size).reshape(stacked.digits.shape)
        layers = [
            Layer(self._noise_pool, stacked.patterns, stacked.noise_corners),
            Layer(self._digit_images(stacked.digits.ravel()), digits, stacked.digit_corners),
        ]
        labels = self.labels(stacked)
        return SceneBatch(self.grid, layers, sheet=self._noise_sheet, labels=labels)

    def canvas(self, index: int) -> np.ndarray:
        """One whole image (H, W) uint8, for figures."""
        return self.scene(self.placement(index)).draw(self.config.canvas)

    def _digit_images(self, digits: np.ndarray) -> np.ndarray:
        return resize_area(self.digits.images[digits], self.config.digit_size)

    @cached_property
    def _published(self) -> PublishedStart | None:
        if self.config.start != "published":
            return None
        return PublishedStart(self.config, self.split, self.digits, n_images=len(self))

    @cached_property
    def _noise_sheet(self) -> Sheet:
        return Sheet(self._noise_pool, self.config.patch_size)

    @property
    def _noise_pool(self) -> np.ndarray:
        config = self.config
        if self._published is not None:
            return self._published.noise_pool
        return noise_pool(
            config.noise,
            config.n_patterns,
            size=config.noise_size,
            stroke_width=config.stroke_width,
            key=(config.data_seed, SPLITS[self.split], _POOL_KEY),
        )

    def _stream(self, *key: int) -> np.random.RandomState:
        return stream(self.config.data_seed, SPLITS[self.split], *key)


class NeedlePlacement(NamedTuple):
    """What lies where; the last object is the one in question."""

    digits: np.ndarray  # (n_clutter + 1,) indices into the digit set
    corners: np.ndarray  # (n_clutter + 1, 2) rows and columns in pixels, in drawing order
    label: int  # 1 where the last object is a 3


@attrs.frozen(kw_only=True)
class NeedleMNIST:
    """Is there a 3 among many other digits? The task that Megapixel MNIST is set beside, one split
    of it; digits of 28 px, canvas height and width in pixels.

    Pawlowski et al., arXiv 1908.06037. One of the objects on the canvas is in question: a 3 (label
    1) or one more clutter digit (label 0), so that the number of objects does not tell the label.
    It is pasted last and so lies whole on top; the clutter may overlap.
    """

    digits: str = choice("mnist", SOURCES)
    split: str = choice("train", tuple(SPLITS))
    canvas: tuple[int, int] = side_lengths((512, 512))
    n_clutter: int = integer(30, at_least=0)
    data_seed: int = integer(0, at_least=0)

    def __attrs_post_init__(self) -> None:
        if min(self.canvas) < BOX:
            height, width = self.canvas
            raise IpslibError(
                f"canvas: digits of {BOX} px do not fit {height} x {width} px; enlarge canvas."
            )

    @property
    def digit_set(self) -> DigitSet:
        return load_digits(self.digits, self.split)

    def placement(self, index: int) -> NeedlePlacement:
        random = stream(self.data_seed, SPLITS[self.split], _NEEDLE_KEY, index)
        label = random.randint(2)
        needles, clutter = self.digit_set.of_class(NEEDLE_CLASS)
        digits = random.choice(clutter, self.n_clutter + 1)
        if label:
            digits[-1] = random.choice(needles)
        corners = place_freely(random, self.n_clutter + 1, BOX, self.canvas)
        return NeedlePlacement(digits, corners, int(label))

    def scene(self, placement: NeedlePlacement) -> Scene:
        """Make a placement drawable; the last box is the one in question."""
        boxes = np.column_stack([placement.corners, np.full_like(placement.corners, BOX)])
        return Scene(boxes, self.digit_set.images[placement.digits])
