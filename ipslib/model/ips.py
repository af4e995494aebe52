"""The whole network: select patches without gradient, encode the kept ones with it, classify."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import attrs
import torch
from torch import Tensor, nn

from ipslib.config import ModelConfig
from ipslib.errors import IpslibError, reason_of
from ipslib.model.encoder import as_encoder_input, build_encoder, freeze, pixel_statistics
from ipslib.model.pooling import CrossAttentionPool, sinusoidal_encoding
from ipslib.model.shortcuts import (
    FoldedEncoder,
    counting_copies,
    encode_sparing,
    find_shortcuts,
    has_stem,
    norms_of,
    repeated,
    train_unfrozen,
)
from ipslib.patches import MixedBatch, PatchBatch, device_of, is_normalised
from ipslib.runtime import is_accelerator, moved
from ipslib.selection import (
    Selection,
    attention_scores,
    check_finite,
    joined,
    mask_logits,
    mask_scores,
    not_blank,
    novelty_scores,
    random_patches,
    select_patches,
)

_SHARED_FROM = 0.1  # of the kept patches; for fewer blanks, counting them costs more than it saves

_SCORED_VALUES = 2**22  # of embeddings, that are scored together
_SIZES = 16  # of what is encoded together: blocks of memory of few sizes are used again


class IPSOutput(NamedTuple):
    """What a loss, a figure or a measure needs of one forward pass."""

    logits: dict[str, Tensor]  # task: (B, C)
    branch_logits: dict[str, Tensor]  # task: (B, H, C), every attention head alone
    attn_weights: Tensor  # (B, H, T, M) over the kept patches, 0 where there is none
    head_outputs: Tensor  # (B, H, T, D_v)
    selection: Selection
    embeddings: Tensor | None = None  # (B, M, D) of the kept patches, at their positions


class IPSNet(nn.Module):
    """Iterative Patch Selection with any encoder and cross-attention pooling.

    Bergner et al., arXiv 2210.13007; semantic branches and masking from arXiv 2412.11237.

    Args:
        config: sizes and switches.
        n_classes: {task: number of outputs}, one query token each, in this order.
        in_channels: channels of a patch, or the length of a feature row.
        patch_size: in pixels, for an encoder that takes only some sizes.
        encoder: takes patches (n, C, h, w), floats in 0..1, to (n, D), in place of the one that
            the configuration names.
        pretrained: whether to obtain the encoder's weights; not where trained ones will be loaded.

    Raises:
        IpslibError: where the encoder does not give embeddings, or heads do not divide them.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_classes: Mapping[str, int],
        *,
        in_channels: int = 1,
        patch_size: int = 64,
        encoder: nn.Module | None = None,
        pretrained: bool = True,
    ):
        super().__init__()
        self.in_channels, shape = in_channels, (in_channels, patch_size, patch_size)
        if encoder is None:
            built = config if pretrained else attrs.evolve(config, weights="none")
            self.encoder = build_encoder(built, in_channels)
            shape = shape[:1] if config.encoder == "features" else shape
        else:
            config = attrs.evolve(config, encoder="own")
            self.encoder = freeze(encoder, config)
        self.config = config
        dim = _embedding_dim(self.encoder, shape)
        config.check_heads(dim)
        self.shortcuts = find_shortcuts(self.encoder, shape)
        if self.shortcuts.repeats:
            counting_copies(self.encoder)
        last = self.shortcuts.channels_last
        self._layout = torch.channels_last if last else torch.contiguous_format
        self.encoder.to(memory_format=self._layout)
        drop = {"dropout": config.dropout, "attn_dropout": config.attn_dropout}
        self.pool = CrossAttentionPool(dim, len(n_classes), config.n_heads, **drop)
        self.tasks = tuple(n_classes)
        self.heads = nn.ModuleDict(
            {_module_name(task): nn.Linear(dim, n) for task, n in n_classes.items()}
        )
        self.precision = torch.float32
        self.by_novelty = False  # how patches are selected in training mode, unmasked
        folded = self.shortcuts.folded
        self._selecting = FoldedEncoder(self.encoder, channels_last=last) if folded else None
        train_unfrozen(self.encoder)

    @property
    def device(self) -> torch.device:
        return self.pool.query.device

    def train(self, mode: bool = True) -> "IPSNet":
        super().train(mode)
        train_unfrozen(self.encoder)
        return self

    def embed(self, patches: Tensor, *, normalised: bool = False) -> Tensor:
        """Encode patches (n, C, P, P), uint8 or float in 0..1 or normalised already, or features
        (n, C), to (n, D) float32."""
        inputs, low = self._input(patches, normalised), self.precision != torch.float32
        sparing = self.training and is_accelerator(self.device) and has_stem(self.encoder)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            encoded = encode_sparing(self.encoder, inputs) if sparing else self.encoder(inputs)
        return encoded.float()

    def _embed_to_select(self, patches: Tensor, normalised: bool) -> Tensor:
        if self._selecting:
            return self._selecting(self._input(patches, normalised))
        with evaluating(self.modules()):
            return self.embed(patches, normalised=normalised)

    @torch.no_grad()
    def select(self, batch: PatchBatch | MixedBatch, *, generator: torch.Generator) -> Selection:
        """Run the selection, in evaluation mode and without gradient."""
        if isinstance(batch, MixedBatch):
            return joined([self.select(part, generator=generator) for part in batch.parts])
        config, drawn = self.config, {"generator": generator}
        if config.selection == "random":
            return random_patches(batch, config.memory_size, **drawn, device=self.device)
        if self._selecting:
            self._selecting.refresh(self.precision)
        score_map, n_patches = self.pool.score_map(), batch.n_patches
        return select_patches(
            batch,
            lambda patches: self._embed_to_select(patches, is_normalised(batch)),
            lambda embeddings, index: self._score(embeddings, index, score_map),
            memory_size=config.memory_size,
            iter_size=config.iter_size,
            order=torch.randperm(n_patches, dtype=torch.int32, **drawn) if config.shuffle else None,
            score_set=self._score_set(generator),
            share_blanks=self.shortcuts.alone,
            device=self.device,
        )

    def forward(self, batch: PatchBatch | MixedBatch, *, generator: torch.Generator) -> IPSOutput:
        """Select, then encode and classify the kept patches, at most M of each of B images.

        Args:
            batch: the images.
            generator: of the visiting order and the masking; on the CPU.

        Raises:
            NotFiniteError: for a patch with NaN or infinity; it names image and patch.
        """
        selection = self.select(batch, generator=generator)
        image, index = selection.pairs()
        patches = batch.read(image.to(device_of(batch)), index.to(device_of(batch)))
        if selection.scores is None:  # else they were seen when they were selected
            check_finite(batch, image, index, patches)
        embeddings = self._at_position(self._embed_kept(patches, is_normalised(batch)), index)
        embeddings = selection.by_image(embeddings)
        pooled = self.pool(embeddings, selection.real)
        logits, branch_logits = {}, {}
        for i, (task, head) in enumerate(zip(self.tasks, self.heads.values(), strict=True)):
            logits[task] = head(pooled.tokens[:, i])
            branch_logits[task] = head(pooled.branches[:, :, i])
        attended = pooled.attn_weights, pooled.head_outputs
        return IPSOutput(logits, branch_logits, *attended, selection, embeddings)

    def answer_alone(
        self, patches: Tensor, index: Tensor, *, normalised: bool = False
    ) -> dict[str, Tensor]:
        """Logits {task: (n, C)} of images of one patch each: patches as of `embed`, and where in
        their image they lie, (n,)."""
        embeddings = self.embed(patches, normalised=normalised)
        return self.classify_alone(self._at_position(embeddings, index))

    def classify_alone(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Logits {task: (n, C)} of images of one patch each, by their embeddings (n, D)."""
        tokens = self.pool.alone(embeddings).unbind(dim=1)
        heads = zip(self.tasks, self.heads.values(), tokens, strict=True)
        return {task: head(token) for task, head, token in heads}

    def _embed_kept(self, patches: Tensor, normalised: bool = False) -> Tensor:
        """Embed the kept patches (n, ...): all-zero ones are encoded once, and counted as many
        times as they are in the statistics of batch norms, where that is exact. Not so on an
        accelerator, where the host would wait for their number."""
        n_blank = 0
        if self.shortcuts.repeats and not is_accelerator(self.device):
            has_ink = not_blank(patches)
            n_blank = int((~has_ink).sum())
        if not n_blank or n_blank < _SHARED_FROM * len(patches):
            return self.embed(patches, normalised=normalised)
        n_inked = len(patches) - n_blank
        step = max(1, len(patches) // _SIZES)
        n_spare = min(-(1 + n_inked) % step, n_blank - 1)  # blanks that count by themselves
        blank = torch.zeros_like(patches[:1])
        spare = blank.expand(n_spare, *patches.shape[1:])
        distinct = torch.cat([blank, patches[has_ink], spare])
        with repeated(norms_of(self.encoder), n_blank - n_spare):
            embedded = self.embed(distinct, normalised=normalised)
            return embedded[has_ink.cumsum(0) * has_ink]

    def _input(self, patches: Tensor, normalised: bool) -> Tensor:
        fresh = normalised or self.config.weights == "none"
        statistics = None if fresh else pixel_statistics(self.encoder)
        inputs = as_encoder_input(moved(patches, self.device), statistics)
        return inputs.contiguous(memory_format=self._layout)

    def _at_position(self, embeddings: Tensor, index: Tensor) -> Tensor:
        if not self.config.position_encoding:
            return embeddings
        return embeddings + sinusoidal_encoding(moved(index, self.device), embeddings.shape[-1])

    def _score(self, embeddings: Tensor, index: Tensor, score_map: Tensor) -> Tensor:
        """Attention logits (n, S) of embeddings (n, D) at indices (n,), in parts: on a host a whole
        window of long embeddings and of their positions would be the largest thing in memory."""
        on_host = not is_accelerator(self.device)
        n_rows = max(1, _SCORED_VALUES // embeddings.shape[1]) if on_host else len(index)
        parts = zip(embeddings.split(n_rows), index.split(n_rows), strict=True)
        return torch.cat([self._at_position(*part) @ score_map for part in parts])

    def _score_set(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        config = self.config
        if self.training and self.by_novelty:
            return novelty_scores
        masking = {"k": config.mask_k, "p": config.mask_p, "generator": generator}
        if not config.mask_k or not (self.training or config.mask_in_eval):
            return attention_scores
        if config.mask_variant == "logits":
            return lambda logits: attention_scores(mask_logits(logits, **masking))
        return lambda logits: mask_scores(attention_scores(logits), **masking)


def _embedding_dim(encoder: nn.Module, shape: tuple[int, ...]) -> int:
    """D, found by encoding blank patches of this shape."""
    got = ""
    try:
        with torch.no_grad(), evaluating(encoder.modules()):
            place = next(encoder.parameters(), torch.empty(0)).device
            embeddings = encoder(torch.zeros(2, *shape, device=place))
        got = f"a result of {tuple(getattr(embeddings, 'shape', ()))}"
        _, dim = embeddings.shape
        return dim
    except Exception as error:  # whatever a foreign module raises
        raise IpslibError(
            f"encoder: wanted embeddings (2, D) of patches {(2, *shape)}, got "
            f"{got or reason_of(error)}; give the patches' in_channels and patch_size, or an "
            "encoder that takes them."
        ) from error


def _module_name(task: str) -> str:
    """A task's name where torch takes it for a module: not `type`, `keys` or `tumor.grade`."""
    if task and task[0] != "<" and "." not in task and not hasattr(nn.ModuleDict(), task):
        return task
    return f"<{task.replace('.', '>')}>"


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode for a while; the former modes come back, after an error too."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
