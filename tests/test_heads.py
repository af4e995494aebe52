import pytest
import torch

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.heads import measure_heads
from ipslib.training import attend, build_network
from tests.tiny import TINY

CONFIG = TINY.replace(n_test=6, tasks=["majority", "multi"])


@pytest.fixture
def dataset():
    return MegapixelMNIST(CONFIG.data, "test")


@pytest.fixture
def network():
    network = build_network(CONFIG)
    with torch.no_grad():
        network.pool.query *= 20  # attention that is not all but uniform, as after training
    return network


def make_heads_alike(network):
    """Every head asks, looks and reads as the first one does."""
    size = network.pool.head_dim
    for weight in (network.pool.to_query, network.pool.to_key, network.pool.to_value):
        weight.weight.copy_(weight.weight[:size].repeat(network.pool.n_heads, 1))


@torch.no_grad()
def test_heads_that_are_the_same_are_alike_in_all(network, dataset):
    make_heads_alike(network)
    measured = measure_heads(network, dataset, 4)
    assert measured.attention_alike == pytest.approx(1, abs=1e-5)
    assert measured.outputs_alike == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_opposed_outputs_hide_that_attention_is_the_same(network, dataset):
    """Why a loss on outputs is none on attention: signs of the value map alone can meet it."""
    make_heads_alike(network)
    signs = torch.tensor([1.0, -1, 1, -1]).repeat_interleave(network.pool.head_dim)
    network.pool.to_value.weight *= signs[:, None]
    measured = measure_heads(network, dataset, 4)
    assert measured.attention_alike == pytest.approx(1, abs=1e-5)
    assert measured.outputs_alike == pytest.approx(-1 / 3, abs=1e-5)  # the least of 4 heads


def test_it_is_the_mean_over_pairs_and_images_whatever_the_batches(network, dataset):
    batch = dataset.batch(range(len(dataset)))
    _, weights = attend(network, batch)  # (B, H, T, M)
    pairs = [
        torch.cosine_similarity(weights[:, a], weights[:, b], dim=-1).mean().item()
        for a in range(4)
        for b in range(a)
    ]
    whole = measure_heads(network, dataset, 6)
    assert whole.attention_alike == pytest.approx(sum(pairs) / 6, abs=1e-6)
    assert 0 < whole.attention_alike < 0.999
    parts = measure_heads(network, dataset, 1)
    assert parts.attention_alike == pytest.approx(whole.attention_alike, abs=0.05)


@torch.no_grad()
def test_a_head_alone_is_judged_by_its_own_answer(network, dataset):
    """All heads answer class 3 and the set {3}, whatever they see."""
    for head in network.heads.values():
        head.weight.zero_()
        head.bias.copy_(torch.eye(10)[3] * 9 - 1)
    labels = dataset.batch(range(len(dataset))).labels
    alone = measure_heads(network, dataset, 4).alone
    assert alone["majority"] == (labels["majority"] == 3).float().mean().item()
    assert alone["multi"] == 0  # every image shows two classes or more


def test_measuring_leaves_the_network_as_it_was(network, dataset):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    assert measure_heads(network, dataset, 4) == measure_heads(network, dataset, 4)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
