"""Patch encoders: the first stages of a ResNet, a frozen ResNet-50 with a projection, and that of
features which another network made; and their input."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.hub import get_dir
from torchvision.models import ResNet18_Weights, ResNet50_Weights, resnet18, resnet50
from torchvision.models.resnet import BasicBlock

from ipslib.config import ModelConfig
from ipslib.errors import IpslibError
from ipslib.model.shortcuts import RepeatBatchNorm2d

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's
_WEIGHTS = {
    ("resnet18", "imagenet_v1"): ResNet18_Weights.IMAGENET1K_V1,
    ("resnet50", "imagenet_v1"): ResNet50_Weights.IMAGENET1K_V1,
    ("resnet50", "imagenet_v2"): ResNet50_Weights.IMAGENET1K_V2,
}


class WeightsFile(NamedTuple):
    """A file of pretrained weights: where torchvision keeps it, there or not, and its source."""

    path: Path
    url: str


def weights_file(encoder: str, weights: str) -> WeightsFile | None:
    """The file that a pretrained encoder needs, if any."""
    known = _WEIGHTS.get((encoder, weights))
    return known and WeightsFile(Path(get_dir(), "checkpoints", Path(known.url).name), known.url)


def build_encoder(config: ModelConfig, in_channels: int) -> nn.Sequential:
    """Build the encoder of a configuration: patches (n, C, P, P) or features (n, C) to embeddings
    (n, D). IpslibError where pretrained weights are neither cached nor downloadable.

    Of images, the sequence is conv, batch norm, ReLU, max pool, stages, average pool, and the
    projection 2048 -> D behind ResNet-50. Frozen: every weight but the replaced first convolution
    and the projection keeps its value. Features are normalised each, projected, normalised over
    the batch and rectified, as published for CAMELYON16.
    """
    if config.encoder == "features":
        return nn.Sequential(
            nn.LayerNorm(in_channels, elementwise_affine=False),
            nn.Linear(in_channels, config.embedding_dim),
            nn.BatchNorm1d(config.embedding_dim),
            nn.ReLU(inplace=True),
        )
    if config.encoder == "resnet18" and config.width != 1:
        trunk = _narrow_resnet18(round(64 * config.width))
    else:
        trunk = list(_torchvision_resnet(config).children())
    layers = trunk[: 4 + config.n_stages]
    if config.frozen:
        for layer in layers:
            layer.requires_grad_(False)
    if layers[0].in_channels != in_channels:  # as published, with torch's default initial weights
        layers[0] = _stem(in_channels, layers[0].out_channels)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if config.encoder == "resnet50":
        layers.append(nn.Linear(256 * 2 ** (config.n_stages - 1), config.embedding_dim))
    return nn.Sequential(*layers)


def _torchvision_resnet(config: ModelConfig) -> nn.Module:
    build = {"resnet18": resnet18, "resnet50": resnet50}[config.encoder]
    weights = _WEIGHTS.get((config.encoder, config.weights))
    try:
        return build(weights=weights, norm_layer=RepeatBatchNorm2d)
    except OSError as error:  # urllib's errors are OSErrors
        file = weights_file(config.encoder, config.weights).path
        raise IpslibError(
            f"The {weights} weights of {config.encoder} could not be downloaded ({error}); put "
            f"{file.name} from torchvision's model zoo into {file.parent}, or use weights: none."
        ) from error


def _stem(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 7, stride=2, padding=3, bias=False)


def _narrow_resnet18(channels: int) -> list[nn.Module]:
    """ResNet-18 of another width: torchvision's layers and initialisation."""
    layers = [_stem(3, channels), RepeatBatchNorm2d(channels)]
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    n_in = channels
    for stage in range(4):
        n_out, stride = channels * 2**stage, 1 if stage == 0 else 2
        shortcut = None
        if stage:
            shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), RepeatBatchNorm2d(n_out)
            )
        first = BasicBlock(n_in, n_out, stride, shortcut, norm_layer=RepeatBatchNorm2d)
        second = BasicBlock(n_out, n_out, norm_layer=RepeatBatchNorm2d)
        layers.append(nn.Sequential(first, second))
        n_in = n_out
    for module in nn.Sequential(*layers).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return layers


def keep_frozen_statistics(encoder: nn.Module) -> None:
    """Keep the batch norms of frozen layers in evaluation mode, whatever mode the rest is in."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def as_encoder_input(patches: Tensor, *, weights: str = "none") -> Tensor:
    """Pixels, bytes or floats in 0..1, as floats in 0..1, colour normalised where the encoder's
    weights are of ImageNet; features as they are."""
    if weights != "none" and patches.ndim == 4 and patches.shape[1] == 3:
        return normalised(patches)
    return patches if patches.is_floating_point() else patches.float() / 255


def normalised(pixels: Tensor) -> Tensor:
    """Pixels (n, 3, h, w), bytes in 0..255 or floats in 0..1, as float32, less ImageNet's mean,
    over its deviation; a batch of photographs is large: it is written once, and then changed."""
    white = 1 if pixels.is_floating_point() else 255
    mean, deviation = (
        white * torch.tensor(values, device=pixels.device).view(-1, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return pixels.to(torch.float32, copy=True).sub_(mean).div_(deviation)
