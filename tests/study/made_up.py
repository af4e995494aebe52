"""Made-up records of runs."""

from ipslib.config import RunConfig


def make_record(
    config: RunConfig,
    accuracy: float = 0.5,
    *,
    attention: dict | None = None,
    training: tuple[float, ...] = (),
) -> dict:
    """A record whose tasks have that accuracy, each 0.01 less than the one before; `training` is
    the accuracy of every task epoch by epoch."""
    tasks = config.data.tasks
    values = {task: accuracy - i / 100 for i, task in enumerate(tasks)}
    return {
        "id": config.id,
        "name": "a run",
        "config": config.flat(),
        "provenance": {"digit_source": "embedded", "commit": "none"},
        "history": [
            {"epoch": epoch, "train": {"accuracy": dict.fromkeys(tasks, each)}, "test": None}
            for epoch, each in enumerate(training, start=1)
        ],
        "result": {
            "accuracy": values,
            "train_accuracy": {task: value + 0.2 for task, value in values.items()},
            "best_accuracy": {task: value + 0.01 for task, value in values.items()},
            "n_test": 200,
            "attention": attention,
        },
    }
