"""What a run on Megapixel MNIST is made of; the defaults are the published sizes, but for `noise`,
which draws true widths (published: `bezier_pixel`)."""

import attrs

from ipslib.config import check_published_start
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import check_fits, choice, choices, integer, number, side_lengths
from ipslib.patches import Dataset, PatchGrid

TASKS = ("majority", "max", "top", "multi")
SOURCES = ("mnist", "embedded")  # of digits
N_DIGITS, N_CLASSES = 5, 10


@attrs.frozen(kw_only=True)
class MegapixelMNISTConfig:
    """Sizes in pixels, counts in images or objects.

    Noise objects are drawn from a pool of `n_patterns` a split; as published, as many as there
    are objects on a canvas. Where those are few, a larger pool keeps them from being memorised.
    """

    start: str = choice("own", ("own", "published"))  # of data, weights and orders
    digits: str = choice("mnist", SOURCES)
    canvas: tuple[int, int] = side_lengths((3000, 3000))
    digit_size: int = integer(28, at_least=4)
    noise_size: int = integer(lambda self: self.digit_size, at_least=4)
    n_noise: int = integer(800, at_least=0)
    n_patterns: int = integer(lambda self: self.n_noise, at_least=0)
    noise: str = choice(  # bezier_pixel: as published
        lambda self: "bezier_pixel" if self.start == "published" else "bezier",
        ("bezier", "bezier_pixel", "line"),
    )
    stroke_width: float = number(1.925, at_least=0.1, at_most=28.0)  # px at 28 px
    patch_size: int = integer(50, at_least=4)
    patch_stride: int = integer(lambda self: self.patch_size)
    shrunk_to: tuple[int, int] = side_lengths(lambda self: self.canvas)  # by area, before cutting
    translate: int = integer(0, at_least=0)  # px, by which training moves an image at most
    translate_epochs: int = integer(0, at_least=0)  # the first ones, that do; 0: all
    tasks: tuple[str, ...] = choices(TASKS, TASKS)
    n_train: int = integer(1000)
    n_test: int = integer(1000)
    data_seed: int = integer(0, at_least=0)

    kind = "megapixel_mnist"
    in_channels = 1
    is_synthetic = False

    def __attrs_post_init__(self) -> None:
        height, width = self.canvas
        check_fits(self.canvas, digit_size=self.digit_size, noise_size=self.noise_size)
        check_fits(self.shrunk_to, patch_size=self.patch_size)
        if self.shrunk_to[0] > height or self.shrunk_to[1] > width:
            raise IpslibError(
                f"shrunk_to: wanted at most {height} x {width} px, the canvas, got "
                f"{self.shrunk_to[0]} x {self.shrunk_to[1]}; reduce shrunk_to or enlarge canvas."
            )
        _ = self.grid  # which checks itself
        # No arrangement holds more than the plain grid does.
        n_fit = (height // self.digit_size) * (width // self.digit_size)
        if n_fit < N_DIGITS:
            raise IpslibError(
                f"digit_size: {N_DIGITS} digits of {self.digit_size} px do not lie apart on "
                f"{height} x {width} px (room for {n_fit}); enlarge canvas or reduce digit_size."
            )
        if self.n_noise and not self.n_patterns:
            raise IpslibError("n_patterns: wanted at least 1 where n_noise is not 0, got 0.")
        least = self.noise_size + 56
        if self.noise == "line" and self.n_noise and min(self.canvas) < least:
            raise IpslibError(
                f"canvas: wanted sides of at least {least} px, since line noise keeps 28 px from "
                f"every edge, got {height} x {width}; enlarge canvas or use noise bezier."
            )
        if self.start == "published":
            check_published_start(
                self, digits="mnist", noise_size=self.digit_size, n_patterns=self.n_noise,
                noise="bezier_pixel", tasks=TASKS, translate=0, data_seed=0,
            )  # fmt: skip

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.shrunk_to, self.patch_size, self.patch_stride)

    @property
    def n_classes(self) -> dict[str, int]:
        return dict.fromkeys(self.tasks, N_CLASSES)

    @property
    def source(self) -> str:
        if self.digits == "mnist":
            return "MNIST"
        return "the embedded optical digits (no MNIST here: set IPSLIB_DATA to use it)"

    @property
    def short_name(self) -> str:
        """In the published convention, see `ipslib.runs.provenance`."""
        sizes = "_".join(map(str, (self.digit_size, self.noise_size, *self.canvas)))
        return f"{sizes}_{self.n_noise}n_{self.n_train}d"

    @property
    def o2i_ratio(self) -> float:
        """Object-to-image ratio: the area of one digit over that of the canvas."""
        return self.digit_size**2 / (self.canvas[0] * self.canvas[1])

    def open_split(self, split: str) -> Dataset:
        from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST  # needs this module

        return MegapixelMNIST(self, split)


def chance_level(task: str, *, n_classes: int = N_CLASSES) -> float:
    """Accuracy of the best constant answer.

    Three digits are of a class t uniform over n, two are drawn independently from the n - 1 others
    (taken as equally large). Every class is majority or topmost with probability 1/n. The largest
    digit is at most m with probability (m + 1)/n (m/(n - 1))^2, and most often the largest class.
    A set of three classes comes about in 3 x 2 ways, each of 1/n 1/(n - 1)^2, one of two in 2.
    """
    n = n_classes
    levels = {
        "majority": 1 / n,
        "top": 1 / n,
        "max": 1 - (n - 1) / n * ((n - 2) / (n - 1)) ** 2,
        "multi": 6 / (n * (n - 1) ** 2),
    }
    if task not in levels:
        raise IpslibError(f"no chance level for task {task!r}{did_you_mean(task, levels)}.")
    return levels[task]
