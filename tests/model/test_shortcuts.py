import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.losses import task_loss
from ipslib.model.original import load_original
from ipslib.model.shortcuts import RepeatBatchNorm2d, norms_of, repeated


@given(n_others=st.integers(1, 6), repeats=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_one_sample_counted_k_times_is_a_batch_that_holds_it_k_times(n_others, repeats, seed):
    torch.manual_seed(seed)
    plain, ours = nn.BatchNorm2d(3).double(), RepeatBatchNorm2d(3).double()
    for norm in (plain, ours):
        norm.weight.data = torch.tensor([0.5, -1.0, 2.0]).double()
        norm.bias.data = torch.tensor([0.1, 0.0, -3.0]).double()
    first, others = torch.randn(1 + n_others, 3, 2, 2).double().split([1, n_others])
    others = 3 + 2 * others
    distinct = torch.cat([first, others]).requires_grad_()
    whole = torch.cat([first.expand(repeats, -1, -1, -1), others]).requires_grad_()
    expand = torch.tensor([0] * repeats + list(range(1, n_others + 1)))
    weights = torch.randn(repeats + n_others, 3, 2, 2).double()  # of a loss, unlike per copy

    expected = plain(whole)
    (expected * weights).sum().backward()
    with repeated([ours], repeats):
        got = ours(distinct)
    (got[expand] * weights).sum().backward()

    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(got[expand], expected, **close)
    torch.testing.assert_close(distinct.grad[:1], whole.grad[:repeats].sum(0, True), **close)
    torch.testing.assert_close(distinct.grad[1:], whole.grad[repeats:], **close)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, **close)
    torch.testing.assert_close(ours.bias.grad, plain.bias.grad, **close)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, **close)


def test_a_single_value_a_channel_has_no_statistics():
    norm = RepeatBatchNorm2d(3)
    with pytest.raises(IpslibError, match="at least 2 values"):
        norm(torch.zeros(1, 3, 1, 1))
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("repeats", [1, 400])
@pytest.mark.parametrize("shape", [(1600, 8, 25, 25), (3, 16, 250, 250), (1600, 8, 1, 1)])
def test_sums_are_exact_over_any_number_of_values(shape, repeats):
    """Torch's own kernel is off by up to a percent on the first."""
    torch.manual_seed(0)
    norm = RepeatBatchNorm2d(shape[1], momentum=1.0)
    x = (torch.randn(shape) + 0.5).relu_().contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    slope = torch.randn(shape)
    with repeated([norm], repeats):
        norm(x).backward(slope)

    x, slope = x.detach().double(), slope.double()
    weight = torch.ones(shape[0], 1, 1, 1).double()
    weight[0] = repeats
    n = weight.sum() * shape[2] * shape[3]
    mean = (weight * x).sum((0, 2, 3)) / n
    x -= mean[:, None, None]
    var = (weight * x.square()).sum((0, 2, 3)) / n
    assert ((norm.running_mean - mean).abs() / var.sqrt()).max() < 1e-5
    assert (norm.running_var / (var * n / (n - 1)) - 1).abs().max() < 1e-5
    sums = slope.sum((0, 2, 3)), (slope * x).sum((0, 2, 3)) / (var + norm.eps).sqrt()
    for got, exact in zip((norm.bias.grad, norm.weight.grad), sums, strict=True):
        assert (got - exact).norm() / exact.norm() < 1e-4


def test_the_count_ends_with_its_block_after_an_error_too():
    norm = RepeatBatchNorm2d(3)
    with pytest.raises(RuntimeError), repeated([norm], 9):
        raise RuntimeError
    assert norm.repeats == 1
    assert set(norm.state_dict()) == set(nn.BatchNorm2d(3).state_dict())


def test_a_published_batch_has_the_loss_and_gradient_of_float64(shared, mnist_root):
    """5 x 100 patches, nearly half of them blank, with a trained network, blanks shared or not."""
    network = load_original(shared / "checkpoints" / "original_84px_400noise_1500.pth").train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    sizes = {"canvas": 1500, "digit_size": 84, "n_noise": 400}
    batch = MegapixelMNIST(MegapixelMNISTConfig(start="published", **sizes)).batch(range(5))
    generator = torch.Generator().manual_seed(0)
    image, index = (selection := network.select(batch, generator=generator)).pairs()
    patches = batch.read(image, index)

    def loss_and_gradient(network, embed):
        pooled = network.pool(selection.by_image(network._at_position(embed(patches), index)))
        tokens = {task: pooled.tokens[:, i] for i, task in enumerate(network.heads)}
        logits = {task: head(tokens[task]).double() for task, head in network.heads.items()}
        labels = {t: y.double() if y.ndim == 2 else y for t, y in batch.labels.items()}
        loss = task_loss(logits, labels)
        network.zero_grad()
        loss.backward()
        gradient = [each.grad.flatten().double() for each in network.encoder.parameters()]
        return loss.item(), torch.cat(gradient)

    exact = copy.deepcopy(network).double()
    for norm in norms_of(exact):
        norm.forward = partial(nn.BatchNorm2d.forward, norm)
    exact.encoder.to(memory_format=torch.contiguous_format)
    truth, slope = loss_and_gradient(exact, lambda each: exact.encoder(each.double() / 255))
    for embed in (network.embed, network._embed_kept):
        loss, gradient = loss_and_gradient(network, embed)
        assert loss == pytest.approx(truth, abs=1e-5)
        assert (gradient - slope).norm() / slope.norm() < 1e-3
