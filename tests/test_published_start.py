"""The published start's weights and orders: values of the published code, and torch's own loaders.
Its data are tested beside the data set."""

import io

import pytest
import torch
from torch.utils.data import DataLoader

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.registry import run_config
from ipslib.model import ips
from ipslib.training import TrainingState, build_network, train

REFERENCE = run_config({"start": "published", "canvas": 1500, "n_noise": 50})
SMALL = REFERENCE.replace(
    canvas=150, patch_size=30, n_noise=3, memory_size=4, iter_size=5, n_train=11, n_test=7,
    batch_size=4, epochs=3, warmup_epochs=1, eval_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    return TrainingState(REFERENCE)


@pytest.mark.parametrize(
    ("name", "first", "total"),
    [
        ("encoder.0.weight", [0.110436, -0.082538, 0.080589], 4.67575),
        ("encoder.4.0.conv1.weight", [-0.082119, -0.045156, -0.063024], -1.892751),
        ("pool.query", [0.083110, 0.237326, 0.248376], -6.413616),
        ("pool.branch.weight", [-0.039967, 0.121269, 0.191613], -0.508409),
        ("pool.expand.weight", [-0.084684, 0.025123, 0.070260], -17.422224),
        ("heads.majority.weight", [0.077554, -0.081188, -0.033671], 1.865437),
        ("heads.multi.bias", [-0.043190, -0.083427, -0.036206], None),
    ],
)
def test_initial_weights(reference, name, first, total):
    weight = reference.network.state_dict()[name].double().contiguous()
    assert weight.flatten()[:3].tolist() == pytest.approx(first, abs=1e-6)
    if total is not None:
        assert weight.sum().item() == pytest.approx(total, abs=1e-5)


def test_first_batches_and_the_patch_orders_between_them():
    state = TrainingState(REFERENCE)
    batches = state.draw_training_order(1000).split(16)
    orders = [torch.randperm(900, generator=state.generator)[:8].tolist() for _ in range(2)]
    assert batches[0].tolist() == [
        397, 928, 432, 987, 320, 929, 10, 270, 945, 149, 446, 213, 741, 925, 733, 703
    ]  # fmt: skip
    assert batches[1].tolist() == [
        426, 180, 898, 504, 995, 570, 331, 622, 860, 657, 127, 599, 758, 552, 286, 200
    ]  # fmt: skip
    assert orders[0] == [595, 151, 882, 794, 309, 668, 122, 257]
    assert orders[1] == [433, 743, 54, 778, 779, 604, 72, 625]


@pytest.mark.usefixtures("mnist_root")
def test_training_draws_as_torchs_loaders_do_however_it_is_stopped_or_evaluated(monkeypatch):
    batches, orders, snapshots = [], [], []
    batch, select = MegapixelMNIST.batch, ips.select_patches

    def spy_on_batch(self, indices):
        batches.append(list(indices))
        return batch(self, indices)

    def spy_on_order(*arguments, order, **others):
        orders.append(order.tolist())
        return select(*arguments, order=order, **others)

    def keep(_, state):
        snapshots.append(io.BytesIO())
        torch.save(state.snapshot(), snapshots[-1])

    with monkeypatch.context() as patch:
        patch.setattr(MegapixelMNIST, "batch", spy_on_batch)
        patch.setattr(ips, "select_patches", spy_on_order)
        whole = train(SMALL, on_epoch=keep)
    assert (batches, orders) == loaded(SMALL)
    snapshots[0].seek(0)
    resumed = train(SMALL, snapshot=torch.load(snapshots[0], weights_only=True))
    evaluated_once = train(SMALL.replace(eval_every=3))
    for other in (resumed, evaluated_once):
        assert other.history[-1]["test"] == whole.history[-1]["test"]
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), name


def loaded(config: RunConfig) -> tuple[list[list[int]], list[list[int]]]:
    """Batches and patch orders of the published loop: loaders with persistent workers, and a
    permutation of the patches a batch, all on torch's global generator."""
    build_network(config)
    data, size = config.data, config.training.batch_size
    workers = {"num_workers": 1, "persistent_workers": True}
    training = DataLoader(range(data.n_train), size, shuffle=True, **workers)
    test = DataLoader(range(data.n_test), size, **workers)
    batches, orders = [], []
    for _ in range(config.training.epochs):
        for loader in (training, test):
            for indices in loader:
                batches.append(indices.tolist())
                orders.append(torch.randperm(data.grid.n_patches).tolist())
    return batches, orders
