"""Iterative patch selection: the M most attended of N patches, in memory that N does not change.

Bergner, Lippert and Mahendran, arXiv 2210.13007, algorithm 1. A patch enters as its attention
logits, one number for each head and query: they are all that its score in any set depends on,
so the memory holds M indices and M logits, never embeddings or pixels. `attention_scores` makes
scores of logits, which a network takes from `ipslib.model.pooling.CrossAttentionPool.score_map`.

Masking (Zhang et al., ACMIL, arXiv 2311.07125) drops the best patches of a set at random, so that
others are learned from: `mask_scores` each of the K best scores with probability p (the
dissertation's, arXiv 2412.11237), `mask_logits` exactly int(K p) of each branch's K best logits,
so that their attention goes to the rest (ACMIL's source).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ipslib.errors import IpslibError
from ipslib.patches import WINDOW_SIZE, PatchBatch, known_blank
from ipslib.runtime import is_accelerator, moved

_CHUNK_VALUES = 100_000  # pixels encoded together: more would fall out of the processor's caches
_READ_CHUNKS = 4  # chunks read together, so that those with ink make full chunks
_SIZES = 8  # of chunks
# An accelerator wants more at once; the memory of training bounds what a chunk may take.
_ACCELERATOR_CHUNK_VALUES, _ACCELERATOR_WINDOW_SIZE = 5_000_000, 65_536
_NO_PATCH = -1
_MASKED_LOGIT = -1e9

Embed = Callable[[Tensor], Tensor]
Score = Callable[[Tensor, Tensor], Tensor]


class NotFiniteError(IpslibError):
    """A patch that holds what is not a number, or infinity: it cannot be ranked among others."""


class NotFiniteScoreError(NotFiniteError):
    """The patch is sound, the score that it was given is not: the weights are to blame."""


class Selection(NamedTuple):
    """The patches kept at the end, best first. An image of fewer than M patches keeps its own; M
    is as many as the image of a batch that keeps most."""

    indices: Tensor  # (B, M); -1 behind the patches of an image that keeps fewer
    scores: (
        Tensor | None
    )  # (B, M) of the last iteration; None where nothing was scored: M >= N, or by lot
    real: Tensor | None = None  # (B, M) bool, False where there is no patch; None: all are

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Image and index of every kept patch, (n,) and (n,), image by image."""
        if self.real is None:
            image = torch.arange(len(self.indices), device=self.indices.device)
            return image.repeat_interleave(self.indices.shape[1]), self.indices.flatten()
        return self.real.nonzero()[:, 0], self.indices[self.real]

    def by_image(self, rows: Tensor) -> Tensor:
        """What was made of `pairs`, (n, D), as (B, M, D): zero where there is no patch."""
        if self.real is None:
            return rows.unflatten(0, self.indices.shape)
        return pad_sequence(rows.split(self.real.sum(dim=1).tolist()), batch_first=True)


def attention_scores(logits: Tensor) -> Tensor:
    """Score every patch of a set: softmax over the set, then the mean over heads and queries.

    (B, n, S) logits to (B, n) scores that sum to 1 over the set.
    """
    return logits.softmax(dim=1).mean(dim=2)


def novelty_scores(logits: Tensor) -> Tensor:
    """Score every patch of a set by how far its logits lie from the set's mean, either way: their
    mean squared deviation. (B, n, S) logits to (B, n) scores.

    Whether what is common in an image, such as its background, has the highest or the lowest
    attention before anything is learned is luck of the initial weights. Novelty does not ask for
    the sign, so that what is rare is kept, and learned from, either way.
    """
    return (logits - logits.mean(dim=1, keepdim=True)).square().mean(dim=2)


def mask_scores(scores: Tensor, k: int, p: float, *, generator: torch.Generator) -> Tensor:
    """Multiply each of the k best of (B, n) non-negative scores by 0 with probability p; a k
    larger than n counts as n."""
    best, index = scores.topk(min(k, scores.shape[1]), dim=1)
    kept = torch.rand(best.shape, generator=generator, device=generator.device) >= p
    return scores.scatter(1, index, best * moved(kept, scores.device))


def mask_logits(logits: Tensor, k: int, p: float, *, generator: torch.Generator) -> Tensor:
    """Set a random int(k p) of each branch's k best of (B, n, S) logits, for S branches, to -1e9;
    a k larger than n counts as n."""
    k = min(k, logits.shape[1])
    index = logits.topk(k, dim=1).indices  # (B, k, S)
    lot = torch.rand(index.shape, generator=generator, device=generator.device)
    drawn = lot.argsort(dim=1)[:, : int(k * p)]  # (B, int(k p), S)
    return logits.scatter(1, index.gather(1, moved(drawn, index.device)), _MASKED_LOGIT)


@torch.no_grad()
def select_patches(
    batch: PatchBatch,
    embed: Embed,
    score: Score,
    *,
    memory_size: int,
    iter_size: int,
    order: Tensor | None = None,
    score_set: Callable[[Tensor], Tensor] = attention_scores,
    share_blanks: bool = True,
    device: torch.device | str = "cpu",
) -> Selection:
    """Select the most attended patches of each image of a batch.

    Args:
        batch: B images of N patches.
        embed: patches (n, C, P, P) to embeddings (n, D), each by itself.
        score: embeddings (n, D) and patch indices (n,) to attention logits (n, S).
        memory_size: M, patches kept.
        iter_size: I, patches that compete with the memory in one iteration.
        order: (N,) permutation in which patches are visited, row-major if None.
        score_set: logits of a set (B, n, S) to scores (B, n).
        share_blanks: blank patches are embedded once for all.
        device: where `embed` computes.

    Returns:
        Indices and last scores (B, M) on that device, best first; all N in order where M >= N.

    Raises:
        NotFiniteError: for a patch, or a score, with NaN or infinity; it names image and patch.
            On an accelerator scores are not waited for: such a one counts as the lowest of all.
    """
    n_images, n_patches = batch.batch_size, batch.n_patches
    if memory_size < 1 or iter_size < 1:
        raise IpslibError(
            f"memory_size and iter_size: wanted at least 1, got {memory_size} and {iter_size}."
        )
    if memory_size >= n_patches:
        return Selection(torch.arange(n_patches, device=device).expand(n_images, -1), None)
    order = torch.arange(n_patches) if order is None else order
    reader = _LogitReader(batch, embed, score, device, share_blanks)
    blocks = reader.blocks(order, memory_size, iter_size)
    kept, logits = next(blocks)
    for block, block_logits in blocks:
        candidates = torch.cat([kept, block], dim=1)  # (B, M + I)
        logits = torch.cat([logits, block_logits], dim=1)  # (B, M + I, S)
        scores, best = score_set(logits).topk(memory_size, dim=1)  # (B, M)
        kept = candidates.gather(1, best)
        logits = logits.gather(1, best[..., None].expand(-1, -1, logits.shape[2]))
    return Selection(kept, scores)


def random_patches(
    batch: PatchBatch,
    memory_size: int,
    *,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Selection:
    """M patches of each image by lot, other ones for each: what selection is to be better than."""
    lots = torch.rand(batch.batch_size, batch.n_patches, generator=generator)
    indices = lots.topk(min(memory_size, batch.n_patches), dim=1).indices
    return Selection(moved(indices, device), None)


def joined(selections: Sequence[Selection]) -> Selection:
    """The selections of several images as one; those that keep fewer patches are filled up."""
    indices, scores, _ = zip(*selections, strict=True)
    if len({each.shape[1] for each in indices}) > 1:
        rows = [row for each in indices for row in each]
        filled = pad_sequence(rows, batch_first=True, padding_value=_NO_PATCH)
        return Selection(filled, None, real=filled != _NO_PATCH)
    chosen = all(each is not None for each in scores)
    return Selection(torch.cat(indices), torch.cat(scores) if chosen else None)


def not_blank(instances: Tensor) -> Tensor:
    """Which of the patches (n, ...) have a value other than zero, (n,) bool."""
    return instances.flatten(1).any(dim=1).bool()


def check_finite(batch: PatchBatch, image: Tensor, patch: Tensor, instances: Tensor) -> None:
    """Refuse patches (n, ...), read at pairs of indices (n,), (n,), with NaN or infinity. Only for
    floats that lie on an accelerator is an answer waited for; pixels drawn there are bytes."""
    if not instances.is_floating_point() or instances.sum(dtype=torch.float32).isfinite():
        return  # one pass, and no second array: a sum shows any of them
    odd = ~instances.flatten(1).isfinite().all(dim=1)
    for n in odd.nonzero()[:1, 0].tolist():
        raise NotFiniteError(
            f"{_place(batch, int(image[n]), int(patch[n]))}: wanted numbers, got NaN or infinity; "
            "correct the image or its features, or leave it out."
        )


def _place(batch: PatchBatch, image: int, patch: int) -> str:
    """An image and a patch in words."""
    if hasattr(batch, "parts"):
        batch, image = batch.parts[image], 0
    if hasattr(batch, "sources"):
        return f"{batch.sources[image].name}, patch {patch}"
    return f"patch {patch}" + f" of image {image} of the batch" * (batch.batch_size > 1)


@attrs.define(slots=False)
class _LogitReader:
    """Reads patches and turns them into logits; all-zero patches can share one embedding."""

    batch: PatchBatch
    embed: Embed
    score: Score
    device: torch.device | str
    share_blanks: bool

    def __attrs_post_init__(self) -> None:
        self.ahead = is_accelerator(self.device)  # the host must not wait for an answer
        self.window_size = _ACCELERATOR_WINDOW_SIZE if self.ahead else WINDOW_SIZE
        n_values = _ACCELERATOR_CHUNK_VALUES if self.ahead else _CHUNK_VALUES
        first = torch.zeros(1, dtype=torch.long)
        self._blank = torch.zeros_like(self.batch.read(first, first))
        self._blank_embedding: Tensor | None = None
        self.chunk_size = max(1, n_values // self._blank.numel())

    def blocks(
        self, order: Tensor, memory_size: int, iter_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first M patches, then I at a time: indices (B, I) and logits (B, I, S). Several
        blocks are read together, as many as a bounded window holds."""
        n_images = self.batch.batch_size
        edges = [0, *range(memory_size, len(order), iter_size), len(order)]  # of the blocks
        n_together = max(1, self.window_size // (n_images * iter_size))
        for nth in range(0, len(edges) - 1, n_together):
            together = edges[nth : nth + n_together + 1]
            patches = order[together[0] : together[-1]].long()
            sizes = [end - start for start, end in itertools.pairwise(together)]
            parts = self.logits(patches).split(sizes, dim=1)
            for block, logits in zip(moved(patches, self.device).split(sizes), parts, strict=True):
                yield block.expand(n_images, -1), logits

    def logits(self, patches: Tensor) -> Tensor:
        """Logits (B, n, S) of the same n patches of every image."""
        scored = []
        for image, column in self._unread(patches):
            instances = self.batch.read(image, patches[column])
            if self.ahead:  # else its score tells, and at no cost
                check_finite(self.batch, image, patches[column], instances)
            # On an accelerator the host would wait for the answer.
            if self.share_blanks and not is_accelerator(instances.device):
                has_ink = not_blank(instances)
                image, column, instances = image[has_ink], column[has_ink], instances[has_ink]
            if len(instances):
                where = (moved(image, self.device), moved(column, self.device))
                scored.append((where, self.score(self._embed_inked(instances), patches[column])))
        if self._blank_embedding is None:
            self._blank_embedding = self.embed(self._blank)
        blank = self._blank_embedding.expand(len(patches), -1)
        logits = self.score(blank, patches).repeat(self.batch.batch_size, 1, 1)
        for where, scores in scored:
            logits[where] = scores
        return self._sound(logits, patches)

    def _sound(self, logits: Tensor, patches: Tensor) -> Tensor:
        """Logits (B, n, S) that can be ranked; of all that are seen together, one that is not a
        number would make every score one that is not."""
        if self.ahead:
            lowest = -torch.inf
            return logits.nan_to_num(nan=lowest, posinf=lowest, neginf=lowest)
        bad = () if logits.sum().isfinite() else (~logits.isfinite().all(dim=2)).nonzero()
        for pair in bad[:1]:
            image, patch = pair[:1], patches[pair[1:]]
            check_finite(self.batch, image, patch, self.batch.read(image, patch))
            raise NotFiniteScoreError(
                f"{_place(self.batch, int(image), int(patch))}: wanted a number as its score, got "
                "NaN or infinity; the weights are no longer numbers, or too large."
            )
        return logits

    def _embed_inked(self, instances: Tensor) -> Tensor:
        """Embed patches (n, ...) to (n, D) in chunks of few sizes, filled up with the blank one:
        libraries keep a prepared kernel, and memory, for every size that they meet."""
        if not self.share_blanks:
            return torch.cat([self.embed(chunk) for chunk in instances.split(self.chunk_size)])
        step = max(1, self.chunk_size // _SIZES)
        n_spare = -(1 + len(instances)) % step
        blank = self._blank.expand(1 + n_spare, *self._blank.shape[1:])
        filled = torch.cat([instances, blank])
        n_chunks = -(-len(filled) // self.chunk_size)
        chunk_size = -(-len(filled) // (n_chunks * step)) * step
        embeddings = torch.cat([self.embed(chunk) for chunk in filled.split(chunk_size)])
        self._blank_embedding = embeddings[-1:]
        return embeddings[: len(instances)]

    def _unread(self, patches: Tensor) -> zip:
        """Pairs (image, column of `patches`) not known to be blank, a few chunks at a time."""
        unread = torch.ones(self.batch.batch_size, len(patches), dtype=torch.bool)
        if self.share_blanks:
            unread &= ~known_blank(self.batch, patches)
        image, column = unread.nonzero(as_tuple=True)
        n_together = _READ_CHUNKS * self.chunk_size
        return zip(image.split(n_together), column.split(n_together), strict=True)
