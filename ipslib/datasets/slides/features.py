"""Features of tiles: a frozen backbone of torchvision behind ImageNet's normalisation."""

from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from ipslib.config import ModelConfig
from ipslib.errors import IpslibError
from ipslib.fields import choice, integer
from ipslib.model.encoder import build_encoder, normalised, weights_file


@attrs.frozen(kw_only=True)
class BackboneConfig:
    """A backbone by name. Three stages of a ResNet-50 are CLAM's truncated one, D = 1024.

    `weights: none` is a random network, the same for one seed: it keeps colour and texture, so it
    does for synthetic slides, and for nothing else.
    """

    backbone: str = choice("resnet50", ("resnet18", "resnet50"))
    weights: str = choice("imagenet_v1", ("imagenet_v1", "imagenet_v2", "none"))
    n_stages: int = integer(4, at_most=4)
    seed: int = integer(0, at_least=0)  # of random weights

    @property
    def n_features(self) -> int:
        """D."""
        return (64 if self.backbone == "resnet18" else 256) * 2 ** (self.n_stages - 1)

    @property
    def weights_path(self) -> Path | None:
        """The file of pretrained weights, there or not; None for random ones."""
        file = weights_file(self.backbone, self.weights)
        return file and file.path


class Backbone(nn.Module):
    """Tiles (n, P, P, 3) uint8 to features (n, D) float32, without gradient.

    Raises:
        IpslibError: where pretrained weights are neither cached nor downloadable.
    """

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        model = ModelConfig(
            encoder=config.backbone, weights=config.weights, n_stages=config.n_stages
        )
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                layers = build_encoder(model, in_channels=3)
        except IpslibError as error:
            raise self._without_weights() from error
        is_projected = isinstance(layers[-1], nn.Linear)  # a random one, behind ResNet-50
        self.layers = layers[:-1] if is_projected else layers
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        images = tiles.to(next(self.parameters()).device).permute(0, 3, 1, 2)  # (n, 3, P, P)
        return self.layers(normalised(images)).float()

    def _without_weights(self) -> IpslibError:
        path = self.config.weights_path
        return IpslibError(
            f"wanted the {self.config.weights} weights of {self.config.backbone}, found none here "
            f"or online; put {path.name} from torchvision's model zoo into {path.parent}."
        )
