"""What a run is: frozen, checked configurations whose defaults are the published sizes, but for
`diversity_on`, which is the attention (published: `outputs`).

A run is identified by a hash of what differs from these defaults and of the version of the
arithmetic, so that a field added later, with a default that keeps today's behaviour, leaves every
earlier identity as it was. Whoever changes what a run computes adds a version to `ARITHMETICS`:
results of one version are never taken for those of another. Rounding on a GPU, where no run repeats
another's bits, makes no version.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

import attrs

from ipslib.errors import IpslibError, did_you_mean
from ipslib.fields import choice, flag, integer, number
from ipslib.patches import Dataset, PatchGrid

DEFAULT_KIND = "megapixel_mnist"  # of data, where a flat mapping names none
OTHER_ENCODERS = {"form": "torchvision/NAME or timm/NAME", "pattern": "(torchvision|timm)/.+"}
WEIGHTS = ("none", "default", "imagenet_v1", "imagenet_v2")
OTHER_WEIGHTS = {"form": "the path of a file", "pattern": r".*[./\\].*"}
ARITHMETICS = {
    1: "the first; records that state no version are of it",
    2: "batch norm exact on the CPU (its moments were off by up to a percent); the replaced first "
    "convolution starts with torch's default weights, as published; the cosine counts steps from "
    "1; whole-pixel strokes are the published ones: control points cut to whole pixels, column "
    "first, joined by OpenCV's lines",
}
ARITHMETIC = max(ARITHMETICS)  # today's


def arithmetic_of(record: Mapping) -> int:
    """The version of the arithmetic that made a record."""
    return record.get("arithmetic", 1)


@attrs.frozen(kw_only=True)
class ModelConfig:
    """Encoder, cross-attention pooling and patch selection."""

    encoder: str = choice("resnet18", ("resnet18", "resnet50", "features", "own"), **OTHER_ENCODERS)
    weights: str = choice("none", WEIGHTS, **OTHER_WEIGHTS)
    frozen: bool = flag(False)  # all but a replaced first convolution and the projection
    trained_blocks: int = integer(0, at_least=0)  # the last ones, the others frozen; 0: no such cut
    n_stages: int = integer(lambda self: 2 if self.encoder == "resnet18" else 4, at_most=4)
    width: float = number(1.0, at_least=1 / 16, at_most=4.0)  # times the channels of ResNet-18
    n_heads: int = integer(8)
    dropout: float = number(0.1, at_most=0.9)
    attn_dropout: float = number(0.1, at_most=0.9)
    position_encoding: bool = flag(True)
    memory_size: int = integer(100)  # M, patches kept
    iter_size: int = integer(100)  # I, patches that compete with them at a time
    selection: str = choice("attention", ("attention", "random"))  # random: M patches by lot
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
        if self.mask_k and self.selection == "random":
            raise IpslibError("mask_k: patches chosen by lot have no scores to mask; leave it 0.")
        partly = self.frozen or self.trained_blocks
        if self.encoder == "own" and self.weights != "none":
            raise IpslibError(
                f"weights: an encoder of your own comes with its own, got {self.weights}; leave "
                "them out."
            )
        if self.encoder == "features" and (self.weights != "none" or partly):
            raise IpslibError(
                "weights: the encoder of feature bags is trained from the start; use weights none, "
                "frozen false and trained_blocks 0."
            )
        if self.frozen and self.trained_blocks:
            raise IpslibError(
                f"trained_blocks: {self.trained_blocks} blocks cannot be trained where frozen is "
                "true; set one of them."
            )
        if "/" in self.encoder and (self.n_stages, self.width) != (4, 1.0):
            raise IpslibError(
                f"n_stages and width: {self.encoder} is taken whole; leave them out, or use "
                "resnet18."
            )
        if self.weights == "imagenet_v2" and self.encoder == "resnet18":
            raise IpslibError(
                "weights: imagenet_v2 is of resnet50; use imagenet_v1 or encoder resnet50."
            )
        if self.weights != "none" and self.width != 1.0:
            raise IpslibError(
                f"width: {self.weights} weights need the full width of 1, got {self.width:g}."
            )

    @property
    def embedding_dim(self) -> int | None:
        """D: channels of the last ResNet-18 stage used, or those behind a projection; None where
        only the network tells."""
        if "/" in self.encoder or self.encoder == "own":
            return None
        last_stage = round(64 * self.width) * 2 ** (self.n_stages - 1)
        projected = {"resnet50": 128, "features": round(512 * self.width)}
        return projected.get(self.encoder, last_stage)

    def check_heads(self, embedding_dim: int) -> None:
        if embedding_dim % self.n_heads:
            raise IpslibError(
                f"n_heads: {self.n_heads} heads do not divide the embedding of {embedding_dim}; "
                "use a divisor."
            )


@attrs.frozen(kw_only=True)
class TrainingConfig:
    """Optimisation, loss weights and evaluation."""

    epochs: int = integer(100)
    batch_size: int = integer(16)
    lr: float = number(1e-3, at_most=10.0)
    weight_decay: float = number(0.1, at_most=10.0)
    warmup_epochs: int = integer(10, at_least=0)
    final_lr_ratio: float = number(0.001, at_most=1.0)  # of the peak, where the cosine ends
    novelty_epochs: int = integer(0, at_least=0)  # the first ones, that select by novelty
    semantic_weight: float = number(0.0)
    diversity_weight: float = number(0.0)
    diversity_on: str = choice("attention", ("attention", "outputs"))  # outputs: as published
    eval_every: int = integer(1)  # epochs; the last is always evaluated
    seed: int = integer(0, at_least=0)
    precision: str = choice("fp32", ("fp32", "bf16"))


class DatasetConfig(Protocol):
    """What every kind of data says of itself; each is an attrs class of checked fields."""

    kind: str  # its name in `ipslib.datasets.registry`
    short_name: str  # in the names of runs
    n_classes: Mapping[str, int]  # outputs by task
    in_channels: int  # of a patch, or the length of a feature row
    patch_size: int | None  # in pixels; None where instances are rows of features
    grid: PatchGrid | None  # of every image; None where images differ
    source: str  # what results are made of, in words
    is_synthetic: bool  # drawn where real data belong: what is shown of them says so

    def open_split(self, split: str) -> Dataset:
        """Open `train` or `test`; IpslibError when its files are missing or unfit."""
        ...


@attrs.frozen(kw_only=True)
class RunConfig:
    """One training run: its data, model and training, written to and read from one flat mapping
    (`ipslib.datasets.registry.run_config` reads one of any kind of data)."""

    data: DatasetConfig
    model: ModelConfig = attrs.Factory(ModelConfig)
    training: TrainingConfig = attrs.Factory(TrainingConfig)

    def __attrs_post_init__(self) -> None:
        if (self.model.encoder == "features") != (self.data.patch_size is None):
            raise IpslibError(
                f"encoder: {self.model.encoder} does not read {self.data.kind}; feature bags need "
                "features, images another."
            )
        if self.model.embedding_dim:
            self.model.check_heads(self.model.embedding_dim)
            self._check_batch_norm()
        if self.training.novelty_epochs and self.model.selection == "random":
            raise IpslibError(
                "novelty_epochs: patches chosen by lot have no scores; leave it 0, or use "
                "selection: attention."
            )
        if self.published_start:
            check_published_start(self.model, encoder="resnet18", width=1, mask_k=0)

    def _check_batch_norm(self) -> None:
        data, batch_size = self.data, self.training.batch_size
        if data.grid is None or not hasattr(data, "n_train"):
            return  # only reading the images tells
        smallest_batch = data.n_train % batch_size or batch_size
        n_kept = min(self.model.memory_size, data.grid.n_patches)
        side = -(-data.patch_size // 2 ** (self.model.n_stages + 1))  # of the last feature map
        if smallest_batch * n_kept * side**2 < 2:
            raise IpslibError(
                f"memory_size: a batch of {smallest_batch} image with {n_kept} kept patch leaves "
                "batch normalisation one value a channel; raise memory_size or patch_size, or "
                "choose a batch_size that leaves no single image over."
            )

    @classmethod
    def from_flat(cls, values: Mapping[str, object], data_class: type) -> "RunConfig":
        """Build from `{field: value}`, its data of a given class; raise IpslibError for an unknown
        field or a bad value."""
        sections = {"data": data_class, "model": ModelConfig, "training": TrainingConfig}
        section_of = {f.name: name for name, of in sections.items() for f in attrs.fields(of)}
        fields: dict[str, dict] = {section: {} for section in sections}
        for name, value in values.items():
            if name not in section_of:
                hint = did_you_mean(name, section_of)
                raise IpslibError(f"{name!r} is no field of a run{hint}.")
            fields[section_of[name]][name] = value
        for field in attrs.fields(data_class):
            if field.default is attrs.NOTHING and field.name not in values:
                raise IpslibError(f"{field.name}: wanted a value for {data_class.kind}, got none.")
        return cls(**{name: of(**fields[name]) for name, of in sections.items()})

    @property
    def published_start(self) -> bool:
        """Whether data, initial weights and orders are drawn as the published runs drew them."""
        return getattr(self.data, "start", "own") == "published"

    def flat(self) -> dict[str, object]:
        """Every field by name, in the order of definition, as JSON can hold it; first the kind of
        data as `dataset`, where it is not the default."""
        values = {} if self.data.kind == DEFAULT_KIND else {"dataset": self.data.kind}
        for section in (self.data, self.model, self.training):
            values |= attrs.asdict(section)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def replace(self, **changes: object) -> "RunConfig":
        """A copy with some fields changed; what is derived from a changed field follows it."""
        values = {name: value for name, value in self.changed().items() if name != "dataset"}
        return RunConfig.from_flat(values | changes, type(self.data))

    def changed(self) -> dict[str, object]:
        """The fields that differ from the published defaults."""
        values = self.flat()
        for section in (self.data, self.model, self.training):
            for field in attrs.fields(type(section)):
                derived = isinstance(field.default, attrs.Factory)
                default = field.default.factory(section) if derived else field.default
                if getattr(section, field.name) == default:
                    del values[field.name]
        return values

    @property
    def id(self) -> str:
        """12 hexadecimal digits that identify the run, made by today's arithmetic."""
        return self.id_by(ARITHMETIC)

    def id_by(self, version: int) -> str:
        identity = self.changed() | ({"arithmetic": version} if version > 1 else {})
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def check_published_start(section: object, **wanted: object) -> None:
    """Refuse fields of a section that are not as the published runs had them."""
    for name, value in wanted.items():
        if (got := getattr(section, name)) != value:
            raise IpslibError(
                f"{name}: start published wants {value!r}, as the published runs had, got {got!r}; "
                f"set {name} to that, or use start own."
            )
