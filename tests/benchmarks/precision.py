"""Which patches selection keeps in bf16, against fp32.

    python -m tests.benchmarks.precision [--images 16] [--seeds 3] [--device cpu] [--weights FILE]

One table, for the published network on its two settings: of the patches that fp32 keeps, the share
that is kept in bf16 too, and the share that fp32 itself keeps when it visits them in another order.
Means over images and over networks (fresh weights of several seeds, or those of `--weights`).
"""

import argparse
from pathlib import Path

import torch

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.megapixel_mnist.digits import find_source
from ipslib.datasets.registry import run_config
from ipslib.model.ips import IPSNet
from ipslib.training import build_network
from tests.benchmarks.step import SETTINGS


def kept(network: IPSNet, batch, precision: torch.dtype, seed: int) -> torch.Tensor:
    """(B, M)."""
    network.precision = precision
    return network.select(batch, generator=torch.Generator().manual_seed(seed)).indices


def shared(one: torch.Tensor, other: torch.Tensor) -> float:
    """Share of the patches of one that are among those of the other."""
    return (one[:, :, None] == other[:, None]).any(dim=2).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="a network (default 16)")
    parser.add_argument("--seeds", type=int, default=3, help="fresh networks (default 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="a state dict, in place of fresh weights")
    arguments = parser.parse_args()
    print(f"{'':<28}{'bf16':>10}{'fp32, another order':>22}")
    for setting in SETTINGS:
        rows = []
        for seed in range(1 if arguments.weights else arguments.seeds):
            config = run_config(setting | {"digits": find_source(), "seed": seed})
            network = build_network(config, device=arguments.device).eval()
            if arguments.weights:
                state = torch.load(arguments.weights, map_location="cpu", weights_only=True)
                network.load_state_dict(state)
            batch = MegapixelMNIST(config.data, "test").batch(range(arguments.images))
            batch = batch.on(arguments.device)
            exact = kept(network, batch, torch.float32, 0)
            low = kept(network, batch, torch.bfloat16, 0)
            moved = kept(network, batch, torch.float32, 1)
            rows.append((shared(exact, low), shared(exact, moved)))
        low, moved = torch.tensor(rows).mean(dim=0).tolist()
        label = f"{setting['canvas']} px, {setting['n_noise']} noise objects"
        print(f"{label:<28}{100 * low:>8.2f} %{100 * moved:>20.2f} %")


if __name__ == "__main__":
    main()
