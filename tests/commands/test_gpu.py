import pytest
import torch

from ipslib.__main__ import main
from ipslib.commands import gpu
from ipslib.commands.gpu import Agreement, compare_devices, differing
from ipslib.datasets.megapixel_mnist.scenes import SceneBatch
from ipslib.selection import Selection
from tests.commands.test_queue import SMALL, options
from tests.tiny import TINY

SMALL_RUN = TINY.replace(canvas=150, n_noise=5, n_train=4, memory_size=6, iter_size=5, batch_size=1)


def test_the_whole_way_runs_on_a_cpu(outputs, capsys):
    assert main(["gpu", "--device", "cpu", "--smoke", *options(SMALL)]) == 0
    out = capsys.readouterr().out
    order = ("CPU, fp32:", "agree: ", " ms", " MB", "regenerated: 0 of 4", "regenerated: 4 of 4")
    assert sorted(order, key=out.index) == list(order)
    assert len(list((outputs / "smoke" / "records").glob("*.json"))) == 4


def test_devices_that_disagree_train_nothing(outputs, monkeypatch, capsys):
    wrong = Agreement(100, 3, 0.5, 0.0, 0.0)
    monkeypatch.setattr(gpu, "compare_devices", lambda *_, **__: wrong)
    monkeypatch.setattr(gpu, "work_queue", lambda *_, **__: pytest.fail("a run was begun"))
    assert main(["gpu", "--device", "cpu", "--smoke"]) == 1
    out = capsys.readouterr().out
    assert "DISAGREE: 97 of 100" in out and "no run was begun" in out


def test_a_step_for_which_time_or_memory_is_lacking_stops_nothing(monkeypatch):
    def refuse(*_):
        raise RuntimeError("CUDA out of memory.")

    assert "no time" in gpu.time_steps(SMALL_RUN, "cpu", deadline=0.0)
    monkeypatch.setattr(gpu, "TrainingStep", refuse)
    assert "memory" in gpu.time_steps(SMALL_RUN, "cpu", deadline=float("inf"))


def test_checks_are_skipped_when_asked(outputs, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "compare_devices", lambda *_, **__: pytest.fail("it was checked"))
    monkeypatch.setattr(gpu, "work_queue", lambda *_, **__: 1)
    assert main(["gpu", "--device", "cpu", "--smoke", "--skip-checks"]) == 1


def selection(indices: list[list[int]], scores: list[list[float]]) -> Selection:
    return Selection(torch.tensor(indices), torch.tensor(scores))


@pytest.mark.parametrize(
    ("other", "n_apart", "widest"),
    [
        (selection([[3, 1, 2], [4, 5, 6]], [[0.2, 0.5, 0.3], [0.5, 0.3, 0.2]]), 0, 0.0),
        (selection([[1, 9, 8], [4, 5, 6]], [[0.5, 0.2, 0.24], [0.5, 0.3, 0.2]]), 2, 0.06 / 0.3),
    ],
)
def test_patches_kept_by_one_alone_are_set_against_those_in_their_place(other, n_apart, widest):
    one = selection([[1, 2, 3], [4, 5, 6]], [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert differing(one, other) == (n_apart, pytest.approx(widest))
    everything = Selection(one.indices, None)
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


def test_a_device_agrees_with_itself():
    assert compare_devices(SMALL_RUN, "cpu", n_images=2) == (12, 0, 0.0, 0.0, 0.0)


def test_a_device_that_draws_something_else_disagrees(monkeypatch):
    on, calls = SceneBatch.on, []

    def wrong_the_second_time(batch, device):
        calls.append(device)
        drawn = on(batch, device)
        if len(calls) == 2:
            read = drawn.read
            drawn.read = lambda image, patch: 255 - read(image, patch)
        return drawn

    monkeypatch.setattr(SceneBatch, "on", wrong_the_second_time)
    assert not compare_devices(SMALL_RUN, "cpu", n_images=2).holds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_agrees_with_the_cpu():
    assert compare_devices(SMALL_RUN, "cuda", n_images=4).holds
