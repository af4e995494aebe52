"""What networks trained on ImageNet expect: RGB in 0..1, less its mean, over its deviation."""

from torch import Tensor, tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's


def normalised(pixels: Tensor) -> Tensor:
    """Pixels (n, 3, h, w) in 0..1 as ImageNet's networks were trained on."""
    mean, deviation = (
        tensor(values, device=pixels.device).view(-1, 1, 1) for values in (MEAN, DEVIATION)
    )
    return (pixels - mean) / deviation
