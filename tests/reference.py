"""Iterative patch selection written plainly, as published: what ipslib's own is judged by.

Bergner, Lippert and Mahendran, arXiv 2210.13007, algorithm 1. The bag lies dense in memory, every
patch is embedded, the memory holds embeddings, and keys are computed for each set anew. It takes
the weights of an IPSNet, and none of its short cuts: no patch is skipped, shared or folded.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ipslib.config import ModelConfig
from ipslib.model.ips import IPSNet, IPSOutput, evaluating
from ipslib.model.pooling import CrossAttentionPool, sinusoidal_encoding
from ipslib.patches import PatchBatch
from ipslib.selection import Selection


def dense_bag(batch: PatchBatch) -> Tensor:
    """Every patch of every image, (B, N, C, P, P)."""
    image = torch.arange(batch.batch_size).repeat_interleave(batch.n_patches)
    patch = torch.arange(batch.n_patches).repeat(batch.batch_size)
    return batch.read(image, patch).unflatten(0, (batch.batch_size, batch.n_patches))


def embed(network: IPSNet, bag: Tensor, indices: Tensor) -> Tensor:
    """Encode the patches `indices` (B, n) of a bag (B, N, C, P, P) uint8 to (B, n, D)."""
    image = torch.arange(len(bag), device=bag.device)[:, None]
    patches = bag[image, indices].flatten(0, 1)  # (B n, C, P, P)
    embeddings = network.encoder(patches.float() / 255).unflatten(0, indices.shape)
    if network.config.position_encoding:
        dim = embeddings.shape[2]
        encoding = sinusoidal_encoding(indices.flatten(), dim)
        embeddings = embeddings + encoding.unflatten(0, indices.shape)
    return embeddings


def attention(pool: CrossAttentionPool, embeddings: Tensor) -> Tensor:
    """Each head's and token's attention over a set of embeddings, (B, n, D) to (B, H, T, n)."""
    query = pool.to_query(pool.query).unflatten(2, (pool.n_heads, -1)).transpose(1, 2)
    key = pool.to_key(embeddings).unflatten(2, (pool.n_heads, -1)).transpose(1, 2)
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    return scores.softmax(dim=3)


@torch.no_grad()
def select(network: IPSNet, bag: Tensor, *, order: Tensor | None = None) -> Selection:
    """Keep the M patches of each image that survive every iteration, best first.

    Args:
        network: its encoder and queries score; its configuration gives M and I.
        bag: (B, N, C, P, P) uint8.
        order: (N,) permutation in which patches are visited, row-major if None.
    """
    memory_size, iter_size = network.config.memory_size, network.config.iter_size
    n_images, n_patches = bag.shape[:2]
    in_order = torch.arange(n_patches, device=bag.device)
    if memory_size >= n_patches:
        return Selection(in_order.expand(n_images, -1), None)
    order = in_order if order is None else order
    with evaluating(network.modules()):
        kept = order[:memory_size].expand(n_images, -1)  # (B, M)
        memory = embed(network, bag, kept)  # (B, M, D)
        for block in order[memory_size:].split(iter_size):
            block = block.expand(n_images, -1)  # (B, I)
            kept = torch.cat([kept, block], dim=1)  # (B, M + I)
            memory = torch.cat([memory, embed(network, bag, block)], dim=1)  # (B, M + I, D)
            weights = attention(network.pool, memory).mean(dim=1)  # (B, T, M + I), of heads
            scores, best = weights.mean(dim=1).topk(memory_size, dim=1)  # (B, M)
            kept = kept.gather(1, best)
            memory = memory.gather(1, best[..., None].expand(-1, -1, memory.shape[2]))
    return Selection(kept, scores)


def forward(network: IPSNet, bag: Tensor, *, order: Tensor | None = None) -> IPSOutput:
    """Select, then gather the kept patches, encode them in the network's mode, and classify."""
    selection = select(network, bag, order=order)
    pooled = network.pool(embed(network, bag, selection.indices))
    logits, branch_logits = {}, {}
    for token, (task, head) in enumerate(network.heads.items()):
        logits[task] = head(pooled.tokens[:, token])  # (B, C)
        branch_logits[task] = head(pooled.branches[:, :, token])  # (B, H, C)
    return IPSOutput(
        logits=logits,
        branch_logits=branch_logits,
        attn_weights=pooled.attn_weights,
        head_outputs=pooled.head_outputs,
        selection=selection,
    )


def random_network(
    seed: int,
    n_classes: Mapping[str, int] | None = None,
    *,
    in_channels: int = 1,
    **config: object,
) -> IPSNet:
    """A network as unlike a fresh one as a trained one is, in evaluation mode: its batch norms
    have statistics of their own, and its attention is peaked."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        small = {"width": 0.125, "n_heads": 4, "memory_size": 6, "iter_size": 4} | config
        n_classes = n_classes or {"majority": 10, "multi": 10}
        network = IPSNet(ModelConfig(**small), n_classes, in_channels=in_channels)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.3)
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.1, 0.5)
        with torch.no_grad():
            network.pool.query *= 6
    return network.eval()
