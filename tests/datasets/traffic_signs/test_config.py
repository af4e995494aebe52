import attrs
import pytest

from ipslib.datasets.traffic_signs.config import PUBLISHED_COUNTS, TrafficSignsConfig
from ipslib.errors import IpslibError

CONFIG = TrafficSignsConfig(signs="standin", canvas=(90, 120), patch_size=15)


def test_the_published_defaults():
    config = TrafficSignsConfig()
    assert config.grid.n_patches == 192 and config.grid.shape == (12, 16)
    assert (config.translate, config.jitter, config.patch_stride) == (100, 0.1, 100)
    assert config.n_classes == {"sign": 4} and config.in_channels == 3
    assert config.standin_size == (960, 1280)
    drawn = config.standin_train, config.standin_test
    assert drawn == (sum(PUBLISHED_COUNTS["train"]), sum(PUBLISHED_COUNTS["test"]))
    assert config.n_train == drawn[0]
    smaller = {"signs": "standin", "standin_train": 60, "fraction": 0.5}
    assert TrafficSignsConfig(**smaller).n_train == 30


def test_the_shift_follows_the_canvas():
    assert CONFIG.translate == 8  # 100 px of 1600, on a canvas 120 px wide
    assert attrs.evolve(CONFIG, translate=0).translate == 0


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "traffic_sign_100"),
        ({"fraction": 0.25, "thin_test": True}, "traffic_sign_025_thinned"),
        ({"fraction": 0.5, "patch_size": 25}, "traffic_sign_050_PS_25"),
        ({"signs": "standin"}, "traffic_standin_100"),
    ],
)
def test_the_name_tells_what_differs_and_what_was_drawn(changes, name):
    assert TrafficSignsConfig(**changes).short_name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": 91},
        {"patch_stride": 16},
        {"fraction": 1.5},
        {"signs": "standing"},
        {"standin_train": 3},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(changes):
    [name] = changes
    with pytest.raises(IpslibError, match=name):
        attrs.evolve(CONFIG, **changes)
