"""What a run on images of one's own is made of: tables and their columns, patches, parts, what is
done to images and classes in training. README.md beside says what each option does."""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from ipslib.datasets.images.augmentation import FLIPS
from ipslib.datasets.images.boxes import Boxes
from ipslib.datasets.images.labels import labels_in
from ipslib.datasets.images.sources import PatchSource, open_source
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice, flag, integer, number
from ipslib.paths import found, from_project

if TYPE_CHECKING:
    from ipslib.datasets.images.own_images import OwnImages

_NOTHING = attrs.Factory(lambda _: {}, takes_self=True)


def _to_weights(value: object) -> object:
    """By task and class as texts and floats, as JSON gives them back."""
    if not isinstance(value, Mapping) or not all(isinstance(w, Mapping) for w in value.values()):
        return value
    return {
        task: {str(name): w + 0.0 if type(w) is int else w for name, w in of_task.items()}
        for task, of_task in value.items()
    }


@attrs.frozen(kw_only=True)
class DescribedImages:
    """What is found in tables, images and a file of weights. The hashes are of the tables, of all
    images that they name and of the weights: a run belongs to what it was trained on."""

    labels: str  # path of the CSV, relative to the project where it lies inside
    labels_sha256: str
    images_sha256: str = ""  # empty: of a run from before images counted
    classes: dict[str, list[str]]  # by task, in the order of the outputs
    several: tuple[str, ...] = attrs.field(default=(), converter=tuple)  # tasks of sets, `a|b`
    numbers: dict[str, list[float]] = _NOTHING  # by task: mean and deviation in training
    boxes: str = ""  # path of a CSV of what is to be found, as of `labels`
    boxes_sha256: str = ""
    weights_sha256: str = ""  # of a file that the encoder starts from
    group: str = ""  # column of what images belong to, which stays in one part
    in_channels: int = integer(1)  # that most images have


@attrs.frozen(kw_only=True)
class OwnImagesConfig(DescribedImages):
    """Images of one's own; made by `describe_images`. The fields here are those that one sets."""

    patch_size: int = integer(50, at_least=4)
    patch_stride: int = integer(lambda self: self.patch_size)
    level: int = integer(0, at_least=0)  # of a pyramidal TIFF
    test_share: float = number(0.2, at_least=0.01, at_most=0.99)  # where there is no split
    validation: float = number(0.0, at_most=0.9)  # share of the others, to keep the best epoch by
    split_seed: int = integer(0, at_least=0)
    flips: str = choice("none", FLIPS)  # of images to train on, each with a chance of one half
    rotations: bool = flag(False)  # by quarters
    translate: int = integer(0, at_least=0)  # px, up to a patch: moved by at most so much
    brightness: float = number(0.0, at_most=0.5)  # and contrast: factors 1 - this .. 1 + this
    colour: float = number(0.0, at_most=0.5)  # saturation, likewise; hue by this of its circle
    class_weights: str | dict = attrs.field(default="", converter=_to_weights)  # in the loss
    balanced_sampling: str = ""  # the task whose classes are drawn equally often

    kind = "own_images"
    is_synthetic = False
    grid = None  # images may differ in size

    def __attrs_post_init__(self) -> None:
        if self.translate > self.patch_size:
            raise IpslibError(
                f"translate: wanted at most a patch of {self.patch_size} px, got "
                f"{self.translate}; half a patch is usual."
            )
        if self.colour and self.in_channels != 3:
            raise IpslibError(
                f"colour: wanted images of three channels, got {self.in_channels}; use brightness."
            )
        self._check_balance()

    def _check_balance(self) -> None:
        """Refuse weights and sampling of what are no classes."""
        weights, task = self.class_weights, self.balanced_sampling
        if task and task not in self.classes.keys() - {*self.several}:
            hint = did_you_mean(task, self.classes)
            raise IpslibError(f"balanced_sampling: wanted a task of classes, got {task!r}{hint}.")
        if weights == "balanced" and task:
            raise IpslibError("class_weights: balanced_sampling does the same; use one of them.")
        if weights and not self.classes:
            raise IpslibError("class_weights: wanted a task of classes, got numbers.")
        fits = weights in ("", "balanced")
        if isinstance(weights, Mapping):
            fits = all(self._weighs(task, of_task) for task, of_task in weights.items())
        if not fits:
            wanted = "; ".join(f"{task}: {', '.join(of)}" for task, of in self.classes.items())
            raise IpslibError(
                "class_weights: wanted balanced, or by task a number above 0 for each of its "
                f"classes ({wanted}), got {weights!r}."
            )

    def _weighs(self, task: str, weights: object) -> bool:
        is_whole = isinstance(weights, Mapping) and {*weights} == {*self.classes.get(task, [None])}
        return is_whole and all(isinstance(w, float) and 0 < w < inf for w in weights.values())

    def open_split(self, split: str) -> "OwnImages":
        from ipslib.datasets.images.own_images import OwnImages  # which imports this module

        return OwnImages(self, split)

    @property
    def tasks(self) -> list[str]:
        """In the order of the outputs."""
        return [*self.classes, *self.numbers]

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return {task: len(self.classes.get(task, [""])) for task in self.tasks}

    @property
    def source(self) -> str:
        return f"the images of {Path(self.labels).name}"

    @property
    def short_name(self) -> str:
        return f"images_{Path(self.labels).stem}_PS_{self.patch_size}"

    def open(self, image: str | Path | np.ndarray) -> PatchSource:
        """Any image as patches of this size."""
        cut = {"patch_size": self.patch_size, "patch_stride": self.patch_stride}
        return open_source(image, level=self.level, **cut)

    def labels_in(self, task: str, cell: str) -> list[str]:
        """The classes that a cell names; none of numbers."""
        return labels_in(cell, task in self.several) if task in self.classes else []

    def boxes_of(self, image: str | Path) -> np.ndarray | None:
        """What is to be found in an image, (n, 4) of top, left, height, width in pixels of level
        0; None where no boxes are known."""
        path = from_project(self.boxes)
        return Boxes(path).of(found(image)) if self.boxes and path.is_file() else None
