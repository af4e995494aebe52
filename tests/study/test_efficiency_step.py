"""One measurement: that what it counts, its limits and its failures are what they say; and what
each variant is made of."""

import pytest
import torch
from torch import nn

from ipslib.errors import IpslibError
from ipslib.study import efficiency_step
from ipslib.study.efficiency import measure_apart
from ipslib.study.efficiency_step import Measurement, WholeImageNet, build_variant
from ipslib.training import build_network
from tests.tiny import TINY


def test_operations_of_a_layer_are_two_for_each_multiply_add():
    layer = nn.Conv2d(3, 5, 7, padding=3, bias=False)
    with torch.no_grad():
        counted = efficiency_step._count(lambda: layer(torch.zeros(2, 3, 11, 13)))
    assert counted == 2 * (2 * 11 * 13) * 5 * (3 * 7 * 7)


def test_what_fits_is_done_and_what_does_not_is_out_of_memory():
    config = TINY.replace(canvas=1120, batch_size=2)  # 2 x 1.25 million pixels as fp32: 10 MB
    wanted = {"variant": "whole", "step": "train", "config": config, "n_steps": 1}
    done = measure_apart(Measurement(memory_limit_mb=2000, **wanted))
    assert done["outcome"] == efficiency_step.DONE
    assert 10 < done["step_mb"] < done["peak_mb"] and done["seconds"] > 0
    refused = measure_apart(Measurement(memory_limit_mb=int(done["step_mb"] / 3), **wanted))
    assert refused["outcome"] == efficiency_step.OUT_OF_MEMORY


def test_what_takes_too_long_is_out_of_time():
    endless = TINY.replace(n_patterns=10_000_000)
    result = measure_apart(Measurement(config=endless, seconds_limit=1))
    assert result == {"outcome": efficiency_step.OUT_OF_TIME}


def test_another_failure_is_an_error_that_names_the_measurement():
    with pytest.raises(IpslibError, match="all at 84 px"):
        measure_apart(Measurement(variant="all", config=TINY, device="nowhere"))


def test_the_plain_network_is_the_patch_encoder_with_linear_heads():
    config = TINY.replace(tasks=["max", "multi"])
    whole, patches = WholeImageNet(config), build_network(config)
    whole.encoder.load_state_dict(patches.encoder.state_dict())
    logits = whole.eval()(torch.zeros(2, 1, 90, 130, dtype=torch.uint8))
    assert list(logits) == ["max", "multi"] and {x.shape for x in logits.values()} == {(2, 10)}


def test_all_patches_are_kept_and_ips_keeps_its_memory():
    config = TINY.replace(canvas=140)  # 25 patches
    for variant, kept in (("ips", 3), ("all", 25)):
        network, loss_of = build_variant(variant, config)
        encoded = []
        network.pool.register_forward_pre_hook(lambda _, given, to=encoded: to.append(given[0]))
        loss = loss_of([0, 1])
        assert [x.shape[:2] for x in encoded] == [(2, kept)]
        loss.backward()
        assert network.encoder[0].weight.grad.abs().sum() > 0


def test_the_variants_meet_the_same_labels():
    """A network that answers all alike has the same loss on the same images."""
    losses = []
    for variant in efficiency_step.VARIANTS:
        network, loss_of = build_variant(variant, TINY)
        for head in network.heads.values():
            nn.init.zeros_(head.weight)
            head.bias.data = torch.arange(10.0)
        losses.append(loss_of([0, 1, 2]).item())
    assert losses == pytest.approx([losses[0]] * 3)
