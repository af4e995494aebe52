import pytest
import torch

from ipslib import selection
from ipslib.datasets.megapixel_mnist import scenes
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.drawn_scenes import DrawnScenes
from ipslib.datasets.registry import run_config
from ipslib.devices import is_accelerator, moved, prepare, uploaded
from ipslib.losses import combined_losses
from ipslib.model import ips
from ipslib.training import TrainingState, forward_step, train
from tests.reference import random_network
from tests.waits import Waits

SMALL = run_config(
    {
        "digits": "embedded", "canvas": (260, 230), "patch_size": 28, "n_noise": 14, "n_train": 8,
        "n_test": 4, "width": 0.125, "n_heads": 4, "memory_size": 9, "iter_size": 12,
        "batch_size": 4, "epochs": 2, "warmup_epochs": 1, "dropout": 0.0, "attn_dropout": 0.0,
    }
)  # fmt: skip


def work_as_on_an_accelerator(patch: pytest.MonkeyPatch) -> None:
    """From now on the CPU is worked on as if the host had to wait for it."""
    for module in (scenes, selection, ips):
        patch.setattr(module, "is_accelerator", lambda device: True)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def one_step(memory_size: int) -> tuple:
    """Kept patches, losses, gradients and batch statistics of a training step."""
    network = random_network(3, memory_size=memory_size, dropout=0.0, attn_dropout=0.0).train()
    batch = MegapixelMNIST(SMALL.data).batch(range(3)).on("cpu")
    output = network(batch, generator=seeded())
    tasks = {task: batch.labels[task] for task in output.logits}
    losses = combined_losses(output, tasks, semantic_weight=1.0, diversity_weight=2.0)
    losses.total.backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    return output.selection.indices, losses, gradients, dict(network.named_buffers())


# Few blank patches are kept, or many, which share an embedding on the host. Then a value within
# rounding of a ReLU's kink falls either way for all of them: in float64 they are the same.
@pytest.mark.parametrize(("memory_size", "tolerance"), [(6, 1e-3), (80, 0.1)])
def test_a_step_is_the_same_as_on_the_host(monkeypatch, memory_size, tolerance):
    kept, losses, gradients, statistics = one_step(memory_size)
    with monkeypatch.context() as patch:
        work_as_on_an_accelerator(patch)
        kept_there, losses_there, gradients_there, statistics_there = one_step(memory_size)
    assert torch.equal(kept_there.sort(dim=1).values, kept.sort(dim=1).values)
    torch.testing.assert_close(losses_there, losses)
    torch.testing.assert_close(statistics_there, statistics, atol=1e-4, rtol=1e-3)
    for name, gradient in gradients.items():
        gap = (gradients_there[name] - gradient).norm() / gradient.norm().clamp(min=1e-4)
        assert gap <= tolerance, name


def test_a_step_asks_the_accelerator_nothing(monkeypatch):
    work_as_on_an_accelerator(monkeypatch)
    config = SMALL.replace(
        semantic_weight=1.0, diversity_weight=2.0, mask_k=3, mask_p=0.5, memory_size=12
    )
    state, batch = TrainingState(config), MegapixelMNIST(config.data).batch(range(4)).on("cpu")
    assert isinstance(batch, DrawnScenes)

    def step() -> None:
        network = state.network.train()
        _, losses, _ = forward_step(network, batch, config.training, state.generator)
        state.optimiser.zero_grad()
        losses.total.backward()
        state.optimiser.step()

    step()
    with Waits() as waits:
        step()
    # The one that is left is of the host's own table of what is blank, once a window.
    assert waits.seen == ["nonzero"]


def test_a_step_on_the_host_does_ask():
    state, batch = TrainingState(SMALL), MegapixelMNIST(SMALL.data).batch(range(4))
    with Waits() as waits:
        forward_step(state.network.train(), batch, SMALL.training, state.generator)
    assert {"_local_scalar_dense", "index"} <= set(waits.seen)


def test_training_on_an_accelerator_reaches_what_the_host_reaches(monkeypatch):
    here = train(SMALL).history[-1]
    work_as_on_an_accelerator(monkeypatch)
    there = train(SMALL).history[-1]
    for split in ("train", "test"):
        assert there[split]["loss"] == pytest.approx(here[split]["loss"], rel=0.02)
    assert there["test"]["attention"].keys() == here["test"]["attention"].keys()


def test_what_is_held_for_the_gradient_leaves_the_largest_maps_out(monkeypatch):
    network = random_network(0).train()
    patches = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)

    def held_bytes() -> int:
        storages = {}

        def note(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network.embed(patches)
        return sum(each.untyped_storage().nbytes() for each in storages.values())

    everything = held_bytes()
    monkeypatch.setattr(ips, "is_accelerator", lambda device: True)
    stem = 8 * 14 * 14 * 4 * len(patches)  # one map of float32 at the stem's resolution
    assert held_bytes() < everything - 2 * stem


def test_only_a_cpu_is_no_accelerator():
    assert not is_accelerator("cpu") and not is_accelerator(torch.device("cpu"))
    assert is_accelerator("cuda") and is_accelerator(torch.device("cuda", 1))


def test_tensors_stay_on_a_cpu_and_its_arithmetic_too():
    tensor, before = torch.arange(3), torch.get_float32_matmul_precision()
    assert moved(tensor, "cpu") is tensor and uploaded(tensor, "cpu") is tensor
    prepare("cpu")
    assert torch.get_float32_matmul_precision() == before


def test_tensors_go_where_they_are_sent():
    assert moved(torch.arange(3), "meta").device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_cuda_never_waits():
    config = SMALL.replace(precision="bf16", mask_k=3, mask_p=0.5, memory_size=12)
    state = TrainingState(config, device="cuda")
    batches = [MegapixelMNIST(config.data).batch(range(4)).on("cuda") for _ in range(2)]
    for i, batch in enumerate(batches):
        if i:  # the first step may, as libraries prepare themselves
            torch.cuda.set_sync_debug_mode("error")
        try:
            _, losses, _ = forward_step(
                state.network.train(), batch, config.training, state.generator
            )
            state.optimiser.zero_grad()
            losses.total.backward()
            state.optimiser.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert losses.total.isfinite()
