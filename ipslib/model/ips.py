"""The whole network: select patches without gradient, encode the kept ones with it, classify."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ipslib.config import ModelConfig
from ipslib.model.encoder import (
    FoldedEncoder,
    as_encoder_input,
    build_encoder,
    encode_sparing,
    keep_frozen_statistics,
    layout_of,
)
from ipslib.model.pooling import CrossAttentionPool, sinusoidal_encoding
from ipslib.model.repeats import RepeatBatchNorm2d, repeated
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
    select_patches,
)

_SHARED_FROM = 0.1  # of the kept patches; for fewer blanks, counting them costs more than it saves

_SIZES = 16  # of what is encoded together: blocks of memory of few sizes are used again


class IPSOutput(NamedTuple):
    """What a loss, a figure or a measure needs of one forward pass."""

    logits: dict[str, Tensor]  # task: (B, C)
    branch_logits: dict[str, Tensor]  # task: (B, H, C), every attention head alone
    attn_weights: Tensor  # (B, H, T, M) over the kept patches, 0 where there is none
    head_outputs: Tensor  # (B, H, T, D_v)
    selection: Selection


class IPSNet(nn.Module):
    """Iterative Patch Selection with a ResNet encoder and cross-attention pooling.

    Bergner et al., arXiv 2210.13007; semantic branches and masking from arXiv 2412.11237.

    Args:
        config: sizes and switches.
        n_classes: {task: number of outputs}, one query token each, in this order.
        in_channels: channels of a patch, or the length of a feature row.
    """

    def __init__(self, config: ModelConfig, n_classes: Mapping[str, int], *, in_channels: int = 1):
        super().__init__()
        self.config, self.in_channels = config, in_channels
        dim = config.embedding_dim
        self.encoder = build_encoder(config, in_channels).to(memory_format=torch.channels_last)
        self.pool = CrossAttentionPool(
            dim,
            len(n_classes),
            config.n_heads,
            dropout=config.dropout,
            attn_dropout=config.attn_dropout,
        )
        self.tasks = tuple(n_classes)
        self.heads = nn.ModuleDict(
            {_module_name(task): nn.Linear(dim, n) for task, n in n_classes.items()}
        )
        self.precision = torch.float32
        self._selecting = FoldedEncoder(self.encoder)
        self._norms = [m for m in self.encoder.modules() if isinstance(m, RepeatBatchNorm2d)]
        keep_frozen_statistics(self.encoder)

    @property
    def device(self) -> torch.device:
        return self.pool.query.device

    def train(self, mode: bool = True) -> "IPSNet":
        super().train(mode)
        keep_frozen_statistics(self.encoder)
        return self

    def embed(self, patches: Tensor, *, normalised: bool = False) -> Tensor:
        """Encode patches (n, C, P, P), uint8 or float in 0..1 or normalised already, or features
        (n, C), to (n, D) float32."""
        inputs = self._input(patches, normalised)
        inputs = inputs.contiguous(memory_format=layout_of(inputs))
        low = self.precision != torch.float32
        sparing = self._norms and self.training and is_accelerator(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            encoded = encode_sparing(self.encoder, inputs) if sparing else self.encoder(inputs)
        return encoded.float()

    @torch.no_grad()
    def select(self, batch: PatchBatch | MixedBatch, *, generator: torch.Generator) -> Selection:
        """Run the selection, in evaluation mode and without gradient."""
        if isinstance(batch, MixedBatch):
            return joined([self.select(part, generator=generator) for part in batch.parts])
        config, n_patches = self.config, batch.n_patches
        order = torch.randperm(n_patches, generator=generator) if config.shuffle else None
        self._selecting.refresh(self.precision)
        score_map = self.pool.score_map()
        return select_patches(
            batch,
            lambda patches: self._selecting(self._input(patches, is_normalised(batch))),
            lambda embeddings, index: self._at_position(embeddings, index) @ score_map,
            memory_size=config.memory_size,
            iter_size=config.iter_size,
            order=order,
            score_set=self._score_set(generator),
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
        place = device_of(batch)
        patches = batch.read(image.to(place), index.to(place))
        if selection.scores is None:  # else they were seen when they were selected
            check_finite(batch, image, index, patches)
        embeddings = self._at_position(self._embed_kept(patches, is_normalised(batch)), index)
        pooled = self.pool(selection.by_image(embeddings), selection.real)
        logits, branch_logits = {}, {}
        for i, (task, head) in enumerate(zip(self.tasks, self.heads.values(), strict=True)):
            logits[task] = head(pooled.tokens[:, i])
            branch_logits[task] = head(pooled.branches[:, :, i])
        return IPSOutput(logits, branch_logits, pooled.attn_weights, pooled.head_outputs, selection)

    def answer_alone(
        self, patches: Tensor, index: Tensor, *, normalised: bool = False
    ) -> dict[str, Tensor]:
        """Logits {task: (n, C)} of images of one patch each: patches as of `embed`, and where in
        their image they lie, (n,)."""
        embeddings = self._at_position(self.embed(patches, normalised=normalised), index)
        tokens = self.pool.alone(embeddings).unbind(dim=1)
        heads = zip(self.tasks, self.heads.values(), tokens, strict=True)
        return {task: head(token) for task, head, token in heads}

    def _embed_kept(self, patches: Tensor, normalised: bool = False) -> Tensor:
        """Embed the kept patches (n, ...): all-zero ones are encoded once, and counted as many
        times as they are in the statistics of batch norms. Not so on an accelerator, where the
        host would wait for their number."""
        n_blank = 0
        if self._norms and not is_accelerator(self.device):
            has_ink = not_blank(patches)
            n_blank = int((~has_ink).sum())
        if not n_blank or n_blank < _SHARED_FROM * len(patches):
            return self.embed(patches, normalised=normalised)
        n_inked = len(patches) - n_blank
        step = max(1, len(patches) // _SIZES)
        n_spare = min(-(1 + n_inked) % step, n_blank - 1)  # blanks that count by themselves
        spare = torch.zeros_like(patches[:1]).expand(n_spare, *patches.shape[1:])
        distinct = torch.cat([torch.zeros_like(patches[:1]), patches[has_ink], spare])
        with repeated(self._norms, n_blank - n_spare):
            embedded = self.embed(distinct, normalised=normalised)
            return embedded[has_ink.cumsum(0) * has_ink]

    def _input(self, patches: Tensor, normalised: bool) -> Tensor:
        weights = "none" if normalised else self.config.weights
        return as_encoder_input(moved(patches, self.device), weights=weights)

    def _at_position(self, embeddings: Tensor, index: Tensor) -> Tensor:
        if not self.config.position_encoding:
            return embeddings
        return embeddings + sinusoidal_encoding(moved(index, self.device), embeddings.shape[-1])

    def _score_set(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        config, drawn = self.config, {"generator": generator}
        k, p = config.mask_k, config.mask_p
        if not k or not (self.training or config.mask_in_eval):
            return attention_scores
        if config.mask_variant == "logits":
            return lambda logits: attention_scores(mask_logits(logits, k, p, **drawn))
        return lambda logits: mask_scores(attention_scores(logits), k, p, **drawn)


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
