import copy

import pytest
import torch

from ipslib.config import ModelConfig
from ipslib.model.encoder import build_encoder
from ipslib.model.folding import FoldedEncoder
from tests.reference import random_network

PATCHES = torch.rand(9, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def shaken(encoder):
    """Batch norms with statistics and weights of their own."""
    generator = torch.Generator().manual_seed(1)
    for value in (*encoder.parameters(), *encoder.buffers()):
        if value.ndim == 1:
            value.data = 0.3 + torch.rand(value.shape, generator=generator)
    return encoder.eval()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"n_stages": 4, "width": 0.25},
        {"encoder": "resnet50", "n_stages": 2, "frozen": True},
    ],
)
def test_folded_is_the_encoder_in_evaluation_mode(config):
    encoder = shaken(build_encoder(ModelConfig(**config), 1))
    folded = FoldedEncoder(encoder)
    folded.refresh(torch.float32)
    with torch.no_grad():
        expected = encoder(PATCHES)
    torch.testing.assert_close(folded(PATCHES), expected, rtol=1e-4, atol=1e-5)
    encoder.train()
    assert torch.equal(folded(PATCHES), folded(PATCHES))  # whatever mode the encoder is in


def test_it_follows_the_encoder_when_refreshed():
    encoder = shaken(build_encoder(ModelConfig(width=0.25, n_heads=4), 1))
    folded = FoldedEncoder(encoder)
    folded.refresh(torch.float32)
    before = folded(PATCHES)
    with torch.no_grad():
        encoder[1].running_mean += 0.2
        encoder[4][0].conv1.weight *= 1.5
    assert torch.equal(folded(PATCHES), before)
    folded.refresh(torch.float32)
    torch.testing.assert_close(folded(PATCHES), encoder(PATCHES).detach(), rtol=1e-4, atol=1e-5)


def test_bf16_is_near_fp32_and_back():
    encoder = shaken(build_encoder(ModelConfig(width=0.25, n_heads=4), 1))
    folded = FoldedEncoder(encoder)
    folded.refresh(torch.float32)
    exact = folded(PATCHES)
    folded.refresh(torch.bfloat16)
    low = folded(PATCHES)
    assert low.dtype == torch.float32
    assert 0 < (low - exact).norm() / exact.norm() < 0.02
    folded.refresh(torch.float32)
    assert torch.equal(folded(PATCHES), exact)


def test_the_network_shows_and_saves_no_second_encoder():
    network = random_network(0)
    assert not [name for name in network.state_dict() if "selecting" in name]
    n_weights = sum(weight.numel() for weight in network.encoder.parameters())
    others = sum(w.numel() for n, w in network.named_parameters() if "encoder" not in n)
    assert sum(weight.numel() for weight in network.parameters()) == n_weights + others


def test_a_copied_network_selects_with_its_own_weights():
    network = random_network(0)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for weight in twin.encoder.parameters():
            weight.zero_()
    network._selecting.refresh(torch.float32)
    twin._selecting.refresh(torch.float32)
    assert twin._selecting(PATCHES).abs().max() == 0
    assert network._selecting(PATCHES).abs().max() > 0
