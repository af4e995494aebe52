"""Needle MNIST: is there a 3 among many other digits? The task that Megapixel MNIST is set beside.

Pawlowski et al., arXiv 1908.06037. One of the objects on the canvas is in question: a 3 (label
1) or one more clutter digit (label 0), so that the number of objects does not tell the label. It
is pasted last and so lies whole on top; the clutter may overlap.
"""

from typing import NamedTuple

import attrs
import numpy as np

from ipslib.datasets.megapixel_mnist.dataset import Scene
from ipslib.datasets.megapixel_mnist.digits import SOURCES, DigitSet, load_digits
from ipslib.datasets.megapixel_mnist.noise import BOX
from ipslib.datasets.megapixel_mnist.placement import place_freely
from ipslib.datasets.synthetic import stream
from ipslib.errors import IpslibError
from ipslib.fields import choice, integer, side_lengths
from ipslib.patches import SPLITS

NEEDLE_CLASS = 3
_NEEDLE_KEY = 2  # Megapixel MNIST's streams have 0 and 1 here


class NeedlePlacement(NamedTuple):
    """What lies where; the last object is the one in question."""

    digits: np.ndarray  # (n_clutter + 1,) indices into the digit set
    corners: np.ndarray  # (n_clutter + 1, 2) rows and columns in pixels, in drawing order
    label: int  # 1 where the last object is a 3


@attrs.frozen(kw_only=True)
class NeedleMNIST:
    """One split of the task; digits of 28 px, canvas height and width in pixels."""

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
        """The digits that this split draws from."""
        return load_digits(self.digits, self.split)

    def placement(self, index: int) -> NeedlePlacement:
        """Draw what lies where on image `index`."""
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
