"""What validation accepts trains and is evaluated; what it refuses, it refuses in a sentence."""

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError
from ipslib.training import train

SMALL = {"digits": "embedded", "n_train": 3, "n_test": 2, "epochs": 1, "stroke_width": 1.5}
FIELDS = {
    "canvas": st.tuples(st.integers(30, 130), st.integers(30, 130)).map(list),
    "digit_size": st.integers(4, 40),
    "noise_size": st.integers(4, 60),
    "n_noise": st.integers(0, 4),
    "n_patterns": st.integers(0, 3),
    "noise": st.sampled_from(["bezier", "bezier_pixel", "line", "lines"]),
    "patch_size": st.integers(4, 60),
    "patch_stride": st.integers(4, 60),
    "shrunk_to": st.tuples(st.integers(20, 120), st.integers(20, 120)).map(list),
    "tasks": st.lists(st.sampled_from(["majority", "max", "top", "multi"]), max_size=4),
    "width": st.sampled_from([0.0625, 0.125]),
    "n_stages": st.integers(1, 5),
    "n_heads": st.sampled_from([1, 2, 3, 4]),
    "memory_size": st.integers(1, 12),
    "iter_size": st.integers(1, 12),
    "shuffle": st.booleans(),
    "position_encoding": st.booleans(),
    "mask_k": st.integers(0, 30),
    "mask_p": st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    "mask_variant": st.sampled_from(["scores", "logits"]),
    "mask_in_eval": st.booleans(),
    "batch_size": st.integers(1, 4),
    "warmup_epochs": st.integers(0, 3),
    "semantic_weight": st.sampled_from([0.0, 1.0, -1.0]),
    "diversity_weight": st.sampled_from([0.0, 2.0]),
    "diversity_on": st.sampled_from(["attention", "outputs"]),
    "precision": st.sampled_from(["fp32", "bf16"]),
    "seed": st.integers(0, 2**31 - 1),
}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_what_is_accepted_runs_and_what_is_refused_says_why(fields):
    small = {"canvas": [90, 100], "n_noise": 2, "patch_size": 24, "width": 0.125, "n_heads": 2}
    small |= {"memory_size": 4, "iter_size": 4, "batch_size": 2}
    try:
        config = run_config(SMALL | small | fields)
    except IpslibError as refusal:
        assert str(refusal).endswith(".") and "\n" not in str(refusal)
        return
    last = train(config).history[-1]
    assert math.isfinite(last["train"]["loss"]) and math.isfinite(last["test"]["loss"])
    assert set(last["test"]["accuracy"]) == set(config.data.tasks)
    assert 0 <= last["test"]["attention"]["roi_recall"] <= 1
