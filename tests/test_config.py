from contextlib import suppress

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib import arithmetic
from ipslib.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError

# Another value for every field, with what else it needs; a field without one fails the test.
OTHER = {
    "start": "published",
    "digits": "embedded",
    "canvas": [1500, 1200],
    "digit_size": 56,
    "noise_size": 20,
    "n_noise": 600,
    "n_patterns": 400,
    "noise": "line",
    "stroke_width": 1.4,
    "patch_size": 100,
    "patch_stride": 25,
    "tasks": ["max"],
    "n_train": 800,
    "n_test": 10,
    "data_seed": 1,
    "encoder": "resnet50",
    "weights": "imagenet_v1",
    "frozen": True,
    "n_stages": 3,
    "width": 0.5,
    "n_heads": 4,
    "dropout": 0.0,
    "attn_dropout": 0.0,
    "position_encoding": False,
    "memory_size": 10,
    "iter_size": 50,
    "shuffle": False,
    "mask_k": 10,
    "mask_p": 0.2,
    "mask_variant": "logits",
    "mask_in_eval": True,
    "epochs": 2,
    "batch_size": 8,
    "lr": 3e-4,
    "weight_decay": 0.01,
    "warmup_epochs": 1,
    "final_lr_ratio": 0.1,
    "semantic_weight": 1.0,
    "diversity_weight": 3.0,
    "diversity_on": "outputs",
    "eval_every": 5,
    "seed": 2,
    "precision": "bf16",
}
FIELDS = [f.name for cls in (DataConfig, ModelConfig, TrainingConfig) for f in attrs.fields(cls)]


def test_the_defaults_are_the_published_settings():
    values = RunConfig().flat()
    published = {"canvas": [3000, 3000], "digit_size": 28, "n_noise": 800, "stroke_width": 1.925}
    published |= {"patch_size": 50, "patch_stride": 50, "memory_size": 100, "iter_size": 100}
    published |= {"epochs": 100, "batch_size": 16, "lr": 1e-3, "weight_decay": 0.1}
    assert values | published == values
    assert RunConfig().data.grid.n_patches == 3600
    assert RunConfig().model.embedding_dim == 128


@pytest.mark.parametrize(("digit_size", "percent"), [(28, 0.0087), (56, 0.035), (84, 0.078)])
def test_object_to_image_ratio(digit_size, percent):
    ratio = DataConfig(digit_size=digit_size).o2i_ratio
    assert 100 * ratio == pytest.approx(percent, rel=0.01)


def test_equal_configurations_are_one_run():
    assert RunConfig() == RunConfig() and RunConfig().id == RunConfig().id
    assert len(RunConfig().id) == 12


def test_identities_stay():
    # A record of today must be found tomorrow: a new field may not move an old identity.
    assert RunConfig().id_by(1) == "44136fa355b3"
    small = {"canvas": [150, 140], "digits": "embedded", "tasks": ["max", "top"], "lr": 0.002}
    assert RunConfig.from_flat(small).id_by(1) == "09660a41928b"


def test_results_of_another_arithmetic_are_other_runs():
    ids = {RunConfig().id_by(version) for version in arithmetic.VERSIONS}
    assert len(ids) == len(arithmetic.VERSIONS) and RunConfig().id in ids
    assert RunConfig().id == RunConfig().id_by(arithmetic.CURRENT)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_part_of_the_identity(name):
    changed = RunConfig.from_flat({name: OTHER[name]})
    assert changed.flat()[name] == OTHER[name]
    assert changed.id != RunConfig().id
    assert changed.changed() == {name: OTHER[name]}


def test_an_explicit_default_does_not_change_the_identity():
    config = RunConfig.from_flat(RunConfig().flat())
    assert config == RunConfig() and config.id == RunConfig().id
    derived = RunConfig.from_flat({"digit_size": 56, "noise_size": 56})
    assert derived.id == RunConfig.from_flat({"digit_size": 56}).id


def test_the_flat_form_comes_back_whole():
    config = RunConfig.from_flat(OTHER | {"start": "own", "encoder": "resnet18", "width": 1})
    assert RunConfig.from_flat(config.flat()) == config
    assert RunConfig.from_flat(config.changed()) == config


def test_replace_takes_what_is_derived_along():
    config = RunConfig.from_flat({"patch_size": 25}).replace(digit_size=84, patch_size=100)
    assert (config.data.noise_size, config.data.patch_stride) == (84, 100)
    kept = RunConfig.from_flat({"noise_size": 20}).replace(digit_size=84)
    assert kept.data.noise_size == 20
    assert RunConfig().replace(encoder="resnet50").model.n_stages == 4


def test_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RunConfig().data.n_noise = 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_size": 60, "canvas": 50}, "patch_size: 60 px does not fit the canvas of 50 x 50"),
        ({"digit_size": 200, "canvas": [300, 150]}, "digit_size: 200 px does not fit the canvas"),
        ({"noise_size": 200, "canvas": [300, 150]}, "noise_size: 200 px does not fit the canvas"),
        ({"canvas": [83, 80]}, "5 digits of 28 px cannot lie on a canvas of 83 x 80 px"),
        ({"canvas": 83, "noise": "line", "digit_size": 20, "noise_size": 28}, "at least 84 px"),
        ({"patch_stride": 60}, "patch_stride: 60 px leaves gaps between patches of 50 px"),
        ({"mask_k": 201}, "mask_k: wanted at most memory_size + iter_size = 200 patches, got 201"),
        ({"tasks": ["majorty"]}, "tasks: unknown 'majorty' (did you mean 'majority'?)"),
        ({"stroke_with": 2}, "'stroke_with' is no field of a run (did you mean 'stroke_width'?)"),
        ({"digits": "emnist"}, "(did you mean 'mnist'?)"),
        ({"n_stages": 5}, "n_stages: wanted a whole number from 1 to 4, got 5"),
        ({"n_heads": 3}, "n_heads: 3 heads do not divide the embedding of 128"),
        ({"weights": "imagenet_v2"}, "weights: imagenet_v2 exists for resnet50 only"),
        ({"weights": "imagenet_v1", "width": 0.5}, "width: imagenet_v1 weights need the full"),
        ({"mask_p": 1.2}, "mask_p: wanted a number from 0 to 1, got 1.2"),
    ],
)
def test_bad_input_is_one_clear_sentence(values, message):
    with pytest.raises(IpslibError) as refusal:
        RunConfig.from_flat(values)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


SIDES = st.integers(1, 200)


@settings(max_examples=80, deadline=None)
@given(
    st.fixed_dictionaries(
        {"canvas": st.tuples(SIDES, SIDES), "patch_size": st.integers(0, 120)},
        optional={
            "digit_size": st.integers(2, 90),
            "noise_size": st.integers(2, 90),
            "n_noise": st.integers(-1, 5),
            "noise": st.sampled_from(["bezier", "bezier_pixel", "line", "dots"]),
            "stroke_width": st.floats(0, 30),
            "patch_stride": st.integers(0, 60),
            "tasks": st.lists(st.sampled_from(["majority", "max", "top", "multi"])),
            "data_seed": st.integers(-1, 2**40),
        },
    )
)
def test_what_is_accepted_can_be_drawn_and_the_rest_is_refused(fields):
    try:
        config = DataConfig(digits="embedded", n_train=3, **fields)
    except IpslibError:
        return
    batch = MegapixelMNIST(config, "train").batch([0, 2])
    image, patch = (~batch.blank).nonzero(as_tuple=True)
    assert batch.read(image, patch).shape[1:] == (1, config.patch_size, config.patch_size)
    assert (batch.boxes[..., :2] >= 0).all()
    assert (batch.boxes[..., :2] + batch.boxes[..., 2:] <= torch.tensor(config.canvas)).all()


NONSENSE = st.none() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "x"]), NONSENSE, max_size=2))
def test_nonsense_raises_nothing_else(values):
    with suppress(IpslibError):
        RunConfig.from_flat(values)


SIGNS = {"dataset": "traffic_signs", "signs": "standin", "canvas": [120, 160], "patch_size": 40}


class TestKindsOfData:
    def test_a_kind_is_named_in_the_flat_mapping_where_it_is_not_megapixel_mnist(self):
        assert "dataset" not in RunConfig().flat()
        config = RunConfig.from_flat(SIGNS)
        assert config.dataset == config.flat()["dataset"] == "traffic_signs"
        assert RunConfig.from_flat(config.flat()) == config
        assert config.id != RunConfig.from_flat({"canvas": [120, 160], "patch_size": 40}).id

    def test_a_change_keeps_the_kind(self):
        changed = RunConfig.from_flat(SIGNS).replace(patch_size=20, seed=3)
        assert (changed.dataset, changed.data.patch_size, changed.training.seed) == (
            "traffic_signs", 20, 3,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"dataset": "traffic_sings"}, "did you mean 'traffic_signs'"),
            ({"n_noise": 3}, "'n_noise' is no field"),
            ({"encoder": "features"}, "features does not read traffic_signs"),
        ],
    )
    def test_fields_of_another_kind_are_refused(self, wrong, said):
        with pytest.raises(IpslibError, match=said):
            RunConfig.from_flat(SIGNS | wrong)


class TestPublishedStart:
    """One field; what the published runs did not have, or is not known of them, is refused."""

    def test_the_noise_follows(self):
        config = RunConfig(data=DataConfig(start="published"))
        assert config.published_start and config.data.noise == "bezier_pixel"
        assert not config.replace(start="own").published_start

    @pytest.mark.parametrize(
        "change",
        [
            {"digits": "embedded"},
            {"noise": "bezier"},
            {"noise": "line"},
            {"noise_size": 20},
            {"n_patterns": 400},
            {"tasks": ["max", "majority", "top", "multi"]},
            {"data_seed": 1},
            {"encoder": "resnet50"},
            {"width": 0.5},
            {"mask_k": 10},
        ],
        ids=str,
    )
    def test_what_does_not_go_with_it_is_refused(self, change):
        RunConfig.from_flat(change)
        [name] = change
        with pytest.raises(IpslibError, match=name):
            RunConfig.from_flat({"start": "published"} | change)
