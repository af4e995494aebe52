"""One measurement: that what it counts, its limits and its failures are what they say."""

import pytest
import torch
from torch import nn

from ipslib.errors import IpslibError
from ipslib.study import efficiency_step
from ipslib.study.efficiency import measure_apart
from ipslib.study.efficiency_step import DONE, OUT_OF_MEMORY, OUT_OF_TIME, Measurement
from tests.tiny import TINY


def test_operations_of_a_layer_are_two_for_each_multiply_add():
    layer = nn.Conv2d(3, 5, 7, padding=3, bias=False)
    with torch.no_grad():
        counted = efficiency_step._count(lambda: layer(torch.zeros(2, 3, 11, 13)))
    assert counted == 2 * (2 * 11 * 13) * 5 * (3 * 7 * 7)


def test_what_fits_is_done_and_what_does_not_is_out_of_memory():
    config = TINY.replace(canvas=1120, batch_size=2)  # 2 x 1.25 million pixels as fp32: 10 MB
    wanted = {"way": "whole", "step": "train", "config": config, "n_steps": 1}
    done = measure_apart(Measurement(memory_limit_mb=2000, **wanted))
    assert done["outcome"] == DONE
    assert 10 < done["step_mb"] < done["peak_mb"] and done["seconds"] > 0
    refused = measure_apart(Measurement(memory_limit_mb=int(done["step_mb"] / 3), **wanted))
    assert refused["outcome"] == OUT_OF_MEMORY


def test_what_takes_too_long_is_out_of_time():
    endless = TINY.replace(n_patterns=10_000_000)
    result = measure_apart(Measurement(config=endless, seconds_limit=1))
    assert result == {"outcome": OUT_OF_TIME}


def test_another_failure_is_an_error_that_names_the_measurement():
    with pytest.raises(IpslibError, match="all at 84 px: train failed, though neither"):
        measure_apart(Measurement(way="all", config=TINY, device="nowhere"))
