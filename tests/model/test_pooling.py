import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ipslib.model.pooling import CrossAttentionPool, sinusoidal_encoding

B, T, H, M, D = 3, 4, 2, 7, 8


@pytest.fixture
def pool():
    return CrossAttentionPool(D, T, H, dropout=0.1, attn_dropout=0.1).eval()


@pytest.fixture
def embeddings():
    return torch.randn(B, M, D)


def test_it_is_torchs_multi_head_attention_then_norm_and_mlp(pool, embeddings):
    plain = nn.MultiheadAttention(D, H, bias=False, batch_first=True).eval()
    maps = [pool.to_query.weight, pool.to_key.weight, pool.to_value.weight]
    plain.in_proj_weight, plain.out_proj.weight = nn.Parameter(torch.cat(maps)), pool.merge.weight
    query = pool.query.expand(B, -1, -1)
    attended, weights = plain(query, embeddings, embeddings, average_attn_weights=False)
    tokens = F.layer_norm(attended + query, (D,), pool.attn_norm.weight, pool.attn_norm.bias, 1e-6)
    hidden = pool.contract(F.relu(pool.expand(tokens)))
    expected = pool.mlp_norm(tokens + hidden)
    pooled = pool(embeddings)
    torch.testing.assert_close(pooled.attn_weights, weights)
    torch.testing.assert_close(pooled.tokens, expected)


def test_logits_are_what_the_weights_are_the_softmax_of(pool, embeddings):
    logits = embeddings @ pool.score_map()  # (B, M, H T), head by head
    weights = logits.softmax(dim=1).transpose(1, 2).unflatten(1, (H, T))
    torch.testing.assert_close(pool(embeddings).attn_weights, weights)


def test_patches_alone_are_bags_of_one_patch(pool, embeddings):
    expected = pool(embeddings[0][:, None]).tokens  # (M, T, D)
    torch.testing.assert_close(pool.alone(embeddings[0]), expected)


@pytest.mark.parametrize("dim", [2, 8, 128, 7])
def test_positions_are_sines_and_cosines_of_falling_rates(dim):
    positions = torch.tensor([0, 1, 2, 899, 3599])
    encoding = sinusoidal_encoding(positions, dim)
    assert encoding.shape == (5, dim)
    for row, position in zip(encoding.tolist(), positions.tolist(), strict=True):
        for j, value in enumerate(row):
            angle = position / 10_000 ** ((j - j % 2) / dim)
            expected = math.cos(angle) if j % 2 else math.sin(angle)
            assert value == pytest.approx(expected, abs=2e-4 if position > 100 else 1e-6)
