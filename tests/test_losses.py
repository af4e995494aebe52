from math import exp, log

import pytest
import torch
from torch.nn import functional as F

from ipslib.losses import (
    combined_losses,
    diversity_loss,
    semantic_loss,
    task_loss,
    task_losses,
)
from ipslib.model.ips import IPSOutput
from ipslib.patches import TensorBatch
from ipslib.selection import Selection
from tests.reference import random_network

CLASS = torch.tensor([3, 0, 7])
SET = torch.zeros(3, 10).scatter_(1, torch.tensor([[1, 2], [2, 3], [4, 5]]), 1.0)
LABELS = {"majority": CLASS, "multi": SET}


class TestTask:
    @pytest.mark.parametrize(
        ("logits", "labels", "expected"),
        [
            (torch.full((3, 10), 2.5), CLASS, log(10)),  # uniform, whatever the label
            (torch.zeros(3, 10), SET, log(2)),
            (torch.tensor([[1.0, 2, 4]]), torch.tensor([1]), log(exp(1) + exp(2) + exp(4)) - 2),
            (
                torch.tensor([[1.0, -2]]),  # both digits are present
                torch.ones(1, 2),
                (log(1 + exp(-1)) + log(1 + exp(2))) / 2,
            ),
        ],
    )
    def test_closed_forms(self, logits, labels, expected):
        assert task_loss({"top": logits}, {"top": labels}).item() == pytest.approx(expected)

    def test_certain_and_right_costs_nothing_certain_and_wrong_stays_finite(self):
        right = {"majority": 1e4 * F.one_hot(CLASS, 10).float(), "multi": 1e4 * (2 * SET - 1)}
        assert task_loss(right, LABELS).item() == 0
        wrong = {task: -logits for task, logits in right.items()}
        assert torch.isfinite(task_loss(wrong, LABELS))

    def test_weights_count_classes_and_labels_of_sets(self):
        logits = torch.tensor([[0.0, 0], [0, 2], [1, 0]])
        labels, weights = torch.tensor([0, 1, 1]), torch.tensor([3.0, 1])
        costs = F.cross_entropy(logits, labels, reduction="none")
        found = task_losses({"kind": logits}, {"kind": labels}, {"kind": weights})["kind"]
        assert found.item() == pytest.approx((costs * weights[labels]).mean().item())
        alone = [
            task_losses({"kind": x[None]}, {"kind": y[None]}, {"kind": weights})["kind"]
            for x, y in zip(logits, labels, strict=True)
        ]
        assert torch.stack(alone).mean().item() == pytest.approx(found.item())  # however batched
        both = task_losses({"tags": logits}, {"tags": torch.ones(3, 2)}, {"tags": weights})["tags"]
        costs = -F.logsigmoid(logits) * weights
        assert both.item() == pytest.approx(costs.mean().item())

    def test_numbers_cost_their_squared_error(self):
        outputs, labels = torch.tensor([[1.0], [-2.0]]), torch.tensor([0.0, 1.0])
        assert task_loss({"age": outputs}, {"age": labels}).item() == 5
        branches = outputs[:, None].expand(-1, 4, -1)
        assert semantic_loss({"age": branches}, {"age": labels}).item() == 5


class TestSemantic:
    def test_identical_heads_cost_what_the_task_costs_and_pull_alike(self):
        logits = {task: torch.randn(3, 10, requires_grad=True) for task in LABELS}
        branches = {task: x[:, None].expand(-1, 5, -1) for task, x in logits.items()}
        losses = semantic_loss(branches, LABELS), task_loss(logits, LABELS)
        torch.testing.assert_close(*losses)
        gradients = [torch.autograd.grad(loss, list(logits.values())) for loss in losses]
        torch.testing.assert_close(*gradients)

    def test_it_is_the_mean_over_heads_each_against_its_own_image(self):
        branches = {task: torch.randn(3, 4, 10) for task in LABELS}
        each = [task_loss({t: x[:, h] for t, x in branches.items()}, LABELS) for h in range(4)]
        torch.testing.assert_close(semantic_loss(branches, LABELS), sum(each) / 4)


def heads(*vectors):
    """One image and one token of these heads, (1, H, 1, X)."""
    return torch.tensor(vectors, dtype=torch.float64)[None, :, None]


class TestDiversity:
    def test_identical_heads_cost_1_and_scale_does_not_count(self):
        assert diversity_loss(heads([1, 2, 3], [2, 4, 6], [3, 6, 9])).item() == pytest.approx(1)

    def test_orthogonal_heads_and_a_single_one_cost_0_and_opposite_ones_minus_1(self):
        assert diversity_loss(torch.rand(2, 1, 4, 7)).item() == 0
        assert diversity_loss(heads([1, 0, 0], [0, 1, 0], [0, 0, 5])).item() == 0
        assert diversity_loss(heads([1, 2], [-1, -2])).item() == pytest.approx(-1)

    def test_agrees_with_a_plain_loop(self):
        attention = torch.rand(2, 4, 3, 9, dtype=torch.float64)
        cosines = [
            F.cosine_similarity(attention[b, h, t], attention[b, g, t], dim=0)
            for b in range(2)
            for t in range(3)
            for h in range(4)
            for g in range(h)
        ]
        torch.testing.assert_close(diversity_loss(attention), sum(cosines) / len(cosines))


@pytest.fixture
def output():
    """A forward pass's result of 2 heads, written by hand: attention agrees, outputs do not."""
    return IPSOutput(
        logits={task: torch.randn(3, 10) for task in LABELS},
        branch_logits={task: torch.randn(3, 2, 10) for task in LABELS},
        attn_weights=torch.full((3, 2, 2, 4), 0.25),
        head_outputs=torch.eye(2)[:, None].expand(3, 2, 2, 2),
        selection=Selection(torch.arange(4).expand(3, -1), None),
    )


class TestCombined:
    def test_weights_enter_linearly(self, output):
        plain = combined_losses(output, LABELS)
        assert plain.total == plain.task and plain.semantic == plain.diversity == 0
        losses = combined_losses(output, LABELS, semantic_weight=0.5, diversity_weight=3)
        torch.testing.assert_close(losses.task, task_loss(output.logits, LABELS))
        torch.testing.assert_close(losses.semantic, semantic_loss(output.branch_logits, LABELS))
        expected = losses.task + 0.5 * losses.semantic + 3 * losses.diversity
        torch.testing.assert_close(losses.total, expected)

    def test_diversity_of_attention_or_of_outputs(self, output):
        of = {
            on: combined_losses(output, LABELS, diversity_weight=1, diversity_on=on).diversity
            for on in ("attention", "outputs")
        }
        assert of["attention"].item() == pytest.approx(1)
        assert of["outputs"].item() == 0

    def gradients(self, **weights):
        network = random_network(0, dropout=0.0, attn_dropout=0.0).train()
        bag = TensorBatch(torch.rand(3, 8, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
        output = network(bag, generator=torch.Generator().manual_seed(0))
        combined_losses(output, LABELS, **weights).total.backward()
        return {name: weight.grad for name, weight in network.named_parameters()}

    def test_only_the_semantic_loss_teaches_the_branch_map(self):
        without = self.gradients(diversity_weight=1.0)
        assert without.pop("pool.branch.weight") is None
        assert all(gradient is not None for gradient in without.values())
        assert self.gradients(semantic_weight=1.0)["pool.branch.weight"].any()

    def test_diversity_of_attention_reaches_queries_and_keys_but_no_values(self):
        plain, diverse = self.gradients(), self.gradients(diversity_weight=1.0)
        for name in ("pool.query", "pool.to_key.weight", "pool.to_query.weight"):
            assert not torch.allclose(plain[name], diverse[name]), name
        for name in ("pool.to_value.weight", "pool.merge.weight", "heads.majority.weight"):
            torch.testing.assert_close(plain[name], diverse[name])
