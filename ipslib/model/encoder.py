"""Patch encoders: the published ResNets, that of features which another network made, and any
network of torchvision or timm; their weights, what of them is trained, and their input."""

from pathlib import Path
from typing import NamedTuple

import torch
import torchvision.models
from torch import Tensor, nn
from torch.hub import get_dir
from torchvision.models.resnet import BasicBlock

from ipslib.config import ModelConfig
from ipslib.errors import IpslibError, did_you_mean, reason_of
from ipslib.model.shortcuts import counting_copies
from ipslib.paths import found

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
_PRETRAINED = {
    "default": "DEFAULT", "imagenet_v1": "IMAGENET1K_V1", "imagenet_v2": "IMAGENET1K_V2"
}  # fmt: skip


class WeightsFile(NamedTuple):
    """A file of pretrained weights: where torchvision keeps it, there or not, and its source."""

    path: Path
    url: str


def weights_file(encoder: str, weights: str) -> WeightsFile | None:
    """The file that a pretrained encoder of torchvision's needs, if any."""
    if weights not in _PRETRAINED or encoder.startswith("timm/"):
        return None
    known = torchvision.models.get_model_weights(encoder.removeprefix("torchvision/"))
    if _PRETRAINED[weights] not in known.__members__:
        raise IpslibError(
            f"weights: {weights} are not of {encoder}; use weights default, a file or none."
        )
    url = known[_PRETRAINED[weights]].url
    return WeightsFile(Path(get_dir(), "checkpoints", Path(url).name), url)


def build_encoder(config: ModelConfig, in_channels: int) -> nn.Module:
    """Build the encoder of a configuration: patches (n, C, P, P) or features (n, C) to embeddings
    (n, D). IpslibError where weights are neither here nor downloadable, or do not fit.

    A ResNet is the sequence conv, batch norm, max pool, ReLU, stages, average pool, and the
    projection 2048 -> D behind ResNet-50. (ReLU behind the pool gives the same bits, in gradients
    too, from a quarter of the values.) Frozen: every weight but the replaced first convolution and
    the projection keeps its value. Features are normalised each, projected, normalised over the
    batch and rectified, as published for CAMELYON16. Other networks lose their classifier.
    """
    if config.encoder == "own":
        raise IpslibError("encoder: own is a module of yours; give it as encoder=module.")
    if config.encoder == "features":
        return nn.Sequential(
            nn.LayerNorm(in_channels, elementwise_affine=False),
            nn.Linear(in_channels, config.embedding_dim),
            nn.BatchNorm1d(config.embedding_dim),
            nn.ReLU(inplace=True),
        )
    if config.encoder.startswith("timm/"):
        return freeze(_of_timm(config, in_channels), config)
    if config.encoder.startswith("torchvision/"):
        return _with_channels(freeze(_of_torchvision(config), config), in_channels)
    if config.width != 1 and config.encoder == "resnet18":
        trunk = _narrow_resnet18(round(64 * config.width))
    else:
        trunk = list(_of_torchvision(config).children())
    trunk[2], trunk[3] = trunk[3], trunk[2]
    layers = freeze(nn.Sequential(*trunk[: 4 + config.n_stages]), config)
    layers = [*_with_channels(layers, in_channels), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if config.encoder == "resnet50":
        layers.append(nn.Linear(256 * 2 ** (config.n_stages - 1), config.embedding_dim))
    return counting_copies(nn.Sequential(*layers))


def _of_torchvision(config: ModelConfig) -> nn.Module:
    """A network of torchvision's without its classifier: its last linear map or, of SqueezeNet,
    convolution, and what Inception answers beside it in training."""
    name = config.encoder.removeprefix("torchvision/")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise IpslibError(f"encoder: torchvision has no {name!r}{did_you_mean(name, known)}.")
    file = weights_file(config.encoder, config.weights)
    try:
        weights = _PRETRAINED[config.weights] if file else None
        network = torchvision.models.get_model(name, weights=weights)
    except OSError as error:  # urllib's errors are OSErrors
        raise IpslibError(
            f"The weights {config.weights} of {config.encoder} could not be downloaded ({error}); "
            f"put {file.path.name} from torchvision's model zoo into {file.path.parent}, or use "
            "weights: none."
        ) from error
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False
    maps = nn.Linear | nn.Conv2d
    *_, last = (name for name, part in network.named_modules() if isinstance(part, maps))
    network.set_submodule(last, nn.Identity())
    if not file and config.weights != "none":
        _load(network, config)
    return network


def _load(network: nn.Module, config: ModelConfig) -> None:
    """Take over weights from a file of the user's; what the network has no place for, such as the
    classifier, is left out."""
    try:
        state = torch.load(found(config.weights), map_location="cpu", weights_only=True)
        ours = network.state_dict()
        network.load_state_dict({name: value for name, value in state.items() if name in ours})
    except IpslibError:
        raise
    except Exception as error:  # torn archives and foreign pickles raise many kinds
        raise IpslibError(
            f"weights: wanted a state dict of {config.encoder}, as torch saves it, got "
            f"{config.weights} ({reason_of(error)}); correct weights or encoder."
        ) from error


def _of_timm(config: ModelConfig, in_channels: int) -> nn.Module:
    """A network of timm's without its classifier; timm itself fits its weights to the channels."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise IpslibError(
            f"encoder: {config.encoder} needs the package timm; install it, pip install "
            "'ipslib[timm]', or use torchvision/NAME."
        ) from error
    name, weights = config.encoder.removeprefix("timm/"), config.weights
    if not timm.is_model(name):
        raise IpslibError(f"encoder: timm has no {name!r}{did_you_mean(name, timm.list_models())}.")
    file = Path(get_dir(), "checkpoints", f"{name}.safetensors")
    if weights not in ("none", "default"):
        file = found(weights)
    overlay = {"file": str(file)} if weights != "none" and file.is_file() else None
    options = {"pretrained": weights != "none", "pretrained_cfg_overlay": overlay}
    try:
        return timm.create_model(name, num_classes=0, in_chans=in_channels, **options)
    except Exception as error:  # of the hub's client, of files and of shapes
        raise IpslibError(
            f"The weights {weights} of {config.encoder} could not be had ({reason_of(error)}); put "
            f"its model.safetensors at {file}, name a file of it, or use weights: none."
        ) from error


def freeze(encoder: nn.Module, config: ModelConfig) -> nn.Module:
    """The encoder, of which all, all but the last blocks or nothing keeps its weights. Blocks are
    the parts of its nested sequences that have a weight matrix, in order; a part that holds more
    than half of the weights is looked into."""
    if config.frozen or config.trained_blocks:
        encoder.requires_grad_(False)
    if config.trained_blocks:
        parts = _parts(encoder, sum(weight.numel() for weight in encoder.parameters()) / 2)
        blocks = [i for i, part in enumerate(parts) if any(w.ndim > 1 for w in part.parameters())]
        if config.trained_blocks > len(blocks):
            raise IpslibError(
                f"trained_blocks: wanted at most {len(blocks)}, the blocks of the encoder, got "
                f"{config.trained_blocks}; use fewer, or 0 to train all."
            )
        for part in parts[blocks[-config.trained_blocks] :]:
            part.requires_grad_(True)
    return encoder


def _parts(module: nn.Module, most: float) -> list[nn.Module]:
    parts = []
    for child in module.children():
        is_sequence = type(child) in (nn.Sequential, nn.ModuleList)
        is_large = sum(weight.numel() for weight in child.parameters()) > most
        opened = _parts(child, most) if is_sequence or is_large else []
        parts += opened or [child]
    return parts


def _with_channels(encoder: nn.Module, in_channels: int) -> nn.Module:
    """The encoder for images of so many channels: its first convolution is replaced where it takes
    others, as published, and starts with torch's default weights."""
    name, first = next(
        (pair for pair in encoder.named_modules() if isinstance(pair[1], nn.Conv2d)), ("", None)
    )
    if first is None or first.in_channels == in_channels:
        return encoder
    sizes = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
    stem = nn.Conv2d(in_channels, first.out_channels, first.kernel_size, **sizes)
    encoder.set_submodule(name, stem)
    return encoder


def _narrow_resnet18(channels: int) -> list[nn.Module]:
    """ResNet-18 of another width: torchvision's layers and initialisation."""
    layers = [
        nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    n_in = channels
    for stage in range(4):
        n_out, stride = channels * 2**stage, 1 if stage == 0 else 2
        shortcut = None
        if stage:
            conv = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
            shortcut = nn.Sequential(conv, nn.BatchNorm2d(n_out))
        first = BasicBlock(n_in, n_out, stride, shortcut)
        layers.append(nn.Sequential(first, BasicBlock(n_out, n_out)))
        n_in = n_out
    for module in nn.Sequential(*layers).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return layers


def pixel_statistics(encoder: nn.Module) -> Statistics:
    """Mean and deviation, by channel, of the images that an encoder's weights were trained on: timm
    says them of its networks, the others are ImageNet's."""
    of_timm = getattr(encoder, "pretrained_cfg", {})
    return of_timm.get("mean", IMAGENET_MEAN), of_timm.get("std", IMAGENET_DEVIATION)


def as_encoder_input(patches: Tensor, statistics: Statistics | None = None) -> Tensor:
    """Pixels, bytes or floats in 0..1, as floats in 0..1; colour normalised by the statistics of
    the encoder's weights, if any; features as they are."""
    if statistics and patches.ndim == 4 and patches.shape[1] == 3:
        return normalised(patches, statistics)
    return patches if patches.is_floating_point() else patches.float() / 255


def normalised(
    pixels: Tensor, statistics: Statistics = (IMAGENET_MEAN, IMAGENET_DEVIATION)
) -> Tensor:
    """Pixels (n, 3, h, w), bytes in 0..255 or floats in 0..1, as float32, less the mean, over the
    deviation; a batch of photographs is large: it is written once, and then changed."""
    white = 1 if pixels.is_floating_point() else 255
    mean, deviation = (
        white * torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in statistics
    )
    return pixels.to(torch.float32, copy=True).sub_(mean).div_(deviation)
