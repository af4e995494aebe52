import copy
import io
import math

import pytest
import torch

from ipslib import training
from ipslib.config import TrainingConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.training import (
    DivergenceError,
    SnapshotError,
    TrainingState,
    build_network,
    evaluate,
    kept_epoch,
    learning_rate,
    train,
)
from tests.tiny import TINY as SMALLEST

TINY = SMALLEST.replace(n_train=10, n_test=6, iter_size=2)
EVERYTHING = TINY.replace(
    semantic_weight=1.0,
    diversity_weight=2.0,
    novelty_epochs=2,
    mask_k=2,
    mask_p=0.5,
    n_noise=3,
    epochs=3,
)


def without_time(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def equal_weights(one, other):
    one, other = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    return train(EVERYTHING)


class TestTrain:
    def test_the_same_configuration_twice_is_bitwise_the_same(self, trained):
        torch.rand(7)  # the global stream is elsewhere now: training seeds it anew
        again = train(EVERYTHING)
        assert without_time(again.history) == without_time(trained.history)
        assert again.history[-1]["test"]["attention"] == trained.history[-1]["test"]["attention"]
        assert equal_weights(again, trained)

    def test_evaluating_less_often_changes_nothing_else(self, trained):
        rare = train(EVERYTHING.replace(eval_every=2))
        assert [row["test"] is not None for row in rare.history] == [False, True, True]
        for row, other in zip(rare.history, trained.history, strict=True):
            assert row["train"] == other["train"]
            assert row["test"] in (None, other["test"])
        assert equal_weights(rare, trained)

    def test_another_seed_is_another_run_on_the_same_data(self, trained):
        other = train(EVERYTHING.replace(seed=1))
        assert other.history[0]["train"] != trained.history[0]["train"]
        assert not equal_weights(other, trained)
        of = [MegapixelMNIST(EVERYTHING.replace(seed=seed).data, "train") for seed in (0, 1)]
        assert (of[0].canvas(0) == of[1].canvas(0)).all()

    def test_the_parts_of_the_loss_add_up(self, trained):
        for row in trained.history:
            parts = row["train"]["loss_parts"]
            total = parts["task"] + parts["semantic"] + 2 * parts["diversity"]
            assert row["train"]["loss"] == pytest.approx(total, rel=1e-5)
            by_task = row["train"]["task_losses"].values()
            assert parts["task"] == pytest.approx(sum(by_task) / len(by_task), rel=1e-5)

    def test_the_first_epochs_select_by_novelty(self):
        network = {n: train(TINY.replace(novelty_epochs=n)) for n in (0, 1, 2)}
        first = {n: each.history[0]["train"] for n, each in network.items()}
        assert first[0] != first[1] == first[2]
        assert network[1].history[1]["train"] != network[2].history[1]["train"]

    def test_eight_images_are_learned_by_heart(self):
        config = TINY.replace(
            n_train=8, n_noise=0, memory_size=9, dropout=0.0, attn_dropout=0.0, weight_decay=0.0,
            epochs=40, lr=5e-3, eval_every=100, tasks=["majority"], width=0.25,
        )  # fmt: skip
        history = train(config).history
        assert history[0]["train"]["loss"] > 1.5
        assert history[-1]["train"]["loss"] < 0.3
        assert history[-1]["train"]["accuracy"]["majority"] == 1

    def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_epoch(self, monkeypatch):
        def from_step_4_infinite(step, *_):  # so that the loss of the next is not finite
            return math.inf if step > 4 else 1e-3

        monkeypatch.setattr(training, "learning_rate", from_step_4_infinite)
        seen = []
        with pytest.raises(IpslibError, match="epoch 2, step 3 of 3"):
            train(TINY, on_epoch=lambda row, _: seen.append(row["epoch"]))
        assert seen == [1]

    def test_weights_that_the_last_step_spoils_give_no_result(self, monkeypatch):
        def at_last_infinite(step, *_):
            return math.inf if step == 6 else 1e-3

        monkeypatch.setattr(training, "learning_rate", at_last_infinite)
        with pytest.raises(DivergenceError, match="test set after epoch 2"):
            train(TINY)

    def test_bf16_trains(self):
        low, full = train(TINY.replace(precision="bf16", epochs=1)), train(TINY.replace(epochs=1))
        losses = [each.history[0]["train"]["loss"] for each in (low, full)]
        assert losses[0] == pytest.approx(losses[1], rel=0.05)
        assert losses[0] != losses[1]
        assert {value.dtype for value in low.network.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def snapshots():
    """Of every epoch but the last of EVERYTHING, as a file holds them."""
    torch.set_num_threads(1)
    files = []

    def save(row, state):
        row.pop("seconds")
        files.append(io.BytesIO())
        torch.save(state.snapshot(), files[-1])

    train(EVERYTHING, on_epoch=save)
    return [file.getvalue() for file in files[:-1]]


class TestSnapshot:
    @pytest.mark.parametrize("epoch", [1, 2])
    def test_going_on_from_any_epoch_ends_bitwise_the_same(self, trained, snapshots, epoch):
        assert EVERYTHING.model.dropout > 0 and EVERYTHING.model.attn_dropout > 0
        snapshot = torch.load(io.BytesIO(snapshots[epoch - 1]), weights_only=True)
        torch.rand(7)  # whatever the global stream was at
        seen = []
        resumed = train(
            EVERYTHING, snapshot=snapshot, on_epoch=lambda row, _: seen.append(row["epoch"])
        )
        assert seen == list(range(epoch + 1, EVERYTHING.training.epochs + 1))
        assert without_time(resumed.history) == without_time(trained.history)
        assert equal_weights(resumed, trained)

    @pytest.mark.parametrize("wrong", ["nothing", "no random state", "another width"])
    def test_what_does_not_fit_is_refused(self, wrong):
        snapshot = TrainingState(TINY).snapshot()
        config = TINY.replace(width=0.25) if wrong == "another width" else TINY
        if wrong == "nothing":
            snapshot = {"hello": "world"}
        elif wrong == "no random state":
            del snapshot["generator"]
        with pytest.raises(SnapshotError, match="snapshot"):
            train(config, snapshot=snapshot)


def test_weights_of_the_best_epoch_on_validation_images_are_kept_through_a_stop(monkeypatch):
    losses = {"value": 0.0}

    def open_split(config, split):
        return MegapixelMNIST(config, "test" if split == "validation" else split)

    def evaluated(*args, **fields):
        return evaluate(*args, **fields)._replace(loss=losses["value"])

    def after(row, state):
        seen.append(copy.deepcopy(state.snapshot()))
        losses["value"] = {1: 2.0, 2: 3.0}.get(row["epoch"])

    monkeypatch.setattr(MegapixelMNISTConfig, "validation", 0.5, raising=False)
    monkeypatch.setattr(MegapixelMNISTConfig, "open_split", open_split)
    monkeypatch.setattr(training, "evaluate", evaluated)
    seen, config = [], TINY.replace(epochs=3)
    losses["value"] = 1.0
    ends = [train(config, on_epoch=after)]
    losses["value"] = 3.0
    ends.append(train(config, snapshot=seen[1], on_epoch=after))
    for end in ends:
        assert kept_epoch(end.history)["epoch"] == 1
        for name, value in end.network.state_dict().items():
            assert torch.equal(value, seen[0]["network"][name])


class TestLearningRate:
    """7 steps an epoch; of 30 epochs 10 warm up."""

    def rate(self, step, **changes):
        fields = {"epochs": 30, "warmup_epochs": 10, "lr": 2e-3, "final_lr_ratio": 0.001} | changes
        return learning_rate(step, 7, TrainingConfig(**fields))

    @pytest.mark.parametrize(
        ("step", "changes", "rate"),
        [
            (1, {}, 2e-3 / 70),
            (35, {}, 1e-3),
            (70, {}, 2e-3),  # the peak
            (140, {}, 2e-3 * (1 + 0.001) / 2),  # half-way down
            (210, {}, 2e-6),  # the last step
            (70, {"final_lr_ratio": 1.0}, 2e-3),  # a floor of 1 is a constant rate
            (140, {"final_lr_ratio": 1.0}, 2e-3),
            (210, {"final_lr_ratio": 1.0}, 2e-3),
            (35, {"epochs": 5}, 1e-3),  # a warm-up longer than the run
            (35, {"epochs": 5, "warmup_epochs": 5}, 2e-3),
        ],
    )
    def test_closed_forms(self, step, changes, rate):
        assert self.rate(step, **changes) == pytest.approx(rate)


class TestEvaluate:
    @pytest.fixture
    def network(self):
        return build_network(TINY).train()

    @pytest.fixture
    def dataset(self):
        return MegapixelMNIST(TINY.data, "test")

    def test_twice_is_the_same_and_leaves_the_network_and_the_global_stream_alone(
        self, network, dataset
    ):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        state = torch.get_rng_state()
        assert evaluate(network, dataset, 4) == evaluate(network, dataset, 4)
        assert torch.equal(torch.get_rng_state(), state)
        assert network.training
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_images_count_alike_whatever_the_batches(self, dataset):
        network = build_network(TINY.replace(shuffle=False))
        whole, parts = evaluate(network, dataset, 6), evaluate(network, dataset, 4)
        assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
        assert whole.accuracy == parts.accuracy
        assert whole.localisation == pytest.approx(parts.localisation, rel=1e-5)
