import pytest
import torch

from ipslib.commands.gpu_check import Agreement, compare_devices, differing
from ipslib.datasets.registry import run_config
from ipslib.selection import Selection

SMALL = run_config(
    {
        "digits": "embedded", "canvas": 150, "patch_size": 28, "n_noise": 5, "n_train": 4,
        "width": 0.125, "n_heads": 4, "memory_size": 6, "iter_size": 5,
    }
)  # fmt: skip


def selection(indices: list[list[int]], scores: list[list[float]]) -> Selection:
    return Selection(torch.tensor(indices), torch.tensor(scores))


def test_the_same_patches_in_another_order_do_not_differ():
    one = selection([[1, 2, 3]], [[0.5, 0.3, 0.2]])
    assert differing(one, selection([[3, 1, 2]], [[0.2, 0.5, 0.3]])) == (0, 0.0)


def test_patches_kept_by_one_alone_are_set_against_those_in_their_place():
    one = selection([[1, 2, 3], [4, 5, 6]], [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    other = selection([[1, 9, 8], [4, 5, 6]], [[0.5, 0.2, 0.24], [0.5, 0.3, 0.2]])
    n_apart, widest = differing(one, other)
    assert n_apart == 2 and widest == pytest.approx(0.06 / 0.3)


def test_without_a_choice_nothing_differs():
    everything = Selection(torch.arange(3).expand(2, -1), None)
    assert differing(everything, everything) == (0, 0.0)


@pytest.mark.parametrize(
    ("tie", "loss", "gradient", "holds"),
    [(0, 0, 0, True), (1e-5, 1e-5, 1e-4, True), (0.01, 0, 0, False), (0, 0.01, 0, False),
     (0, 0, 0.1, False), (0, float("nan"), 0, False)],
)  # fmt: skip
def test_only_ties_and_rounding_are_agreement(tie, loss, gradient, holds):
    agreement = Agreement(600, int(tie > 0), tie, loss, gradient)
    assert agreement.holds == holds
    assert str(agreement).startswith("agree" if holds else "DISAGREE")


def test_a_device_agrees_with_itself_and_leaves_the_arithmetic_as_it_was():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    assert compare_devices(SMALL, "cpu", n_images=2) == (12, 0, 0.0, 0.0, 0.0)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_device_that_draws_something_else_disagrees(monkeypatch):
    from ipslib.datasets.megapixel_mnist.scenes import SceneBatch

    on, calls = SceneBatch.on, []

    def wrong_the_second_time(batch, device):
        calls.append(device)
        drawn = on(batch, device)
        if len(calls) == 2:
            read = drawn.read
            drawn.read = lambda image, patch: 255 - read(image, patch)
        return drawn

    monkeypatch.setattr(SceneBatch, "on", wrong_the_second_time)
    assert not compare_devices(SMALL, "cpu", n_images=2).holds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_agrees_with_the_cpu():
    assert compare_devices(SMALL, "cuda", n_images=4).holds
