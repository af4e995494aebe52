"""Encoders for selection: evaluation mode, no gradient, batch norms folded into convolutions."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ipslib.model.encoder import layout_of


class FoldedEncoder:
    """A copy of an encoder in which each batch norm is part of the convolution before it.

    It gives what the encoder gives in evaluation mode, but for rounding, and follows the
    encoder's weights when told to `refresh`.

    Args:
        encoder: every batch norm comes right after its convolution in the order of modules, as
            in torchvision's ResNets; batch norms behind anything else stay as they are.
    """

    def __init__(self, encoder: nn.Module):
        self._encoder, self._copy = encoder, copy.deepcopy(encoder).eval().requires_grad_(False)
        self._folded: list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]] = []
        before_name, before = "", None
        for name, module in encoder.named_modules():
            if isinstance(module, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                conv = self._copy.get_submodule(before_name)
                conv.bias = nn.Parameter(torch.zeros(conv.out_channels), requires_grad=False)
                self._copy.set_submodule(name, nn.Identity())
                self._folded.append((before, module, conv))
            before_name, before = name, module
        folded = {id(module) for conv, norm, _ in self._folded for module in (conv, norm)}
        self._others = [
            (module, self._copy.get_submodule(name))
            for name, module in encoder.named_modules()
            if id(module) not in folded and not list(module.children())
        ]

    @torch.no_grad()
    def refresh(self, dtype: torch.dtype) -> None:
        """Take over the encoder's weights as they are now, in this precision."""
        like, mine = next(self._encoder.parameters()), next(self._copy.parameters())
        if (mine.device, mine.dtype) != (like.device, dtype):
            self._copy.to(like.device, dtype)
        for conv, norm, copied in self._folded:
            weight, bias = fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            copied.weight.copy_(weight)
            copied.bias.copy_(bias)
        for module, copied in self._others:
            for source, target in zip(module.parameters(), copied.parameters(), strict=True):
                target.copy_(source)
            for source, target in zip(module.buffers(), copied.buffers(), strict=True):
                target.copy_(source)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Encode patches (n, C, P, P) or features (n, C) of floating dtype to (n, D) float32."""
        dtype = next(self._copy.parameters()).dtype
        return self._copy(inputs.to(dtype, memory_format=layout_of(inputs))).float()
