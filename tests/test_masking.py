import pytest
import torch
from scipy.stats import binomtest

from ipslib.patches import TensorBatch
from ipslib.selection import mask_logits, mask_scores
from tests.reference import random_network, seeded


@pytest.fixture
def logits():
    return torch.randn(4, 12, 3, generator=seeded(2))


def is_among_best(values, k):
    """Which values are among the k largest along dimension 1."""
    return values >= values.topk(k, dim=1).values[:, -1:]


@pytest.mark.parametrize("mask", [mask_scores, mask_logits])
@pytest.mark.parametrize("k", [0, 1, 5, 12, 100])
def test_at_p_0_nothing_changes_and_at_p_1_exactly_the_k_best_of_each_are_dropped(mask, logits, k):
    values = logits[..., 0].abs() if mask is mask_scores else logits
    assert torch.equal(mask(values, k, 0.0, generator=seeded()), values)
    dropped = is_among_best(values, min(k, 12)) if k else torch.zeros_like(values, dtype=torch.bool)
    expected = values.masked_fill(dropped, 0 if mask is mask_scores else -1e9)
    assert torch.equal(mask(values, k, 1.0, generator=seeded()), expected)


@pytest.mark.parametrize("p", [0.05, 0.2, 0.6])
def test_each_of_the_best_scores_is_dropped_with_probability_p(p):
    k, scores = 5, torch.arange(1.0, 21).expand(2000, -1)
    dropped = mask_scores(scores, k, p, generator=seeded(3)) == 0
    assert not dropped[:, :-k].any()
    for column in dropped[:, -k:].T:  # from the fifth best to the best, all alike
        assert binomtest(int(column.sum()), len(column), p).pvalue > 1e-3
    # Independently: as often none is dropped as k tosses say.
    none = int((~dropped.any(dim=1)).sum())
    assert binomtest(none, len(dropped), (1 - p) ** k).pvalue > 1e-3


@pytest.mark.parametrize(("k", "p"), [(5, 0.5), (10, 0.6), (3, 0.3), (40, 0.25)])
def test_exactly_int_k_p_of_the_best_logits_are_dropped(logits, k, p):
    masked = mask_logits(logits, k, p, generator=seeded())
    dropped, k = masked == -1e9, min(k, 12)
    assert (dropped.sum(dim=1) == int(k * p)).all()
    assert not (dropped & ~is_among_best(logits, k)).any()
    assert torch.equal(masked[~dropped], logits[~dropped])


def test_every_one_of_the_best_logits_is_dropped_equally_often():
    logits = torch.arange(6.0)[:, None].expand(3000, -1, 1)
    dropped = mask_logits(logits, 4, 0.5, generator=seeded(6))[..., 0] == -1e9
    for column in dropped[:, 2:].T:
        assert binomtest(int(column.sum()), len(column), 0.5).pvalue > 1e-3


class TestInTheNetwork:
    """20 patches, one iteration: 16 are kept, and 4 are left out."""

    N, K = 20, 4

    def bag(self):
        patches = torch.randint(0, 255, (2, self.N, 1, 28, 28), generator=seeded(4))
        return TensorBatch(patches.to(torch.uint8))

    def select(self, network):
        chosen = network.select(self.bag(), generator=seeded())
        kept = torch.zeros(2, self.N, dtype=torch.bool).scatter(1, chosen.indices, True)
        return chosen, kept

    def network(self, **masking):
        sizes = {"memory_size": self.N - self.K, "iter_size": self.K, "shuffle": False}
        return random_network(1, {"majority": 10}, n_heads=1, **sizes, **masking)

    @pytest.fixture
    def best(self):
        """The K best of all patches, by a network that keeps every patch."""
        network = random_network(1, {"majority": 10}, n_heads=1, memory_size=self.N)
        output = network(self.bag(), generator=seeded())
        return is_among_best(output.attn_weights[:, 0, 0], self.K)  # one head, one token

    @pytest.mark.parametrize("variant", ["scores", "logits"])
    def test_the_best_are_left_out_in_training_and_in_evaluation_only_as_published(
        self, variant, best
    ):
        masking = {"mask_k": self.K, "mask_p": 1.0, "mask_variant": variant}
        network = self.network(**masking).train()
        assert torch.equal(self.select(network)[1], ~best) and network.training
        assert torch.equal(self.select(self.network(mask_in_eval=True, **masking))[1], ~best)
        plain, masked = (self.select(self.network(**each))[0] for each in ({}, masking))
        assert torch.equal(plain.indices, masked.indices)
        assert torch.equal(plain.scores, masked.scores)
