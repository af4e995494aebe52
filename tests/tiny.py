"""The smallest run that is a real one, for tests of what happens to runs: about a second."""

from ipslib.datasets.registry import run_config

TINY = run_config(
    {
        "digits": "embedded", "canvas": 84, "patch_size": 28, "n_noise": 1, "n_train": 8,
        "n_test": 4, "width": 0.125, "n_heads": 4, "memory_size": 3, "iter_size": 3, "epochs": 2,
        "batch_size": 4, "warmup_epochs": 1,
    }
)  # fmt: skip
