"""Random streams that are the same on every machine and for every version of numpy.

`RandomState` is the one numpy generator whose streams are frozen (NEP 19); its bits come here
from PCG64, seeded through a SeedSequence, so that streams of different keys are independent
(keys that differ in zeros at the end alone are the same to it: keep those of one kind as long).
"""

import numpy as np

TRAIN, TEST = 0, 1
SPLITS = {"train": TRAIN, "test": TEST}


def stream(*key: int) -> np.random.RandomState:
    """The stream that belongs to a key of non-negative integers."""
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence(key)))
