"""Megapixel MNIST: five digits among noise on a canvas of any size, drawn patch by patch.

An image is a key and its placements. Nothing is stored: patches are drawn when they are asked
for, and the same key gives the same bytes whatever the machine, the order or the other images.
Three digits share a class (`majority`), two are of other classes; Katharopoulos and Fleuret,
arXiv 1905.03711, introduced the task, Bergner et al., arXiv 2210.13007, its four labels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from ipslib.config import N_DIGITS, DataConfig
from ipslib.data.digits import DigitSet, load_digits
from ipslib.data.noise import BOX, noise_pool
from ipslib.data.patches import PatchGrid
from ipslib.data.placement import place_apart, place_freely
from ipslib.data.randomness import SPLITS, stream
from ipslib.data.resize import resize_area
from ipslib.fields import choice

_POOL_KEY, _IMAGE_KEY = 0, 1
_REMEMBERED_OBJECTS = 100_000  # of all images together; a larger set is laid out anew each time
N_CLASSES = 10


class Placement(NamedTuple):
    """What lies where on one image; corners are (row, column) in pixels."""

    digits: np.ndarray  # (5,) indices into the digit set
    digit_corners: np.ndarray  # (5, 2)
    patterns: np.ndarray  # (n_noise,) indices into the pool
    noise_corners: np.ndarray  # (n_noise, 2), in drawing order


class Scene(NamedTuple):
    """Objects on a canvas, pasted in order, each over its whole box."""

    boxes: np.ndarray  # (n, 4) of top, left, height, width in pixels
    objects: Sequence[np.ndarray]  # n of (height, width) uint8

    def draw(self, canvas: tuple[int, int]) -> np.ndarray:
        """The whole image (H, W) uint8."""
        image = np.zeros(canvas, np.uint8)
        for (top, left, height, width), each in zip(self.boxes, self.objects, strict=True):
            image[top : top + height, left : left + width] = each
        return image


class LaidOut(NamedTuple):
    """One image ready to be drawn: its scene, its labels, and which patch meets which object."""

    scene: Scene
    labels: dict[str, Tensor]
    patch: np.ndarray  # (pairs,) ascending
    object: np.ndarray  # (pairs,) in drawing order within a patch


class SceneBatch:
    """Laid-out images as a PatchBatch, drawn patch by patch, with `labels` {task: (B,) or (B, C)}
    and the digits' `boxes` (B, 5, 4) of top, left, height, width in pixels."""

    def __init__(self, grid: PatchGrid, images: Sequence[LaidOut]):
        self.grid, self.batch_size, self.n_patches = grid, len(images), grid.n_patches
        self.labels = {
            task: torch.stack([image.labels[task] for image in images]) for task in images[0].labels
        }
        scenes = [image.scene for image in images]
        self.boxes = torch.from_numpy(np.stack([each.boxes[-N_DIGITS:] for each in scenes]))
        self._boxes = np.concatenate([scene.boxes for scene in scenes])
        self._objects = [each for scene in scenes for each in scene.objects]
        # Pairs of a patch and an object that meet, over all images: patch p of image i is number
        # i N + p.
        first_object = np.cumsum([0] + [len(scene.objects) for scene in scenes])
        self._patch = np.concatenate([e.patch + i * self.n_patches for i, e in enumerate(images)])
        self._object = np.concatenate([e.object + first_object[i] for i, e in enumerate(images)])
        blank = np.ones(self.batch_size * self.n_patches, bool)
        blank[self._patch] = False
        self.blank = torch.from_numpy(blank).view(self.batch_size, self.n_patches)

    def read(self, image: Tensor, patch: Tensor) -> Tensor:
        """(n, 1, P, P) uint8."""
        size, patch = self.grid.patch_size, patch.numpy()
        number = image.numpy() * self.n_patches + patch
        start = np.searchsorted(self._patch, number, side="left")
        count = np.searchsorted(self._patch, number, side="right") - start
        nth = np.repeat(np.arange(len(patch)), count)
        pair = np.arange(len(nth)) + np.repeat(start - (np.cumsum(count) - count), count)
        drawn = self._object[pair]
        boxes = self._boxes[drawn]
        offset = boxes[:, :2] - self.grid.corners(patch)[nth]
        first, last = np.maximum(offset, 0), np.minimum(offset + boxes[:, 2:], size)
        spans = np.concatenate([first, last, first - offset, last - offset], axis=1)
        out, objects = np.zeros((len(patch), size, size), np.uint8), self._objects
        for n, o, r0, c0, r1, c1, s0, t0, s1, t1 in zip(
            nth.tolist(), drawn.tolist(), *spans.T.tolist(), strict=True
        ):
            out[n, r0:r1, c0:c1] = objects[o][s0:s1, t0:t1]
        return torch.from_numpy(out)[:, None]


@attrs.frozen
class MegapixelMNIST:
    """One split of the task. Image i of a split does not depend on how many images are used, so
    smaller training sets are subsets of larger ones and the test set is always the same."""

    config: DataConfig
    split: str = choice("train", tuple(SPLITS))
    _laid_out: dict[int, LaidOut] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def __len__(self) -> int:
        return self.config.n_train if self.split == "train" else self.config.n_test

    @property
    def grid(self) -> PatchGrid:
        return self.config.grid

    @property
    def digits(self) -> DigitSet:
        """The digits that this split draws from."""
        return load_digits(self.config.digits, self.split)

    def placement(self, index: int) -> Placement:
        """Draw what lies where on image `index`."""
        config = self.config
        random = self._stream(_IMAGE_KEY, index)
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
        """Make a placement drawable: noise first, in order, then digits."""
        config = self.config
        pool = noise_pool(
            config.noise,
            config.n_patterns,
            size=config.noise_size,
            stroke_width=config.stroke_width,
            key=(config.data_seed, SPLITS[self.split], _POOL_KEY),
        )
        digits = resize_area(self.digits.images[placement.digits], config.digit_size)
        corners = np.concatenate([placement.noise_corners, placement.digit_corners])
        sizes = np.repeat([config.noise_size, config.digit_size], [config.n_noise, N_DIGITS])
        boxes = np.column_stack([corners, sizes, sizes])
        return Scene(boxes, [*(pool[k] for k in placement.patterns.tolist()), *digits])

    def labels(self, placement: Placement) -> dict[str, Tensor]:
        """The label of each task; `multi` is a multi-hot vector (10,) of float32."""
        present = torch.from_numpy(self.digits.labels[placement.digits])
        topmost = int(placement.digit_corners[:, 0].argmin())
        multi = torch.zeros(N_CLASSES).scatter_(0, present, 1.0)
        all_labels = {
            "majority": present.mode().values,
            "max": present.max(),
            "top": present[topmost],
            "multi": multi,
        }
        return {task: all_labels[task] for task in self.config.tasks}

    def image(self, index: int) -> LaidOut:
        """Image `index` laid out; remembered where the whole split is small enough."""
        known = self._laid_out.get(index)
        if known is None:
            placement = self.placement(index)
            scene = self.scene(placement)
            known = LaidOut(scene, self.labels(placement), *self.grid.incidence(scene.boxes))
            if len(self) * (self.config.n_noise + N_DIGITS) <= _REMEMBERED_OBJECTS:
                self._laid_out[index] = known
        return known

    def batch(self, indices: Sequence[int]) -> SceneBatch:
        """Several images as one PatchBatch."""
        return SceneBatch(self.grid, [self.image(int(index)) for index in indices])

    def canvas(self, index: int) -> np.ndarray:
        """One whole image (H, W) uint8, for figures."""
        return self.scene(self.placement(index)).draw(self.config.canvas)

    def _stream(self, *key: int) -> np.random.RandomState:
        return stream(self.config.data_seed, SPLITS[self.split], *key)
