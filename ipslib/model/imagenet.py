"""Pixels as networks trained on ImageNet expect them: RGB in 0..1, less its mean, over its
deviation. Everything that feeds such a network goes through here."""

import torch
from torch import Tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's


def normalised(pixels: Tensor) -> Tensor:
    """Pixels (n, 3, h, w), bytes in 0..255 or floats in 0..1, as float32, normalised; what is
    given stays as it is.

    A batch of photographs is large: it is written once and then changed in place.
    """
    mean, deviation = _statistics(pixels.device, 1 if pixels.is_floating_point() else 255)
    return pixels.to(torch.float32, copy=True).sub_(mean).div_(deviation)


def denormalised(patches: Tensor) -> Tensor:
    """Normalised patches (n, 3, h, w) as uint8 pixels again."""
    mean, deviation = _statistics(patches.device, 255)
    return (patches * deviation + mean).round().clamp(0, 255).byte()


def _statistics(device: torch.device, white: int) -> tuple[Tensor, Tensor]:
    """Of the channels in 0..white, each (3, 1, 1)."""
    mean, deviation = (
        torch.tensor(values, device=device).view(-1, 1, 1) for values in (MEAN, DEVIATION)
    )
    return white * mean, white * deviation
