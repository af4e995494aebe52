"""Three ways of reading an image: what each is made of, and that they do the same task."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ipslib.config import RunConfig
from ipslib.study.efficiency_ways import WAYS, WholeImageNet, build_way
from ipslib.training import build_network
from tests.tiny import TINY


def operations(way: str, config: RunConfig) -> int:
    """Of classifying one image."""
    network, loss_of = build_way(way, config)
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loss_of([0])
    return counter.get_total_flops()


def test_the_plain_network_is_the_patch_encoder_with_linear_heads():
    config = TINY.replace(tasks=["max", "multi"])
    whole, patches = WholeImageNet(config), build_network(config)
    assert {n: w.shape for n, w in whole.encoder.state_dict().items()} == {
        n: w.shape for n, w in patches.encoder.state_dict().items()
    }
    logits = whole.eval()(torch.zeros(2, 1, 90, 130, dtype=torch.uint8))
    assert {task: tuple(x.shape) for task, x in logits.items()} == {
        "max": (2, 10),
        "multi": (2, 10),
    }


def test_the_whole_image_costs_in_proportion_to_its_area():
    head = 2 * TINY.model.embedding_dim * 10 * len(TINY.data.tasks)
    small, large = (
        operations("whole", TINY.replace(canvas=side, patch_size=28)) for side in (96, 192)
    )
    assert large - head == 4 * (small - head)


def test_all_patches_are_kept_and_ips_keeps_its_memory():
    config = TINY.replace(canvas=140)  # 25 patches
    for way, kept in (("ips", 3), ("all", 25)):
        network, loss_of = build_way(way, config)
        encoded = []
        network.pool.register_forward_pre_hook(lambda _, given, to=encoded: to.append(given[0]))
        loss = loss_of([0, 1])
        assert [x.shape[:2] for x in encoded] == [(2, kept)]
        loss.backward()
        assert network.encoder[0].weight.grad.abs().sum() > 0


def test_the_ways_meet_the_same_labels():
    """A network that answers all alike has the same loss on the same images."""
    losses = []
    for way in WAYS:
        network, loss_of = build_way(way, TINY)
        for head in network.heads.values():
            nn.init.zeros_(head.weight)
            head.bias.data = torch.arange(10.0)
        losses.append(loss_of([0, 1, 2]).item())
    assert losses == pytest.approx([losses[0]] * 3)
