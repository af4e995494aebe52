"""What a run is: frozen, checked configurations whose defaults are the published sizes.

Two defaults are set right and not as published: `noise` draws true widths (published:
`bezier_pixel`), `diversity_on` is the attention (published: `outputs`).

A run is identified by a hash of what differs from these defaults and of the version of the
arithmetic, so that a field added later, with a default that keeps today's behaviour, leaves every
earlier identity as it was.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

import attrs

from ipslib import arithmetic
from ipslib.datasets.images.own_images import OwnImagesConfig
from ipslib.datasets.megapixel_mnist.placement import most_apart
from ipslib.datasets.slides.config import SlidesConfig
from ipslib.datasets.traffic_signs.config import TrafficSignsConfig
from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice, choices, flag, integer, number, side_lengths
from ipslib.patches import PatchGrid

TASKS = ("majority", "max", "top", "multi")
N_DIGITS, N_CLASSES = 5, 10


@attrs.frozen(kw_only=True)
class DataConfig:
    """Megapixel MNIST: sizes in pixels, counts in images or objects.

    Noise objects are drawn from a pool of `n_patterns` a split; as published, as many as there
    are objects on a canvas. Where those are few, a larger pool keeps the network from learning
    the training set's patterns by heart.
    """

    start: str = choice("own", ("own", "published"))  # of data, weights and orders
    digits: str = choice("mnist", ("mnist", "embedded"))
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
    tasks: tuple[str, ...] = choices(TASKS, TASKS)
    n_train: int = integer(1000)
    n_test: int = integer(1000)
    data_seed: int = integer(0, at_least=0)

    def __attrs_post_init__(self) -> None:
        height, width = self.canvas
        for name in ("patch_size", "digit_size", "noise_size"):
            if getattr(self, name) > min(self.canvas):
                raise IpslibError(
                    f"{name}: {getattr(self, name)} px does not fit the canvas of "
                    f"{height} x {width} px; enlarge canvas or reduce {name}."
                )
        if self.patch_stride > self.patch_size:
            raise IpslibError(
                f"patch_stride: {self.patch_stride} px leaves gaps between patches of "
                f"{self.patch_size} px; reduce patch_stride or enlarge patch_size."
            )
        n_fit = most_apart(self.digit_size, self.canvas)
        if n_fit < N_DIGITS:
            raise IpslibError(
                f"digit_size: {N_DIGITS} digits of {self.digit_size} px cannot lie on a canvas of "
                f"{height} x {width} px without overlap (room for {n_fit}); "
                "enlarge canvas or reduce digit_size."
            )
        if self.n_noise and not self.n_patterns:
            raise IpslibError(
                f"n_patterns: {self.n_noise} noise objects need at least 1 pattern to be drawn "
                "from, got 0."
            )
        if self.noise == "line" and self.n_noise and min(self.canvas) < self.noise_size + 56:
            raise IpslibError(
                f"canvas: line noise of {self.noise_size} px keeps 28 px from every edge and needs "
                f"sides of at least {self.noise_size + 56} px, got {height} x {width}; "
                "enlarge canvas or use noise bezier."
            )
        if self.start == "published":
            self._check_published_start()

    def _check_published_start(self) -> None:
        wanted = {
            "digits": "mnist",
            "noise_size": self.digit_size,
            "n_patterns": self.n_noise,
            "noise": "bezier_pixel",
            "tasks": TASKS,
            "data_seed": 0,
        }
        for name, value in wanted.items():
            _check_of_published_start(self, name, value)

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.canvas, self.patch_size, self.patch_stride)

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return dict.fromkeys(self.tasks, N_CLASSES)

    @property
    def in_channels(self) -> int:
        return 1

    @property
    def source(self) -> str:
        """The digits' source in words."""
        return {
            "mnist": "MNIST",
            "embedded": "the embedded optical digits (no MNIST here: set IPSLIB_DATA to use it)",
        }[self.digits]

    @property
    def short_name(self) -> str:
        """In the published convention, see `ipslib.runs.naming`."""
        height, width = self.canvas
        objects = f"{self.digit_size}_{self.noise_size}_{height}_{width}"
        return f"{objects}_{self.n_noise}n_{self.n_train}d"

    @property
    def o2i_ratio(self) -> float:
        """Object-to-image ratio: the area of one digit over that of the canvas."""
        return self.digit_size**2 / (self.canvas[0] * self.canvas[1])


@attrs.frozen(kw_only=True)
class ModelConfig:
    """Encoder, cross-attention pooling and patch selection."""

    encoder: str = choice("resnet18", ("resnet18", "resnet50", "features"))
    weights: str = choice("none", ("none", "imagenet_v1", "imagenet_v2"))
    frozen: bool = flag(False)  # all but the first convolution and the projection
    n_stages: int = integer(lambda self: 2 if self.encoder == "resnet18" else 4, at_most=4)
    width: float = number(1.0, at_least=1 / 16, at_most=4.0)  # times the channels of ResNet-18
    n_heads: int = integer(8)
    dropout: float = number(0.1, at_most=0.9)
    attn_dropout: float = number(0.1, at_most=0.9)
    position_encoding: bool = flag(True)
    memory_size: int = integer(100)  # M, patches kept
    iter_size: int = integer(100)  # I, patches that compete with them at a time
    shuffle: bool = flag(True)  # visit patches in random order: equal scores break fairly
    mask_k: int = integer(0, at_least=0)  # how many of the best patches can be dropped
    mask_p: float = number(0.0, at_most=1.0)  # with this probability
    mask_variant: str = choice("scores", ("scores", "logits"))  # logits: exactly int(k p), ACMIL
    mask_in_eval: bool = flag(False)  # true: as published

    def __attrs_post_init__(self) -> None:
        if self.mask_k > self.memory_size + self.iter_size:
            raise IpslibError(
                f"mask_k: wanted at most memory_size + iter_size = "
                f"{self.memory_size + self.iter_size} patches, got {self.mask_k}."
            )
        if self.encoder == "features" and (self.weights != "none" or self.frozen):
            raise IpslibError(
                "weights: the encoder of feature bags is trained from the start; use weights none "
                "and frozen false."
            )
        if self.weights == "imagenet_v2" and self.encoder != "resnet50":
            raise IpslibError(
                "weights: imagenet_v2 exists for resnet50 only; "
                "use imagenet_v1 or encoder resnet50."
            )
        if self.weights != "none" and self.width != 1.0:
            raise IpslibError(
                f"width: {self.weights} weights need the full width of 1, got {self.width:g}."
            )
        if self.embedding_dim % self.n_heads:
            raise IpslibError(
                f"n_heads: {self.n_heads} heads do not divide the embedding of "
                f"{self.embedding_dim}; use a divisor."
            )

    @property
    def embedding_dim(self) -> int:
        """D: channels of the last ResNet-18 stage used; 128 behind ResNet-50's projection, and
        512 (times the width) behind that of feature bags."""
        if self.encoder == "resnet50":
            return 128
        if self.encoder == "features":
            return round(512 * self.width)
        return round(64 * self.width) * 2 ** (self.n_stages - 1)


@attrs.frozen(kw_only=True)
class TrainingConfig:
    """Optimisation, loss weights and evaluation."""

    epochs: int = integer(100)
    batch_size: int = integer(16)
    lr: float = number(1e-3, at_most=10.0)
    weight_decay: float = number(0.1, at_most=10.0)
    warmup_epochs: int = integer(10, at_least=0)
    final_lr_ratio: float = number(0.001, at_most=1.0)  # of the peak, where the cosine ends
    semantic_weight: float = number(0.0)
    diversity_weight: float = number(0.0)
    diversity_on: str = choice("attention", ("attention", "outputs"))  # outputs: as published
    eval_every: int = integer(1)  # epochs; the last is always evaluated
    seed: int = integer(0, at_least=0)
    precision: str = choice("fp32", ("fp32", "bf16"))


class DatasetConfig(Protocol):
    """What every kind of data says of itself; each is an attrs class of checked fields."""

    short_name: str  # in the names of runs
    n_classes: Mapping[str, int]  # outputs by task
    in_channels: int  # of a patch, or the length of a feature row
    grid: PatchGrid | None  # of every image; None where images differ
    source: str  # what results are made of, in words


@attrs.frozen(kw_only=True)
class RunConfig:
    """One training run: its data, model and training, read from and written to one flat mapping.

    The flat mapping names its kind of data in `dataset`, where it is not Megapixel MNIST.
    """

    data: DatasetConfig = attrs.Factory(DataConfig)
    model: ModelConfig = attrs.Factory(ModelConfig)
    training: TrainingConfig = attrs.Factory(TrainingConfig)

    def __attrs_post_init__(self) -> None:
        if (self.model.encoder == "features") != (self.dataset in _OF_FEATURES):
            raise IpslibError(
                f"encoder: {self.model.encoder} does not read {self.dataset}; images need resnet18 "
                "or resnet50, feature bags need features."
            )
        if isinstance(self.data, DataConfig):
            self._check_batch_norm(self.data)
        if self.published_start:
            for name, value in {"encoder": "resnet18", "width": 1, "mask_k": 0}.items():
                _check_of_published_start(self.model, name, value)

    def _check_batch_norm(self, data: DataConfig) -> None:
        smallest_batch = data.n_train % self.training.batch_size or self.training.batch_size
        n_kept = min(self.model.memory_size, data.grid.n_patches)
        side = -(-data.patch_size // 2 ** (self.model.n_stages + 1))  # of the last feature map
        if smallest_batch * n_kept * side**2 < 2:
            raise IpslibError(
                f"memory_size: a batch of {smallest_batch} image with {n_kept} kept patch leaves "
                "batch normalisation one value a channel; raise memory_size or patch_size, or "
                "choose a batch_size that leaves no single image over."
            )

    @classmethod
    def from_flat(cls, values: Mapping[str, object]) -> "RunConfig":
        """Build from `{field: value}`; raise IpslibError for an unknown field or a bad value."""
        values = dict(values)
        kind = values.pop("dataset", MEGAPIXEL_MNIST)
        if kind not in DATASETS:
            raise IpslibError(
                f"dataset: wanted one of {', '.join(DATASETS)}, got {kind!r}"
                f"{did_you_mean(str(kind), DATASETS)}."
            )
        sections = {"data": DATASETS[kind], "model": ModelConfig, "training": TrainingConfig}
        section_of = {f.name: name for name, of in sections.items() for f in attrs.fields(of)}
        unknown = [name for name in values if name not in section_of]
        if unknown:
            hint = did_you_mean(unknown[0], section_of)
            raise IpslibError(f"{unknown[0]!r} is no field of a run{hint}.")
        fields = {
            section: {n: v for n, v in values.items() if section_of[n] == section}
            for section in sections
        }
        return cls(**{name: of(**fields[name]) for name, of in sections.items()})

    @property
    def published_start(self) -> bool:
        """Whether data, initial weights and orders are drawn as the published runs drew them."""
        return isinstance(self.data, DataConfig) and self.data.start == "published"

    @property
    def dataset(self) -> str:
        """The kind of data by name."""
        return next(name for name, kind in DATASETS.items() if type(self.data) is kind)

    def flat(self) -> dict[str, object]:
        """Every field by name, in the order of definition, as JSON can hold it."""
        values = {} if self.dataset == MEGAPIXEL_MNIST else {"dataset": self.dataset}
        for section in (self.data, self.model, self.training):
            for name, value in attrs.asdict(section).items():
                values[name] = list(value) if isinstance(value, tuple) else value
        return values

    def replace(self, **changes: object) -> "RunConfig":
        """A copy with some fields changed; what is derived from a changed field follows it."""
        return RunConfig.from_flat(self.changed() | changes)

    def changed(self) -> dict[str, object]:
        """The fields that differ from the published defaults."""
        values = self.flat()
        for section in (self.data, self.model, self.training):
            for field in attrs.fields(type(section)):
                default = field.default
                if isinstance(default, attrs.Factory):
                    default = default.factory(section)
                if getattr(section, field.name) == default:
                    del values[field.name]
        return values

    @property
    def id(self) -> str:
        """12 hexadecimal digits that identify the run, made by today's arithmetic."""
        return self.id_by(arithmetic.CURRENT)

    def id_by(self, version: int) -> str:
        """The run's id, made by a version of the arithmetic."""
        identity = self.changed() | ({"arithmetic": version} if version > 1 else {})
        canonical = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _check_of_published_start(section: object, name: str, wanted: object) -> None:
    got = getattr(section, name)
    if got != wanted:
        raise IpslibError(
            f"{name}: start published wants {wanted!r}, as the published runs had, got {got!r}; "
            f"set {name} to that, or use start own."
        )


MEGAPIXEL_MNIST = "megapixel_mnist"
DATASETS: dict[str, type] = {
    MEGAPIXEL_MNIST: DataConfig,
    "traffic_signs": TrafficSignsConfig,
    "slides": SlidesConfig,
    "own_images": OwnImagesConfig,
}
_OF_FEATURES = {"slides"}  # those of DATASETS that are bags of features, not images
