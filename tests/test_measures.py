import pytest
import torch

from ipslib.measures import measure_answers


def answers(logits, labels, task="sign"):
    return {task: torch.tensor(logits, dtype=torch.float)}, {task: torch.tensor(labels)}


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    right, wrong = [0.0, 1.0, 0.0], [2.0, 1.0, 0.0]
    found = measure_answers([answers([right] * 3, [1, 1, 1]), answers([wrong], [2])])
    assert found == {"balanced_accuracy": {"sign": 0.5}}  # three classes have no curve


def test_the_area_counts_pairs_in_the_right_order():
    logits = [[0, 3], [0, 1], [0, 2], [0, 0]]
    found = measure_answers([answers(logits[:2], [1, 1]), answers(logits[2:], [0, 0])])
    assert found["auc"] == {"sign": pytest.approx(3 / 4)}


def test_one_class_alone_has_no_area_and_sets_have_no_measures():
    assert "auc" not in measure_answers([answers([[0, 1]], [1])])
    assert measure_answers([answers([[1, 1]], [[1, 0]])]) == {}
