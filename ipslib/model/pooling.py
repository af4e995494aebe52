"""Cross-attention pooling: one learned query a task attends to a set of patch embeddings."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Pooled(NamedTuple):
    """The tokens, and what every head did."""

    tokens: Tensor  # (B, T, D)
    attn_weights: Tensor  # (B, H, T, M), after softmax, before dropout; 0 of what is not real
    head_outputs: Tensor  # (B, H, T, D_v)
    branches: Tensor  # (B, H, T, D), each head's output alone through the shared MLP


class CrossAttentionPool(nn.Module):
    """Multi-head cross-attention of T query tokens, residual MLP, layer norms.

    softmax(q_w(q) k_w(x)^T / sqrt(D_k)) v_w(x), heads concatenated, linear, residual with q;
    arXiv 2210.13007, section 3.2. `branch` maps one head's output D_v -> D for the semantic
    loss, arXiv 2412.11237.
    """

    def __init__(
        self, dim: int, n_tokens: int, n_heads: int, *, dropout: float, attn_dropout: float
    ):
        super().__init__()
        self.n_heads, self.head_dim = n_heads, dim // n_heads
        bound = 1 / math.sqrt(self.head_dim)
        self.query = nn.Parameter(torch.empty(1, n_tokens, dim).uniform_(-bound, bound))
        self.to_query = nn.Linear(dim, dim, bias=False)
        self.to_key = nn.Linear(dim, dim, bias=False)
        self.to_value = nn.Linear(dim, dim, bias=False)
        self.merge = nn.Linear(dim, dim, bias=False)
        self.branch = nn.Linear(self.head_dim, dim, bias=False)
        self.attn_norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout, self.attn_dropout = nn.Dropout(dropout), nn.Dropout(attn_dropout)

    def attention_weights(self) -> list[nn.Parameter]:
        """What attention is made of: queries, and the maps of queries and keys."""
        return [self.query, self.to_query.weight, self.to_key.weight]

    def score_map(self) -> Tensor:
        """(D, H T): takes an embedding straight to its attention before softmax. The queries are
        folded into the key map, so that a patch costs H T numbers and no key."""
        query = self.to_query(self.query)[0].unflatten(-1, (self.n_heads, -1))  # (T, H, D_k)
        key_map = self.to_key.weight.unflatten(0, (self.n_heads, -1))  # (H, D_k, D)
        folded = torch.einsum("thk,hkd->htd", query, key_map) / math.sqrt(self.head_dim)
        return folded.flatten(0, 1).T

    def forward(self, embeddings: Tensor, real: Tensor | None = None) -> Pooled:
        """Pool sets of embeddings (B, M, D). `real` (B, M) bool, at least one of each set: the
        others only fill a smaller set up and are not attended to; None: all are."""
        n_tokens = self.query.shape[1]
        scores = (embeddings @ self.score_map()).unflatten(-1, (self.n_heads, n_tokens))
        scores = scores.permute(0, 2, 3, 1)  # (B, H, T, M)
        if real is not None:
            scores = scores.masked_fill(~real.to(scores.device)[:, None, None], -math.inf)
        attn_weights = scores.softmax(dim=-1)
        values = self.to_value(embeddings).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        head_outputs = self.attn_dropout(attn_weights) @ values  # (B, H, T, D_v)
        merged = self.merge(head_outputs.transpose(1, 2).flatten(2))  # (B, T, D)
        tokens = self._mlp(self.attn_norm(self.dropout(merged) + self.query))
        branches = self._mlp(self.branch(head_outputs))
        return Pooled(tokens, attn_weights, head_outputs, branches)

    def alone(self, embeddings: Tensor) -> Tensor:
        """Tokens (n, T, D) of bags of one patch each (n, D): all attention is on it. The same as
        the tokens of `forward`, without the work for the branches."""
        merged = self.merge(self.to_value(embeddings))[:, None]
        return self._mlp(self.attn_norm(self.dropout(merged) + self.query))

    def _mlp(self, tokens: Tensor) -> Tensor:
        hidden = self.contract(self.expand(tokens).relu())
        return self.mlp_norm(self.dropout(hidden) + tokens)


def sinusoidal_encoding(positions: Tensor, dim: int) -> Tensor:
    """Sines and cosines of the patch index, (n,) to (n, dim) (Vaswani et al., 1706.03762)."""
    even = torch.arange(0, dim, 2, device=positions.device)
    rates = torch.exp(even * (-math.log(10000.0) / dim))
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]
