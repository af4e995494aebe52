import pytest
import torch
from scipy.stats import binomtest

from ipslib.patches import TensorBatch
from ipslib.selection import attention_scores, mask_logits, mask_scores
from tests.reference import random_network


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scores():
    return torch.rand(4, 12, generator=seeded(1)) + 0.1


@pytest.fixture
def logits():
    return torch.randn(4, 12, 3, generator=seeded(2))


def is_among_best(values, k):
    """Which values are among the k largest along dimension 1."""
    return values >= values.topk(k, dim=1).values[:, -1:]


class TestScores:
    @pytest.mark.parametrize("k", [0, 3, 12, 100])
    def test_at_p_0_nothing_changes(self, scores, k):
        assert torch.equal(mask_scores(scores, k, 0.0, generator=seeded()), scores)

    @pytest.mark.parametrize("k", [0, 1, 5, 12])
    def test_at_p_1_exactly_the_k_best_are_dropped(self, scores, k):
        masked = mask_scores(scores, k, 1.0, generator=seeded())
        dropped = is_among_best(scores, k) if k else torch.zeros_like(scores, dtype=torch.bool)
        assert torch.equal(masked, scores.masked_fill(dropped, 0))

    def test_more_than_all_counts_as_all(self, scores):
        assert not mask_scores(scores, 100, 1.0, generator=seeded()).any()

    @pytest.mark.parametrize("p", [0.05, 0.2, 0.6])
    def test_between_each_of_the_best_is_dropped_with_probability_p(self, p):
        k, scores = 5, torch.arange(1.0, 21).expand(2000, -1)
        dropped = mask_scores(scores, k, p, generator=seeded(3)) == 0
        assert not dropped[:, :-k].any()
        for column in dropped[:, -k:].T:  # from the fifth best to the best, all alike
            assert binomtest(int(column.sum()), len(column), p).pvalue > 1e-3
        # Independently: as often none is dropped as k tosses say.
        none = int((~dropped.any(dim=1)).sum())
        assert binomtest(none, len(dropped), (1 - p) ** k).pvalue > 1e-3

    def test_the_same_generator_state_gives_the_same_mask(self, scores):
        generator = seeded(7)
        state = generator.get_state()
        first = mask_scores(scores, 12, 0.5, generator=generator)
        other = mask_scores(scores, 12, 0.5, generator=generator)
        generator.set_state(state)
        assert torch.equal(first, mask_scores(scores, 12, 0.5, generator=generator))
        assert not torch.equal(first, other)


class TestLogits:
    @pytest.mark.parametrize("k", [0, 3, 12, 100])
    def test_at_p_0_nothing_changes(self, logits, k):
        assert torch.equal(mask_logits(logits, k, 0.0, generator=seeded()), logits)

    def test_at_p_1_each_branch_loses_its_own_k_best(self, logits):
        masked = mask_logits(logits, 4, 1.0, generator=seeded())
        dropped = is_among_best(logits, 4)
        assert torch.equal(masked, logits.masked_fill(dropped, -1e9))
        assert not torch.equal(dropped[..., 0], dropped[..., 1])

    @pytest.mark.parametrize(("k", "p"), [(5, 0.5), (10, 0.6), (3, 0.3), (40, 0.25)])
    def test_between_exactly_int_k_p_of_the_best_are_dropped(self, logits, k, p):
        masked = mask_logits(logits, k, p, generator=seeded())
        dropped, k = masked == -1e9, min(k, 12)
        assert (dropped.sum(dim=1) == int(k * p)).all()
        assert not (dropped & ~is_among_best(logits, k)).any()
        assert torch.equal(masked[~dropped], logits[~dropped])

    def test_every_one_of_the_best_is_dropped_equally_often(self):
        logits = torch.arange(6.0)[:, None].expand(3000, -1, 1)
        dropped = mask_logits(logits, 4, 0.5, generator=seeded(6))[..., 0] == -1e9
        for column in dropped[:, 2:].T:
            assert binomtest(int(column.sum()), len(column), 0.5).pvalue > 1e-3

    def test_attention_goes_to_the_rest(self, logits):
        masked = mask_logits(logits, 4, 1.0, generator=seeded())
        rest = masked.softmax(dim=1)
        assert (rest[masked == -1e9] == 0).all()
        kept = logits.softmax(dim=1).masked_fill(masked == -1e9, 0)
        torch.testing.assert_close(rest, kept / kept.sum(dim=1, keepdim=True))
        torch.testing.assert_close(attention_scores(masked).sum(dim=1), torch.ones(4))

    def test_the_same_generator_state_gives_the_same_mask(self, logits):
        first, second, other = (
            mask_logits(logits, 12, 0.5, generator=seeded(seed)) for seed in (7, 7, 8)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)


class TestInTheNetwork:
    """20 patches, one iteration: 16 are kept, and 4 are left out."""

    N, K = 20, 4

    def bag(self):
        patches = torch.randint(0, 255, (2, self.N, 1, 28, 28), generator=seeded(4))
        return TensorBatch(patches.to(torch.uint8))

    def select(self, network, seed=0):
        chosen = network.select(self.bag(), generator=seeded(seed))
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
    def test_in_training_the_best_are_left_out_at_p_1(self, variant, best):
        network = self.network(mask_k=self.K, mask_p=1.0, mask_variant=variant).train()
        assert torch.equal(self.select(network)[1], ~best)
        assert network.training

    @pytest.mark.parametrize("variant", ["scores", "logits"])
    def test_it_never_acts_in_evaluation(self, variant):
        masking = {"mask_k": self.K, "mask_p": 1.0, "mask_variant": variant}
        plain, _ = self.select(self.network())
        masked, _ = self.select(self.network(**masking))
        assert torch.equal(plain.indices, masked.indices)
        assert torch.equal(plain.scores, masked.scores)

    @pytest.mark.parametrize("variant", ["scores", "logits"])
    def test_but_it_does_where_the_published_quirk_is_switched_on(self, variant, best):
        masking = {"mask_k": self.K, "mask_p": 1.0, "mask_variant": variant}
        network = self.network(mask_in_eval=True, **masking)
        assert torch.equal(self.select(network)[1], ~best)

    def test_no_k_or_no_p_trains_as_without_masking(self):
        plain, _ = self.select(self.network().train())
        for masking in ({"mask_k": 0, "mask_p": 1.0}, {"mask_k": self.K, "mask_p": 0.0}):
            masked, _ = self.select(self.network(**masking).train())
            assert torch.equal(plain.indices, masked.indices)

    def test_in_training_the_mask_follows_the_generator(self):
        network = self.network(mask_k=16, mask_p=0.5).train()
        first, again, other = (self.select(network, seed)[1] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
