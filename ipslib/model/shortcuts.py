"""What saves an encoder time or memory, and changes nothing but rounding; and for which encoders
that is so, which `find_shortcuts` tries out.

All-zero patches of a batch are the same patch. Encoded once, with its multiplicity in the
statistics of `RepeatBatchNorm2d`, it gives the outputs, running statistics and gradients of the
batch that repeats it. For selection, `FoldedEncoder` has batch norms inside its convolutions; on
an accelerator, `encode_sparing` trains in less memory.

The sums of `RepeatBatchNorm2d` are exact: on a CPU torch adds the values of a channel one after
the other in float32, where the layout is channels last. Over a million of them the variance is off
by up to a percent, and the gradient that goes through it by several. Here sums are taken over
short stretches and joined in float64.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from ipslib.errors import IpslibError
from ipslib.runtime import is_accelerator

_LENGTH = 500  # values of a channel that are added up in float32
_LANES = 16  # such sums made side by side, as if of so many times the channels: fewer calls
_TRIED_SIDE = 64  # px, of patches on which shortcuts are tried


class RepeatBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose first sample counts `repeats` times in the statistics of training, and
    whose sums are exact on a CPU."""

    repeats = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, C, H, W)."""
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        is_exact = is_accelerator(x.device) or not channels_last  # torch's own sums
        if not self.training or (self.repeats == 1 and is_exact):
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


def counting_copies(encoder: nn.Module) -> nn.Module:
    """The encoder, its batch norms made `RepeatBatchNorm2d` where that is the same to training."""
    for norm in encoder.modules():
        is_plain = type(norm) is nn.BatchNorm2d and norm.momentum is not None
        if is_plain and norm.affine and norm.track_running_stats:
            norm.__class__ = RepeatBatchNorm2d
    return encoder


def norms_of(encoder: nn.Module) -> list[RepeatBatchNorm2d]:
    return [part for part in encoder.modules() if isinstance(part, RepeatBatchNorm2d)]


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


def _blocks(*maps: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
    """The values of maps (n, C, H, W), channels last, as views (1, lanes C, at most 500, 1), and
    the number of lanes: value k of a channel is in lane k modulo lanes. What is left over comes
    last, in one lane."""
    n_channels = maps[0].shape[1]
    n_rows = maps[0].numel() // n_channels
    n_whole = n_rows // _LANES
    for lanes, first, stop in ((_LANES, 0, n_whole), (1, n_whole * _LANES, n_rows)):
        width = lanes * n_channels
        for start in range(first, stop, _LENGTH):
            length = min(_LENGTH, stop - start)
            shape, strides = (1, width, length, 1), (width * length, 1, width, width)
            where = start * width
            yield lanes, [x.as_strided(shape, strides, x.storage_offset() + where) for x in maps]


@torch.no_grad()
def _moments(x: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel: those of blocks of x and of the further copies of
    its first sample, joined (Chan, Golub and LeVeque, 1983)."""
    n_channels, dtype = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    moments, weights = [], []
    for part, times in ((x, 1), (x[:1], repeats - 1)):
        for lanes, (block,) in _blocks(part) if times else ():
            zeros = x.new_zeros(block.shape[1], dtype=dtype)  # left as they are
            moments += torch.batch_norm_update_stats(block, zeros, zeros, 0.0)
            weights += [times * block.shape[2]] * lanes
    means = torch.cat(moments[::2]).double().view(-1, n_channels)  # (blocks, C)
    variances = torch.cat(moments[1::2]).double().view(-1, n_channels)
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
        dx, inverse_sd = torch.empty_like(x), (var + ctx.eps).rsqrt()
        blocks = list(_blocks(dx, grad, x))
        given, sums = _in_lanes(weight, mean, var), []
        for lanes, (_, g, values) in blocks:
            _, *of_lanes = torch.ops.aten.native_batch_norm_backward.default(
                g, values, *given[lanes], None, None, False, ctx.eps, [False, True, True]
            )
            sums.append(torch.stack(of_lanes).view(2, lanes, -1).double().sum(1))
        dweight, dbias = torch.stack(sums).sum(0).to(weight.dtype)
        scale = weight * inverse_sd
        slope = -scale * inverse_sd * dweight / ctx.n_values
        level = -scale * dbias / ctx.n_values - slope * mean
        scale, slope, level = (each[:, None, None].to(x.dtype) for each in (scale, slope, level))
        given = _in_lanes(scale, slope, level)
        for lanes, (out, g, values) in blocks:
            scales, slopes, levels = given[lanes]
            torch.addcmul(levels, values, slopes, out=out).addcmul_(g, scales)
        n_copies = ctx.n_values // x[0, 0].numel() - len(x)
        if n_copies:
            dx[0] += n_copies * (x[0] * slope + level)
        return dx, dweight, dbias, None, None, None, None


def _in_lanes(*values: Tensor) -> dict[int, Sequence[Tensor]]:
    """Values of channels (C, ...) as blocks of so many lanes take them."""
    many = torch.stack(values).repeat(1, _LANES, *[1] * (values[0].ndim - 1))
    return {1: values, _LANES: many.unbind()}


def _twin(encoder: nn.Module) -> nn.Module:
    """A copy that has the encoder's weights in common with it, and statistics of its own."""
    weights = [(w, nn.Parameter(w.detach(), w.requires_grad)) for w in encoder.parameters()]
    return copy.deepcopy(encoder, {id(theirs): ours for theirs, ours in weights})


class FoldedEncoder:
    """An encoder in evaluation mode, without gradient, for selection: each batch norm is part of
    the convolution that comes right before it in the order of modules. It has the encoder's weights
    as they were at the last `refresh`. Where images are channels last there, blocks of ResNets and
    a first convolution of one channel take fewer kernels on CUDA, see `_fuse`."""

    def __init__(self, encoder: nn.Module, *, channels_last: bool = False):
        self._copy = _twin(encoder).eval().requires_grad_(False)
        self._folded: list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]] = []
        self._others: list[tuple[nn.Module, nn.Module]] = []
        before, own = None, None
        twins = list(self._copy.modules())
        for (name, module), twin in zip(encoder.named_modules(), twins, strict=True):
            if isinstance(module, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                own.bias = nn.Parameter(torch.zeros(before.out_channels), requires_grad=False)
                self._copy.set_submodule(name, nn.Identity())
                self._folded.append((before, module, own))
                self._others.pop()
            elif module._parameters or module._buffers:
                self._others.append((module, twin))
            before, own = module, twin
        if channels_last:
            _fuse(self._copy)

    @torch.no_grad()
    def refresh(self, dtype: torch.dtype) -> None:
        """Take over the encoder's weights as they are now, in this precision."""
        self._dtype = dtype
        for conv, norm, own in self._folded:
            statistics = norm.running_mean, norm.running_var, norm.eps
            fused = fuse_conv_bn_weights(
                conv.weight, conv.bias, *statistics, norm.weight, norm.bias
            )
            own.weight.data, own.bias.data = (each.to(dtype) for each in fused)
        for module, own in self._others:
            for name, weight in module.named_parameters(recurse=False):
                getattr(own, name).data = weight.to(dtype)
            for name, value in module.named_buffers(recurse=False):
                setattr(own, name, value.to(dtype) if value.is_floating_point() else value)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Encode patches (n, C, P, P) or features (n, C) to (n, D) of float32, or of float64."""
        with torch.autocast(inputs.device.type, enabled=False):
            embeddings = self._copy(inputs.to(self._dtype))
        return embeddings.to(torch.promote_types(self._dtype, torch.float))


def _fuse(folded: nn.Module) -> None:
    """Let parts of a folded encoder do the same in fewer kernels on CUDA: the blocks of
    torchvision's ResNets, and a first convolution of one channel."""
    convs = (part for part in folded.modules() if isinstance(part, nn.Conv2d))
    if (first := next(convs, None)) and first.in_channels == 1 and _is_plain(first):
        first.__class__ = _OneChannelConv
    for block in folded.modules():
        if fused := _FUSED.get(type(block)):
            convs, norms = (_numbered(block, name, fused.n_convs) for name in ("conv", "bn"))
            # Of other numbers of channels it is not known that cuDNN has a kernel.
            known = all(
                _is_plain(c) and c.in_channels % 8 == c.out_channels % 8 == 0 for c in convs
            )
            folded_in = all(type(norm) is nn.Identity for norm in norms)
            if known and folded_in and type(block.relu) is nn.ReLU and not _has_hooks(block.relu):
                block.__class__ = fused


def _is_plain(conv: nn.Module) -> bool:
    """Whether its weights, bias, stride and padding tell all that it does."""
    return (
        type(conv) is nn.Conv2d
        and (conv.groups, conv.dilation, conv.padding_mode) == (1, (1, 1), "zeros")
        and not isinstance(conv.padding, str)
        and not _has_hooks(conv)
    )


def _has_hooks(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)


class _FusedBlock(nn.Module):
    """A block of which on CUDA each convolution with its bias, shortcut and ReLU is one kernel."""

    n_convs: int

    def forward(self, x: Tensor) -> Tensor:
        if not _has_fused(x):
            return super().forward(x)
        shortcut = self.downsample(x) if self.downsample else x
        *before, last = _numbered(self, "conv", self.n_convs)
        for conv in before:
            x = _conv_relu(conv, x)
        return _conv_relu(last, x, shortcut)


class _FusedBasicBlock(_FusedBlock, BasicBlock):
    n_convs = 2


class _FusedBottleneck(_FusedBlock, Bottleneck):
    n_convs = 3


_FUSED = {BasicBlock: _FusedBasicBlock, Bottleneck: _FusedBottleneck}


def _numbered(block: nn.Module, name: str, n: int) -> list[nn.Module]:
    return [getattr(block, f"{name}{i}") for i in range(1, n + 1)]


class _OneChannelConv(nn.Conv2d):
    """A convolution of one channel, for which cuDNN's kernels would be idle in seven of eight
    places: on CUDA one product of windows and weights."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_by_windows(self, x) if _has_fused(x) else super().forward(x)


def _has_fused(x: Tensor) -> bool:
    """Whether there are such kernels where x lies, and of its type."""
    low = x.dtype in (torch.float32, torch.bfloat16)
    cudnn = torch.backends.cudnn.enabled and torch.backends.cudnn.is_available()
    return x.is_cuda and low and cudnn and not torch.version.hip


def _conv_relu(conv: nn.Conv2d, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """ReLU of a convolution and, if there is one, a shortcut, by cuDNN."""
    geometry = conv.stride, conv.padding, conv.dilation, conv.groups
    if shortcut is None:
        return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *geometry)
    return torch.cudnn_convolution_add_relu(x, conv.weight, shortcut, 1.0, conv.bias, *geometry)


def conv_by_windows(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """What a convolution makes of one channel (n, 1, h, w): (n, C, h', w'), channels last. Rows of
    windows are as long as a whole number of times 16 bytes, which matrix units ask for."""
    (k, width), (down, right), (above, left) = conv.kernel_size, conv.stride, conv.padding
    n_spare = -width % 8
    x = nn.functional.pad(x, (left, left + n_spare, above, above)).contiguous()
    n, _, h, w = x.shape
    shape = n, (h - k) // down + 1, (w - n_spare - width) // right + 1
    strides = h * w, down * w, right, w, 1
    windows = x.as_strided((*shape, k, width + n_spare), strides, x.storage_offset())
    weight = nn.functional.pad(conv.weight, (0, n_spare)).flatten(1)  # (C, k (width + n_spare))
    windows = windows.reshape(-1, weight.shape[1])
    rows = windows @ weight.T if conv.bias is None else torch.addmm(conv.bias, windows, weight.T)
    return rows.view(*shape, conv.out_channels).permute(0, 3, 1, 2)


def encode_sparing(encoder: nn.Sequential, inputs: Tensor) -> Tensor:
    """What a ResNet gives, in less memory: the maps of its stem, which are its largest, are not
    held for the gradient but computed again for it (Chen et al., arXiv 1604.06174). Statistics of
    batch norms are updated once."""
    stem = checkpoint(
        encoder[:4],
        inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(encoder[1])),
    )
    return encoder[4:](stem)


@contextmanager
def _statistics_kept(norm: nn.BatchNorm2d) -> Iterator[None]:
    """What is computed meanwhile updates copies of the statistics."""
    own = dict(norm.named_buffers())
    try:
        for name, buffer in own.items():
            setattr(norm, name, buffer.clone())
        yield
    finally:
        for name, buffer in own.items():
            setattr(norm, name, buffer)


def has_stem(encoder: nn.Module) -> bool:
    """Whether it begins as `encode_sparing` wants it: as a ResNet does, ReLU before the max pool or
    behind it."""
    norm, last = (nn.Conv2d, RepeatBatchNorm2d), (nn.ReLU, nn.MaxPool2d)
    is_longer = isinstance(encoder, nn.Sequential) and len(encoder) > len(norm + last)
    stems = (norm + last, norm + last[::-1])
    return is_longer and any(all(map(isinstance, encoder, stem)) for stem in stems)


def train_unfrozen(encoder: nn.Module) -> None:
    """Keep what has only frozen weights in evaluation mode, whatever mode the rest is in."""
    for module in encoder.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


class Shortcuts(NamedTuple):
    """Which shortcuts are exact for an encoder."""

    alone: bool = False  # in evaluation each patch by itself, so that blank ones are one
    folded: bool = False  # batch norms inside convolutions, in evaluation
    repeats: bool = False  # in training one patch that counts as its copies
    channels_last: bool = False  # the layout of images in memory


def find_shortcuts(encoder: nn.Module, shape: tuple[int, ...]) -> Shortcuts:
    """Try each on a few random patches of this shape, one of them blank, in float64, where rounding
    does not count; on smaller ones where the encoder takes them. An encoder that cannot be copied,
    or does not compute in float64, has none."""
    small = (shape[0], *(min(side, _TRIED_SIDE) for side in shape[1:]))
    with torch.random.fork_rng(devices=[]):
        for tried in dict.fromkeys((small, shape)):
            torch.default_generator.manual_seed(0)
            patches = torch.rand(3, *tried, dtype=torch.float64)
            patches[0] = 0
            with suppress(Exception):  # whatever a foreign module raises
                return _try_shortcuts(_shaken(copy.deepcopy(encoder)), patches)
    return Shortcuts()


def _shaken(encoder: nn.Module) -> nn.Module:
    """In evaluation mode and float64; statistics of batch norms, and weights that begin alike, such
    as the scale of a branch, as unlike fresh ones as trained ones are."""
    encoder = encoder.eval().cpu().double()
    statistics = (b for name, b in encoder.named_buffers() if name.endswith(("_mean", "_var")))
    alike = (w.detach() for w in encoder.parameters() if (w == w.flatten()[0]).all())
    for value in (*statistics, *alike):
        value.uniform_(0.5, 1.5)
    return encoder


def _try_shortcuts(encoder: nn.Module, patches: Tensor) -> Shortcuts:
    expected = [encoder(patches)]

    def alone() -> bool:
        return _equal([torch.cat([encoder(patches[:1]), encoder(patches[1:])])], expected)

    def folded() -> bool:
        twin = FoldedEncoder(encoder)
        twin.refresh(torch.float64)
        return _equal([twin(patches)], expected)

    def channels_last() -> bool:
        layout = {"memory_format": torch.channels_last}
        return _equal([_twin(encoder).to(**layout)(patches.contiguous(**layout))], expected)

    def repeats() -> bool:
        before = torch.get_rng_state()
        plain, again = (_train_step(encoder, patches) for _ in range(2))
        if not torch.equal(torch.get_rng_state(), before):  # copies draw each for itself
            return False
        counted = _train_step(encoder, patches, counted=True)
        return _equal([*again, *counted], [*plain, *plain])

    held = []
    for holds in (alone, folded, repeats, channels_last):
        try:
            held.append(holds())
        except Exception:  # whatever a foreign module raises
            held.append(False)
    return Shortcuts(*held)


def _train_step(encoder: nn.Module, patches: Tensor, *, counted: bool = False) -> list[Tensor]:
    """In training mode, of a batch that has the first patch three times: all embeddings, the
    gradient of the distinct patches, and the statistics behind it."""
    encoder, patches = _twin(encoder).train(), patches.clone().requires_grad_()
    train_unfrozen(encoder)
    copies = torch.tensor([0, 0, *range(len(patches))])
    if counted:
        with repeated(norms_of(counting_copies(encoder)), 3):
            embeddings = encoder(patches)[copies]
    else:
        embeddings = encoder(patches[copies])
    slope = torch.linspace(-1, 1, embeddings.numel(), dtype=embeddings.dtype)
    (gradient,) = torch.autograd.grad(slope @ embeddings.flatten(), patches)
    return [embeddings, gradient, *encoder.buffers()]


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    """But for the rounding of float64."""
    gaps = [((a - b).abs().max(), b.abs().max()) for a, b in zip(some, others, strict=True)]
    return all(gap <= 1e-6 * size for gap, size in gaps)
