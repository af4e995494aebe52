"""Megapixel MNIST: five digits among noise on a canvas of any size, drawn patch by patch; and
Needle MNIST, which it is set beside.

An image is a key and its placements. Nothing is stored: patches are drawn when they are asked
for, and the same key gives the same bytes whatever the machine, the order or the other images.
Three digits share a class (`majority`), two are of other classes; Katharopoulos and Fleuret,
arXiv 1905.03711, introduced the task, Bergner et al., arXiv 2210.13007, its four labels.
"""

from collections.abc import Sequence
from functools import cached_property

import attrs
import numpy as np
import torch
from torch import Tensor

from ipslib.datasets.images.augmentation import draw_shift
from ipslib.datasets.megapixel_mnist.config import (
    N_CLASSES,
    N_DIGITS,
    SOURCES,
    MegapixelMNISTConfig,
    chance_level,
)
from ipslib.datasets.megapixel_mnist.digits import BOX, DigitSet, load_digits, resize_area
from ipslib.datasets.megapixel_mnist.noise import noise_pool
from ipslib.datasets.megapixel_mnist.placement import (
    Placement,
    place_apart,
    place_freely,
    published_start,
)
from ipslib.datasets.megapixel_mnist.scenes import (
    Layer,
    SceneBatch,
    Sheet,
    ShrunkBatch,
    draw_whole,
    shrink,
)
from ipslib.datasets.synthetic import stream
from ipslib.fields import check_fits, choice, integer, side_lengths
from ipslib.patches import SPLITS, PatchGrid, check_augmented

NEEDLE_CLASS = 3
_POOL_KEY, _IMAGE_KEY, _NEEDLE_KEY, _AUGMENT_KEY = 0, 1, 2, 3


@attrs.frozen
class MegapixelMNIST:
    """One split of the task. Image i of a split does not depend on how many images are used, so
    smaller training sets are subsets of larger ones and the test set is always the same."""

    config: MegapixelMNISTConfig
    split: str = choice("train", tuple(SPLITS))
    _moment: tuple[int, int] | None = None  # seed and epoch
    uneven = False

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
        sums = {split: load_digits(self.config.digits, split).sha256 for split in SPLITS}
        return {"digit_source": self.config.digits, "digits_sha256": sums}

    def placement(self, index: int) -> Placement:
        """What lies where on image `index`."""
        if self._published is not None:
            return self._published[0][index]
        config = self.config
        random = stream(config.data_seed, SPLITS[self.split], _IMAGE_KEY, index)
        same, other = self.digits.of_class(random.randint(N_CLASSES))
        digits = np.concatenate([random.choice(same, 3), random.choice(other, N_DIGITS - 3)])
        corners = place_apart(random, N_DIGITS, config.digit_size, config.canvas)
        n, margin = config.n_noise, BOX if config.noise == "line" else 0
        patterns = random.randint(0, max(config.n_patterns, 1), size=n)
        around = place_freely(random, n, config.noise_size, config.canvas, margin=margin)
        return Placement(digits, corners, patterns, around)

    def labels(self, placement: Placement) -> dict[str, Tensor]:
        """The label of each task, of one image or of stacked ones; `multi` is multi-hot (10,)."""
        present = torch.from_numpy(self.digits.labels[placement.digits])  # (..., 5)
        topmost = torch.from_numpy(placement.digit_corners)[..., 0].argmin(dim=-1, keepdim=True)
        all_labels = {
            "majority": present.mode(dim=-1).values,
            "max": present.amax(dim=-1),
            "top": present.gather(-1, topmost).squeeze(-1),
            "multi": torch.zeros(*present.shape[:-1], N_CLASSES).scatter_(-1, present, 1.0),
        }
        return {task: all_labels[task] for task in self.config.tasks}

    def augmented(self, *, seed: int, epoch: int) -> "MegapixelMNIST":
        """The training set as it looks in an epoch, every image moved as `translate` says;
        IpslibError for the test set, never augmented."""
        check_augmented(self.split)
        if not self.config.translate or 0 < self.config.translate_epochs < epoch:
            return self
        return attrs.evolve(self, moment=(seed, epoch))

    def translation(self, index: int) -> np.ndarray:
        """How many pixels down and to the right everything on image `index` is moved."""
        if self._moment is None:
            return np.zeros(2, int)
        seed, epoch = self._moment
        random = stream(seed, SPLITS[self.split], _AUGMENT_KEY, epoch, index)
        return np.array(draw_shift(random, self.config.translate))

    def batch(self, indices: Sequence[int]) -> SceneBatch | ShrunkBatch:
        """Several images as one PatchBatch; its `boxes` are the digits'."""
        layers, labels = self._scenes(indices)
        if self.config.shrunk_to != self.config.canvas:
            return ShrunkBatch(self.grid, layers, canvas=self.config.canvas, labels=labels)
        return SceneBatch(self.grid, layers, sheet=self._noise, labels=labels)

    def _scenes(self, indices: Sequence[int]) -> tuple[list[Layer], dict[str, Tensor]]:
        """What is drawn on several images, and their labels."""
        stacked = Placement.stacked([self.placement(int(index)) for index in indices])
        shown = self.digits.images[stacked.digits.ravel()]  # every digit is a kind of its own
        nth = np.arange(stacked.digits.size).reshape(stacked.digits.shape)
        layers = [
            Layer(self._noise.kinds, stacked.patterns, stacked.noise_corners),
            Layer(resize_area(shown, self.config.digit_size), nth, stacked.digit_corners),
        ]
        if self._moment is not None:
            moves = np.stack([self.translation(int(index)) for index in indices])[:, None]
            layers = [layer.moved(moves, self.config.canvas) for layer in layers]
        return layers, self.labels(stacked)

    def canvas(self, index: int) -> np.ndarray:
        """One whole image (H, W) uint8 as it is cut, for figures."""
        layers, _ = self._scenes([index])
        whole = draw_whole(layers, self.config.canvas)
        return shrink(whole, self.config.shrunk_to)

    @cached_property
    def _published(self) -> tuple[list[Placement], np.ndarray] | None:
        if self.config.start != "published":
            return None
        return published_start(self.config, self.split, self.digits, n_images=len(self))

    @cached_property
    def _noise(self) -> Sheet:
        config, key = self.config, (self.config.data_seed, SPLITS[self.split], _POOL_KEY)
        if self._published is not None:
            return Sheet(self._published[1], config.patch_size)
        look = {"size": config.noise_size, "stroke_width": config.stroke_width}
        pool = noise_pool(config.noise, config.n_patterns, key=key, **look)
        return Sheet(pool, config.patch_size)


@attrs.frozen(kw_only=True)
class NeedleMNIST:
    """Is there a 3 among many other digits of 28 px? One split of the task of Pawlowski et al.,
    arXiv 1908.06037, that Megapixel MNIST is set beside.

    One object is in question: a 3 (label 1) or one more clutter digit (label 0), so that the
    number of objects does not tell the label. It lies whole on top; the clutter may overlap.
    """

    digits: str = choice("mnist", SOURCES)
    split: str = choice("train", tuple(SPLITS))
    canvas: tuple[int, int] = side_lengths((512, 512))
    n_clutter: int = integer(30, at_least=0)
    data_seed: int = integer(0, at_least=0)

    def __attrs_post_init__(self) -> None:
        check_fits(self.canvas, digits=BOX)

    def objects(self, index: int) -> tuple[Layer, int]:
        """The objects of image `index`, the one in question last, and its label."""
        random = stream(self.data_seed, SPLITS[self.split], _NEEDLE_KEY, index)
        label = int(random.randint(2))
        digit_set = load_digits(self.digits, self.split)
        needles, clutter = digit_set.of_class(NEEDLE_CLASS)
        digits = random.choice(clutter, self.n_clutter + 1)
        if label:
            digits[-1] = random.choice(needles)
        corners = place_freely(random, self.n_clutter + 1, BOX, self.canvas)
        return Layer(digit_set.images, digits[None], corners[None]), label
