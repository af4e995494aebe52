import platform
import threading
import time
import traceback

import pytest
import torch

from ipslib import selection
from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist import scenes
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.scenes import DrawnScenes
from ipslib.datasets.slides.prepare import prepare_slides
from ipslib.errors import IpslibError
from ipslib.losses import combined_losses
from ipslib.model import ips
from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore
from ipslib.runs.train_images import train_images
from ipslib.runtime import chosen_device, prefetched
from ipslib.training import TrainingState, forward_step, train
from tests.reference import random_network, seeded
from tests.test_package import without
from tests.tiny import TINY
from tests.waits import Waits

SMALL = TINY.replace(
    canvas=(260, 230), n_noise=14, memory_size=9, iter_size=12, dropout=0.0, attn_dropout=0.0
)
PATIENCE_S = 10


def work_as_on_an_accelerator(patch: pytest.MonkeyPatch) -> None:
    """From now on the CPU is worked on as if the host had to wait for it."""
    for module in (scenes, selection, ips):
        patch.setattr(module, "is_accelerator", lambda device: True)


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


def step_of(state: TrainingState, batch: DrawnScenes, config: RunConfig) -> torch.Tensor:
    """A whole step of training; its loss."""
    _, losses, _ = forward_step(state.network.train(), batch, config.training, state.generator)
    state.optimiser.zero_grad()
    losses.total.backward()
    state.optimiser.step()
    return losses.total


def test_a_step_asks_the_accelerator_nothing(monkeypatch):
    work_as_on_an_accelerator(monkeypatch)
    config = SMALL.replace(
        semantic_weight=1.0, diversity_weight=2.0, mask_k=3, mask_p=0.5, memory_size=12
    )
    state, batch = TrainingState(config), MegapixelMNIST(config.data).batch(range(4)).on("cpu")
    assert isinstance(batch, DrawnScenes)
    step_of(state, batch, config)
    with Waits() as waits:
        step_of(state, batch, config)
    # The one that is left is of the host's own table of what is blank, once a window.
    assert waits.seen == ["nonzero"]


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


class TestChosen:
    def test_none_is_the_best_there_is(self):
        assert chosen_device() == ("cuda" if torch.cuda.is_available() else "cpu")
        assert chosen_device("cpu") == chosen_device(torch.device("cpu")) == "cpu"

    @pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "meta"])
    def test_what_is_not_there_is_refused(self, device):
        with pytest.raises(IpslibError, match="device"):
            chosen_device(device)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    @pytest.mark.parametrize("device", ["cuda", "cuda:0"])
    def test_by_everything_that_takes_one_before_any_work(self, device, tmp_path):
        store, missing = RecordStore(tmp_path / "runs"), tmp_path / "none"
        for call in (
            lambda: train(SMALL, device=device),
            lambda: train_and_record(SMALL, store, device=device),
            lambda: prepare_slides({"a": missing}, tmp_path / "bags", device=device),
            lambda: train_images(missing, folder=store.folder, device=device),
        ):
            with pytest.raises(IpslibError, match="^device"):
                call()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_cuda_never_waits():
    config = SMALL.replace(precision="bf16", mask_k=3, mask_p=0.5, memory_size=12)
    state = TrainingState(config, device="cuda")
    batches = [MegapixelMNIST(config.data).batch(range(4)).on("cuda") for _ in range(2)]
    for i, batch in enumerate(batches):
        if i:  # the first step may, as libraries prepare themselves
            torch.cuda.set_sync_debug_mode("error")
        try:
            loss = step_of(state, batch, config)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()


# A second block of the size of one that was freed: how many page faults it costs.
FAULTS = """
import resource
from ipslib.runtime import keep_freed_memory

for keep in (bool, keep_freed_memory):
    keep()
    bytearray(64_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_freed_block_is_used_again_without_new_pages():
    before, after = map(int, without("", FAULTS).stdout.split())
    assert after < before / 10


class TestPrefetched:
    @pytest.fixture(autouse=True)
    def no_thread_stays(self):
        yield
        assert not [each for each in threading.enumerate() if each.name.startswith("prefetch")]

    @pytest.mark.parametrize("n", [0, 1, 2, 7])
    def test_all_results_come_in_order(self, n):
        def slower_at_first(item: int) -> int:
            time.sleep(0.01 / (item + 1))
            return item * item

        assert list(prefetched(slower_at_first, range(n))) == [i * i for i in range(n)]

    def test_one_is_made_ahead_and_no_more(self):
        begun = [threading.Event() for _ in range(10)]
        for item, _ in enumerate(prefetched(lambda item: begun[item].set(), range(10))):
            if item + 1 < 10:
                assert begun[item + 1].wait(PATIENCE_S)  # while the caller holds this one
            assert not any(event.is_set() for event in begun[item + 2 :])

    def test_an_error_comes_in_its_turn_with_its_traceback(self):
        def fails_at_two(item: int) -> int:
            if item == 2:
                raise ValueError("no such image")
            return item

        results, seen = prefetched(fails_at_two, range(6)), []
        with pytest.raises(ValueError, match="no such image") as raised:
            seen.extend(results)
        assert seen == [0, 1]
        assert "fails_at_two" in [frame.name for frame in traceback.extract_tb(raised.tb)]
        assert next(results, "nothing more") == "nothing more"

    def test_when_the_caller_stops_early_what_has_begun_ends_and_nothing_more_begins(self):
        begun, may_end, ended = threading.Event(), threading.Event(), []

        def make(item: int) -> int:
            if item:
                begun.set()
                assert may_end.wait(PATIENCE_S)
            ended.append(item)
            return item

        results = prefetched(make, range(10))
        assert next(results) == 0 and begun.wait(PATIENCE_S)
        threading.Timer(0.05, may_end.set).start()
        results.close()
        assert ended == [0, 1]
