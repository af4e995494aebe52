from itertools import combinations
from math import log

import pytest
import torch

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.metrics import (
    localise,
    mean_localisation,
    measure_answers,
    measure_heads,
    n_correct,
    touches,
)
from ipslib.patches import PatchGrid
from ipslib.training import attend, build_network, predict
from tests.tiny import TINY

GRID = PatchGrid((6, 6), 2, 2)  # 3 x 3 patches:  0 1 2 / 3 4 5 / 6 7 8


def boxes(*rows):
    """One image's boxes, (1, R, 4) of top, left, height, width."""
    return torch.tensor([rows])


@pytest.mark.parametrize(
    ("logits", "labels", "n_right"),
    [
        ([[0.0, 2, 1], [5, 4, 3], [-3, -2, -1]], [1, 1, 2], 2),
        # A set is right where every label is, at a probability of one half.
        ([[2.0, -1, 3]] * 3, [[1.0, 0, 1], [1, 0, 0], [1, 1, 1]], 1),
        ([[1e-3, -1e-3]], [[1.0, 0.0]], 1),
    ],
)
def test_right_answers_are_counted(logits, labels, n_right):
    assert n_correct(torch.tensor(logits), torch.tensor(labels)).item() == n_right


def answers(logits, labels, task="sign"):
    return {task: torch.tensor(logits, dtype=torch.float)}, {task: torch.tensor(labels)}


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    right, wrong = [0.0, 1.0, 0.0], [2.0, 1.0, 0.0]
    found = measure_answers([answers([right] * 3, [1, 1, 1]), answers([wrong], [2])])
    assert found == {"balanced_accuracy": {"sign": 0.5}}  # three classes have no curve


def test_the_area_counts_pairs_in_the_right_order_where_two_classes_occur():
    logits = [[0, 3], [0, 1], [0, 2], [0, 0]]
    found = measure_answers([answers(logits[:2], [1, 1]), answers(logits[2:], [0, 0])])
    assert found["auc"] == {"sign": pytest.approx(3 / 4)}
    assert "auc" not in measure_answers([answers([[0, 1]], [1])])  # of one class
    assert measure_answers([answers([[1, 1]], [[1, 0]])]) == {}  # of sets


def test_numbers_are_measured_in_their_unit():
    parts = [answers([[1.0], [3.0]], [1.0, 2.0], "age"), answers([[3.0]], [3.0], "age")]
    found = measure_answers(parts, {"age": 12.0})
    assert found == {
        "mean_absolute_error": {"age": pytest.approx(4)}, "r2": {"age": pytest.approx(0.5)}
    }  # fmt: skip
    assert "r2" not in measure_answers(parts[1:])


class TestLocalise:
    def test_recall_counts_boxes_and_attention_counts_patches(self):
        kept = torch.tensor([[0, 4, 8, 2]])
        weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(1, 2, 3, 4)
        three = boxes([0, 0, 2, 2], [1, 1, 2, 2], [4, 0, 1, 1])  # on {0}, {0, 1, 3, 4}, {6}
        found = localise(GRID, kept, weights, three)
        assert found.roi_recall == pytest.approx(2 / 3)
        assert found.attention_on_digits == pytest.approx(0.1 + 0.2)
        assert found.attention_on_digits_random == pytest.approx(5 / 9)

    @pytest.mark.parametrize("n_kept", [1, 2, 4, 9])
    def test_random_values_are_the_mean_over_every_choice_of_patches(self, n_kept):
        two = boxes([0, 0, 2, 2], [1, 1, 2, 2])
        found = []
        for choice in combinations(range(9), n_kept):
            uniform = torch.full((1, 2, 3, n_kept), 1 / n_kept)
            found.append(localise(GRID, torch.tensor([choice]), uniform, two))
        mean = mean_localisation(found, [1] * len(found))
        assert mean.roi_recall == pytest.approx(mean.roi_recall_random)
        assert mean.attention_on_digits == pytest.approx(mean.attention_on_digits_random)

    @pytest.mark.parametrize(
        ("kept", "weights", "entropy"),
        [
            ([0, 1, 2, 3], [[0.25] * 4] * 2, 1),
            ([0, 1, 2, 3], [[0.0, 1, 0, 0]] * 2, 0),
            ([0, 1, 2, 3], [[0.5, 0.5, 0, 0]] * 2, log(2) / log(4)),
            ([0, 1], [[1.0, 0], [0, 1]], 0),  # heads that differ, each sure of its patch
            ([4], [[1.0]] * 2, 0),  # one patch has no spread
        ],
    )
    def test_entropy_is_1_for_uniform_and_0_for_one_patch(self, kept, weights, entropy):
        each_head = torch.tensor(weights)[None, :, None]  # (1, 2 heads, 1 token, M)
        found = localise(GRID, torch.tensor([kept]), each_head, boxes([0, 0, 2, 2]))
        assert found.entropy == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize("sharp", [0.1, 8.0])
def test_images_that_keep_unequal_numbers_measure_as_the_mean_of_each_alone(sharp):
    counts = [2, 7, 1]
    kept, weights = torch.full((3, 7), -1), torch.zeros(3, 2, 2, 7)
    objects = torch.tensor([[[0, 0, 2, 2], [4, 4, 1, 1]], [[0, 0, 3, 3], [0, 0, 0, 0]]])
    objects = objects[[0, 1, 0]]
    alone = []
    for i, n in enumerate(counts):
        kept[i, :n] = torch.randperm(9)[:n]
        weights[i, ..., :n] = (sharp * torch.randn(2, 2, n)).softmax(dim=-1)
        each = slice(i, i + 1)
        alone.append(localise(GRID, kept[each, :n], weights[each, ..., :n], objects[each]))
    found, mean = localise(GRID, kept, weights, objects), mean_localisation(alone, [1, 1, 1])
    by_box = mean_localisation(alone, [2, 1, 2])
    recall = {name: value for name, value in by_box._asdict().items() if "recall" in name}
    assert found == pytest.approx(mean._replace(**recall), abs=1e-6)


def test_no_patch_touches_nothing_where_patches_overlap():
    grid = PatchGrid((6, 6), 4, 1)  # a patch before the first row would reach into the canvas
    everywhere = boxes([0, 0, 6, 6])
    assert touches(grid, torch.tensor([[0, -1]]), everywhere).tolist() == [[[True, False]]]


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
@pytest.mark.parametrize(("signs", "outputs"), [([1.0, 1, 1, 1], 1), ([1.0, -1, 1, -1], -1 / 3)])
def test_heads_that_attend_alike_may_read_opposed_outputs(network, dataset, signs, outputs):
    """Why a loss on outputs is none on attention: signs of the value map alone can meet it."""
    make_heads_alike(network)
    by_row = torch.tensor(signs).repeat_interleave(network.pool.head_dim)
    network.pool.to_value.weight *= by_row[:, None]
    measured = measure_heads(predict(network, dataset, 4))
    assert measured.attention_alike == pytest.approx(1, abs=1e-5)
    assert measured.outputs_alike == pytest.approx(outputs, abs=1e-5)  # -1/3: least of 4 heads


def test_it_is_the_mean_over_pairs_and_images_whatever_the_batches(network, dataset):
    _, weights = attend(network, dataset.batch(range(len(dataset))))  # (B, H, T, M)
    pairs = combinations(weights.unbind(dim=1), 2)
    alike = torch.stack([torch.cosine_similarity(*pair, dim=-1) for pair in pairs]).mean()
    whole = measure_heads(predict(network, dataset, 6))
    assert whole.attention_alike == pytest.approx(alike.item(), abs=1e-6)
    assert 0 < whole.attention_alike < 0.999
    parts = measure_heads(predict(network, dataset, 1))
    assert parts.attention_alike == pytest.approx(whole.attention_alike, abs=0.05)


@torch.no_grad()
def test_a_head_alone_is_judged_by_its_own_answer(network, dataset):
    """All heads answer class 3 and the set {3}, whatever they see."""
    for head in network.heads.values():
        head.weight.zero_()
        head.bias.copy_(torch.eye(10)[3] * 9 - 1)
    labels = dataset.batch(range(len(dataset))).labels
    alone = measure_heads(predict(network, dataset, 4)).alone
    assert alone["majority"] == (labels["majority"] == 3).float().mean().item()
    assert alone["multi"] == 0  # every image shows two classes or more
