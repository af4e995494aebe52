from collections import Counter
from itertools import product

import pytest

from ipslib.datasets.megapixel_mnist.config import TASKS, chance_level
from ipslib.errors import IpslibError


def test_chance_is_the_best_constant_answer_by_enumeration():
    """Every (target, other, other) is equally likely, and so is each digit as the topmost."""
    answers = {task: Counter() for task in TASKS}
    for target, a, b in product(range(10), repeat=3):
        if target in (a, b):
            continue
        for topmost in (target, target, target, a, b):
            answers["majority"][target] += 1
            answers["max"][max(target, a, b)] += 1
            answers["top"][topmost] += 1
            answers["multi"][frozenset((target, a, b))] += 1
    for task, counts in answers.items():
        assert chance_level(task) == pytest.approx(max(counts.values()) / counts.total())
    with pytest.raises(IpslibError, match="'majority'"):
        chance_level("majorty")
