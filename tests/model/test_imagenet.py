import pytest
import torch
from torchvision.models import ResNet18_Weights
from torchvision.transforms.v2 import functional

from ipslib.model.imagenet import DEVIATION, MEAN, denormalised, normalised

EVERY_BYTE = torch.arange(256, dtype=torch.uint8).expand(2, 3, 8, -1)


def test_the_statistics_are_those_of_torchvisions_weights():
    transforms = ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (list(MEAN), list(DEVIATION)) == (transforms.mean, transforms.std)


@pytest.mark.parametrize("pixels", [EVERY_BYTE, EVERY_BYTE / 255], ids=["bytes", "floats"])
def test_pixels_are_normalised_as_torchvision_does_and_back(pixels):
    before = pixels.clone()
    ours = normalised(pixels)
    expected = functional.normalize(EVERY_BYTE.float() / 255, MEAN, DEVIATION)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert torch.equal(denormalised(ours), EVERY_BYTE)
    assert torch.equal(pixels, before)
