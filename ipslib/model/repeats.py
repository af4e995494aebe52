"""Batch norm with exact moments, over a batch whose first sample may stand for several equal ones.

On a CPU torch adds the values of a channel one after the other in float32, where the layout is
channels last: over a million of them the variance is off by up to a percent, and the gradient that
goes through it by several. Here sums are taken over short stretches and joined in float64.

All-zero patches of a batch are the same patch. Encoded once, with its multiplicity in the batch
statistics, it gives the outputs, running statistics and gradients of the batch that repeats it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ipslib.errors import IpslibError
from ipslib.runtime import is_accelerator

_STRETCH = 500  # values of a channel that are added up in float32; more would round visibly


class RepeatBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose first sample counts `repeats` times in the statistics of training, and
    whose sums are exact on a CPU."""

    repeats = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, C, H, W)."""
        if not self.training or (self.repeats == 1 and is_accelerator(x.device)):
            return super().forward(x)
        n_values = (len(x) + self.repeats - 1) * x[0, 0].numel()
        if n_values < 2:
            raise IpslibError(
                "batch norm: wanted at least 2 values a channel in training, got 1; use more or "
                "larger patches, or evaluation mode."
            )
        x = x.contiguous(memory_format=torch.channels_last)
        mean, var = _moments(x, self.repeats)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n_values / (n_values - 1)), self.momentum)
            self.num_batches_tracked += 1
        return _Normalise.apply(x, self.weight, self.bias, mean, var, self.eps, n_values)


@contextmanager
def repeated(norms: Iterable[RepeatBatchNorm2d], repeats: int) -> Iterator[None]:
    """The first sample counts `repeats` times in these norms for a while."""
    try:
        for norm in norms:
            norm.repeats = repeats
        yield
    finally:
        for norm in norms:
            del norm.repeats


def _stretches(x: Tensor) -> tuple[Tensor, ...]:
    """The values of x (n, C, H, W), channels last, as (1, C, length, 1), whatever n, H and W."""
    rows = x.permute(0, 2, 3, 1).reshape(1, -1, 1, x.shape[1])  # (1, n H W, 1, C), a view
    return rows.permute(0, 3, 1, 2).split(_STRETCH, dim=2)


@torch.no_grad()
def _moments(x: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel: those of stretches of x and of the further copies of
    its first sample, joined (Chan, Golub and LeVeque, 1983)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    running = x.new_zeros(x.shape[1], dtype=dtype), x.new_ones(x.shape[1], dtype=dtype)
    stretches, weights = list(_stretches(x)), []
    weights += [each.shape[2] for each in stretches]
    if repeats > 1:
        copies = _stretches(x[:1])
        stretches += copies
        weights += [(repeats - 1) * each.shape[2] for each in copies]
    moments = [torch.batch_norm_update_stats(each, *running, 0.0) for each in stretches]
    means, variances = (torch.stack(each).double() for each in zip(*moments, strict=True))
    share = torch.tensor(weights, dtype=torch.float64, device=x.device) / sum(weights)
    mean = share @ means
    var = share @ (variances + (means - mean).square())
    return mean.to(dtype), var.to(dtype)


class _Normalise(torch.autograd.Function):
    """Batch norm by given statistics, with the gradient that flows through them too.

    With x^ the normalised x, w the multiplicity and W = sum w, and g the gradient of y (of the
    first sample summed over its copies): dx = gamma / sd (g - w / W (sum g + x^ sum(g x^))).
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, n_values):
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.n_values = eps, n_values
        return nn.functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, var = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dweight, dbias = _gradient_sums(grad, x, weight, mean, var, ctx.eps)
        scale = weight * (var + ctx.eps).rsqrt()
        slope = -scale * (var + ctx.eps).rsqrt() * dweight / ctx.n_values
        level = -scale * dbias / ctx.n_values - slope * mean
        scale, slope, level = (each[:, None, None].to(x.dtype) for each in (scale, slope, level))
        dx = torch.empty_like(x)
        for out, g, values in zip(*map(_stretches, (dx, grad, x)), strict=True):
            torch.addcmul(level, values, slope, out=out).addcmul_(g, scale)
        n_copies = ctx.n_values // x[0, 0].numel() - len(x)
        if n_copies:
            dx[0] += n_copies * (x[0] * slope + level)
        return dx, dweight, dbias, None, None, None, None


def _gradient_sums(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """sum(g x^) and sum(g) (C,) of each channel."""
    sums = [
        torch.ops.aten.native_batch_norm_backward(
            g, values, weight, mean, var, None, None, False, eps, [False, True, True]
        )[1:]
        for g, values in zip(_stretches(grad), _stretches(x), strict=True)
    ]
    dweight, dbias = (torch.stack(each).double().sum(0) for each in zip(*sums, strict=True))
    return dweight.to(weight.dtype), dbias.to(weight.dtype)
