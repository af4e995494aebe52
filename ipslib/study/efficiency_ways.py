"""Three ways of reading a large image, for comparing what they cost; one encoder serves all.

`ips` keeps M patches of the image. `all` keeps every patch (M = N), so that nothing is selected.
`whole` is a plain network: the encoder's ResNet-18 trunk over the undivided canvas, global average
pooling, and one linear head a task.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.losses import task_loss
from ipslib.model.encoder import as_encoder_input, build_encoder
from ipslib.training import build_network, forward_step

WAYS = ("ips", "all", "whole")


class WholeImageNet(nn.Module):
    """The plain network: a patch encoder's trunk over a whole canvas, and linear heads.

    Args:
        config: its sizes; selection and attention pooling have no part in it.
    """

    def __init__(self, config: RunConfig):
        super().__init__()
        encoder = build_encoder(config.model, 1)
        # With channels last, fewer than 16 channels and wide maps, oneDNN writes out of bounds in
        # the weight gradient of a 1 x 1 convolution of stride 2 (seen with torch 2.15).
        narrow = encoder[0].out_channels < 16
        self.memory_format = torch.contiguous_format if narrow else torch.channels_last
        self.encoder = encoder.to(memory_format=self.memory_format)
        dim = config.model.embedding_dim
        n_classes = config.data.n_classes
        self.heads = nn.ModuleDict({task: nn.Linear(dim, n) for task, n in n_classes.items()})
        self.low_precision = config.training.precision == "bf16"

    def forward(self, canvases: Tensor) -> dict[str, Tensor]:
        """Canvases (B, 1, H, W), uint8 or float in 0..1, to logits {task: (B, C)}."""
        device = next(self.parameters()).device
        inputs = as_encoder_input(canvases.to(device))
        inputs = inputs.contiguous(memory_format=self.memory_format)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            embeddings = self.encoder(inputs).float()  # (B, D)
        return {task: head(embeddings) for task, head in self.heads.items()}


def build_way(
    way: str, config: RunConfig, *, device: str = "cpu"
) -> tuple[nn.Module, Callable[[list[int]], Tensor]]:
    """The network of one of WAYS, and what takes indices of training images to their loss.

    Images are laid out and drawn within the call, as in training.
    """
    data = MegapixelMNIST(config.data, "train")
    data.batch([0])  # loads the digits and draws the noise patterns, which no image side changes
    if way == "whole":
        network = WholeImageNet(config).to(device)

        def loss_of(indices: list[int]) -> Tensor:
            canvases = torch.from_numpy(np.stack([data.canvas(index) for index in indices]))
            labels = data.batch(indices).labels
            labels = {task: label.to(device) for task, label in labels.items()}
            return task_loss(network(canvases[:, None]), labels)

        return network, loss_of
    if way == "all":
        config = config.replace(memory_size=config.data.grid.n_patches)
    network = build_network(config, device=device)
    generator = torch.Generator().manual_seed(config.training.seed)

    def loss_of(indices: list[int]) -> Tensor:
        _, losses, _ = forward_step(
            network, data.batch(indices).on(device), config.training, generator
        )
        return losses.total

    return network, loss_of
