"""Does a GPU compute what the CPU does? One step of the published network on both, in fp32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.selection import Selection
from ipslib.training import build_network, forward_step

# Relative differences that rounding explains; in a gradient, a ReLU at its kink falls either way.
TIE, LOSS, GRADIENT = 1e-4, 1e-3, 3e-2


class Agreement(NamedTuple):
    """What two devices made of the same images and weights."""

    n_kept: int  # patches that each keeps
    n_apart: int  # of them kept by one device alone
    widest_tie: float  # relative difference of the scores that these patches had
    loss: float  # relative differences
    gradient: float  # of the norm of all gradients

    @property
    def holds(self) -> bool:
        """Whether the kept patches are the same but for ties, and the rest within rounding."""
        return self.widest_tie <= TIE and self.loss <= LOSS and self.gradient <= GRADIENT

    def __str__(self) -> str:
        same = f"{self.n_kept - self.n_apart} of {self.n_kept} kept patches the same"
        ties = f", the others within {self.widest_tie:.1e} of each other" if self.n_apart else ""
        return (
            f"{'agree' if self.holds else 'DISAGREE'}: {same}{ties}; loss differs by "
            f"{self.loss:.1e}, the gradient's norm by {self.gradient:.1e}"
        )


def compare_devices(config: RunConfig, device: str, *, n_images: int) -> Agreement:
    """One training step of a fresh network without dropout on the CPU and on a device, in full
    fp32 (no TF32)."""
    config = config.replace(precision="fp32", dropout=0.0, attn_dropout=0.0)
    batch = MegapixelMNIST(config.data).batch(range(n_images))
    with _full_float32():
        here, there = (_step(config, batch, each) for each in ("cpu", device))
    n_apart, widest = differing(here[0], there[0])
    n_kept = here[0].indices.numel()
    apart = [abs(one - other) / max(abs(one), 1e-12) for one, other in zip(here[1:], there[1:],
                                                                          strict=True)]  # fmt: skip
    return Agreement(n_kept, n_apart, widest, *apart)


def differing(one: Selection, other: Selection) -> tuple[int, float]:
    """How many patches only the first keeps, and how far their scores are from those of the
    patches that the second keeps in their place: 0 for a tie, relative to the larger."""
    n_apart, widest = 0, 0.0
    if one.scores is None:
        return n_apart, widest
    rows = zip(*one[:2], *other[:2], strict=True)
    for own, own_scores, others, other_scores in rows:
        alone, missed = (~torch.isin(*pair) for pair in ((own, others), (others, own)))
        n_apart += int(alone.sum())
        pairs = torch.stack([_best_first(own_scores[alone]), _best_first(other_scores[missed])])
        if pairs.numel():
            gap = (pairs[0] - pairs[1]).abs() / pairs.amax(dim=0)
            widest = max(widest, gap.max().item())
    return n_apart, widest


def _best_first(scores: Tensor) -> Tensor:
    return scores.sort(descending=True).values


def _step(config: RunConfig, batch, device: str) -> tuple[Selection, float, float]:
    network = build_network(config, device=device).train()
    generator = torch.Generator().manual_seed(0)
    output, losses, _ = forward_step(network, batch.on(device), config.training, generator)
    losses.total.backward()
    squares = [w.grad.square().sum() for w in network.parameters() if w.grad is not None]
    scores = output.selection.scores
    kept = Selection(output.selection.indices.cpu(), None if scores is None else scores.cpu())
    return kept, losses.total.item(), torch.stack(squares).sum().sqrt().item()


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products and convolutions of float32 in float32 for a while."""
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
