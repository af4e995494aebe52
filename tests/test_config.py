from contextlib import suppress

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipslib.config import ARITHMETIC, ARITHMETICS, ModelConfig, TrainingConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.registry import run_config
from ipslib.errors import IpslibError

# Another value for every field, with what else it needs; a field without one fails the test.
OTHER = {
    "start": "published", "digits": "embedded", "canvas": [1500, 1200], "digit_size": 56,
    "noise_size": 20, "n_noise": 600, "n_patterns": 400, "noise": "line", "stroke_width": 1.4,
    "patch_size": 100, "patch_stride": 25, "shrunk_to": [750, 700], "translate": 8,
    "translate_epochs": 2, "tasks": ["max"], "n_train": 800, "n_test": 10,
    "data_seed": 1, "encoder": "resnet50",
    "weights": "imagenet_v1", "frozen": True, "trained_blocks": 2, "n_stages": 3,
    "width": 0.5, "n_heads": 4, "dropout": 0.0, "attn_dropout": 0.0, "position_encoding": False,
    "memory_size": 10, "iter_size": 50, "shuffle": False, "mask_k": 10, "mask_p": 0.2,
    "mask_variant": "logits", "mask_in_eval": True, "epochs": 2, "batch_size": 8, "lr": 3e-4,
    "weight_decay": 0.01, "warmup_epochs": 1, "final_lr_ratio": 0.1, "semantic_weight": 1.0,
    "diversity_weight": 3.0, "diversity_on": "outputs", "eval_every": 5, "seed": 2,
    "precision": "bf16", "selection": "random", "novelty_epochs": 3,
}  # fmt: skip
FIELDS = [
    f.name for cls in (MegapixelMNISTConfig, ModelConfig, TrainingConfig) for f in attrs.fields(cls)
]


def test_the_defaults_are_the_published_settings():
    values = run_config().flat()
    published = {"canvas": [3000, 3000], "digit_size": 28, "n_noise": 800, "stroke_width": 1.925}
    published |= {"patch_size": 50, "patch_stride": 50, "memory_size": 100, "iter_size": 100}
    published |= {"epochs": 100, "batch_size": 16, "lr": 1e-3, "weight_decay": 0.1}
    assert values | published == values
    assert run_config().data.grid.n_patches == 3600
    assert 100 * run_config().data.o2i_ratio == pytest.approx(0.0087, rel=0.01)
    assert run_config().model.embedding_dim == 128


SLIDES = {"dataset": "slides", "encoder": "features", "bags": "data/bags", "bags_sha256": "0" * 64}
OWN = {"dataset": "own_images", "labels": "labels.csv", "labels_sha256": "0" * 64}
SIGNS = {"dataset": "traffic_signs", "signs": "standin", "canvas": [120, 160], "patch_size": 40}


@pytest.mark.parametrize(
    ("run_id", "values"),
    [
        ("44136fa355b3", {}),
        (
            "09660a41928b",
            {"canvas": [150, 140], "digits": "embedded", "tasks": ["max", "top"], "lr": 0.002},
        ),
        ("3ae842e42bd2", {"patch_stride": 25, "digit_size": 56, "mask_k": 10, "mask_p": 0.2}),
        ("c7874f0ba019", {"dataset": "traffic_signs"}),
        ("c97833593552", SIGNS | {"fraction": 0.25}),
        ("d9a76db8b744", SLIDES | {"memory_size": 5000, "iter_size": 5000, "standin": True}),
        ("43dc9b153148", OWN | {"classes": {"species": ["beech", "oak"]}, "patch_size": 32}),
    ],
)
def test_identities_stay(run_id, values):
    # A record of today must be found tomorrow: a new field may not move an old identity.
    assert run_config(values).id_by(1) == run_id


def test_results_of_another_arithmetic_are_other_runs():
    ids = {run_config().id_by(version) for version in ARITHMETICS}
    assert len(ids) == len(ARITHMETICS) and run_config().id in ids
    assert run_config().id == run_config().id_by(ARITHMETIC)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_part_of_the_identity(name):
    changed = run_config({name: OTHER[name]})
    assert changed.flat()[name] == OTHER[name]
    assert changed.id != run_config().id
    assert changed.changed() == {name: OTHER[name]}


def test_the_flat_form_comes_back_whole_and_explicit_defaults_change_no_identity():
    fits = {"start": "own", "encoder": "resnet18", "width": 1, "frozen": False, "mask_k": 0}
    fits["novelty_epochs"] = 0
    other = run_config(OTHER | fits)
    for config in (run_config(), run_config({"digit_size": 56}), other):
        for values in (config.flat(), config.changed()):
            assert run_config(values) == config and run_config(values).id == config.id


def test_replace_takes_what_is_derived_along():
    config = run_config({"patch_size": 25}).replace(digit_size=84, patch_size=100)
    assert (config.data.noise_size, config.data.patch_stride) == (84, 100)
    kept = run_config({"noise_size": 20}).replace(digit_size=84)
    assert kept.data.noise_size == 20
    assert run_config().replace(encoder="resnet50").model.n_stages == 4


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"patch_size": 60, "canvas": 50}, "patch_size: 60 px"),
        ({"digit_size": 200, "canvas": [300, 150]}, "digit_size: 200 px"),
        ({"noise_size": 200, "canvas": [300, 150]}, "noise_size: 200 px"),
        ({"canvas": [83, 80]}, "digit_size: 5 digits of 28 px"),
        ({"canvas": 83, "noise": "line", "digit_size": 20, "noise_size": 28}, "canvas: "),
        ({"patch_stride": 60}, "patch_stride: "),
        ({"shrunk_to": [3000, 3001]}, "shrunk_to: .* 3001"),
        ({"shrunk_to": 49}, "patch_size: 50 px"),
        ({"mask_k": 201}, "mask_k: .* 200"),
        ({"tasks": ["majorty"]}, "tasks: .*'majority'"),
        ({"stroke_with": 2}, "'stroke_with' .*'stroke_width'"),
        ({"digits": "emnist"}, "digits: .*'mnist'"),
        ({"n_stages": 5}, "n_stages: "),
        ({"n_heads": 3}, "n_heads: .* 128"),
        ({"weights": "imagenet_v2"}, "weights: "),
        ({"weights": "imagenet_v3"}, "weights: .*'imagenet_v"),
        ({"encoder": "resnet34"}, "encoder: .*torchvision/NAME"),
        ({"encoder": "torchvision/convnext_tiny", "width": 0.5}, "width"),
        ({"frozen": True, "trained_blocks": 2}, "trained_blocks"),
        ({"weights": "imagenet_v1", "width": 0.5}, "width: "),
        ({"mask_p": 1.2}, "mask_p: .* 1.2"),
        ({"selection": "random", "mask_k": 2}, "mask_k: .*lot"),
        ({"selection": "random", "novelty_epochs": 2}, "novelty_epochs: .*lot"),
    ],
)
def test_bad_input_names_its_field(values, field):
    with pytest.raises(IpslibError, match=field) as refusal:
        run_config(values)
    assert "\n" not in str(refusal.value)


NONSENSE = st.none() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "x"]), NONSENSE, max_size=2))
def test_nonsense_raises_nothing_else(values):
    with suppress(IpslibError):
        run_config(values)


class TestKindsOfData:
    def test_a_kind_is_named_in_the_flat_mapping_where_it_is_not_megapixel_mnist(self):
        assert "dataset" not in run_config().flat()
        config = run_config(SIGNS)
        assert config.data.kind == config.flat()["dataset"] == "traffic_signs"
        assert run_config(config.flat()) == config
        assert config.id != run_config({"canvas": [120, 160], "patch_size": 40}).id
        assert config.replace(seed=3) == run_config(SIGNS | {"seed": 3})

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            (SIGNS | {"dataset": "traffic_sings"}, "dataset.*'traffic_signs'"),
            (SIGNS | {"dataset": ["slides"]}, "dataset"),
            (SIGNS | {"n_noise": 3}, "n_noise"),
            (SIGNS | {"encoder": "features"}, "encoder"),
            (SIGNS | {"patch_stride": 41}, "patch_stride"),
            ({"dataset": "slides", "encoder": "features"}, "bags"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, values, field):
        with pytest.raises(IpslibError, match=field):
            run_config(values)


class TestPublishedStart:
    """One field; what the published runs did not have, or is not known of them, is refused."""

    def test_the_noise_follows(self):
        config = run_config({"start": "published"})
        assert config.published_start and config.data.noise == "bezier_pixel"
        assert not config.replace(start="own").published_start

    @pytest.mark.parametrize(
        "change",
        [
            {"digits": "embedded"}, {"noise": "bezier"}, {"noise": "line"}, {"noise_size": 20},
            {"n_patterns": 400}, {"tasks": ["max", "majority", "top", "multi"]}, {"data_seed": 1},
            {"encoder": "resnet50"}, {"width": 0.5}, {"mask_k": 10},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_does_not_go_with_it_is_refused(self, change):
        run_config(change)
        [name] = change
        with pytest.raises(IpslibError, match=name):
            run_config({"start": "published"} | change)
