"""Batch norm over a batch whose first sample stands for several equal ones.

All-zero patches of a batch are the same patch. Encoded once, with its multiplicity in the batch
statistics, it gives the outputs, running statistics and gradients of the batch that repeats it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RepeatBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose first sample counts `repeats` times in the statistics of training."""

    repeats = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, C, H, W)."""
        if self.repeats == 1 or not self.training:
            return super().forward(x)
        n = len(x) + self.repeats - 1
        var, mean = _moments(x, self.repeats)
        with torch.no_grad():
            n_values = n * x[0, 0].numel()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n_values / (n_values - 1)), self.momentum)
            self.num_batches_tracked += 1
        return _Normalise.apply(x, self.weight, self.bias, mean, var, self.eps, self.repeats)


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


@torch.no_grad()
def _moments(x: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Variance and mean (C,) of each channel, float32: those of x and of the further copies of
    its first sample, joined (Chan, Golub and LeVeque, 1983)."""
    (var, mean), (first_var, first_mean) = _plain_moments(x), _plain_moments(x[:1])
    share = (repeats - 1) / (len(x) + repeats - 1)  # of the further copies
    apart = first_mean - mean
    joined = var.lerp(first_var, share) + share * (1 - share) * apart * apart
    return joined, mean.lerp(first_mean, share)


def _plain_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Batch norm's own kernel finds them six times faster than `torch.var_mean` does; with a
    float32 scale it finds them in float32 for bf16 too."""
    eps, dtype = 1e-5, torch.promote_types(x.dtype, torch.float32)
    scale, shift = x.new_ones(x.shape[1], dtype=dtype), x.new_zeros(x.shape[1], dtype=dtype)
    _, mean, inverse_sd = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)
    return (inverse_sd**-2 - eps).clamp_(min=0), mean


class _Normalise(torch.autograd.Function):
    """Batch norm by given statistics, with the gradient that flows through them too.

    With x^ the normalised x, w the multiplicity and W = sum w, and g the gradient of y (of the
    first sample summed over its copies): dx = gamma / sd (g - w / W (sum g + x^ sum(g x^))).
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, repeats):
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.repeats = eps, repeats
        return nn.functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, var = ctx.saved_tensors
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, mean, var, False, ctx.eps, [True, True, True]
        )
        n_values = (len(x) + ctx.repeats - 1) * x[0, 0].numel()
        inverse_sd = (var + ctx.eps).rsqrt()
        slope = -weight * inverse_sd * inverse_sd * dweight / n_values
        level = -weight * inverse_sd * dbias / n_values - slope * mean
        slope, level = (c[:, None, None].to(x.dtype) for c in (slope, level))
        dx.addcmul_(x, slope).add_(level)
        dx[0] += (ctx.repeats - 1) * (x[0] * slope + level)
        return dx, dweight, dbias, None, None, None, None
