"""Which kinds of data there are, by name.

To add one, write a configuration as `ipslib.config.DatasetConfig` says, whose `open_split` gives
a `ipslib.patches.Dataset`, and name it here.
"""

from collections.abc import Mapping

from ipslib.config import DEFAULT_KIND, RunConfig
from ipslib.datasets.images.config import OwnImagesConfig
from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.slides.camelyon16 import SlidesConfig
from ipslib.datasets.traffic_signs.dataset import TrafficSignsConfig
from ipslib.errors import IpslibError, did_you_mean

KINDS = {
    each.kind: each
    for each in (MegapixelMNISTConfig, TrafficSignsConfig, SlidesConfig, OwnImagesConfig)
}


def run_config(values: Mapping[str, object] | None = None) -> RunConfig:
    """A run from a flat mapping `{field: value}`, such as a record's; what is left out is as
    published. Its kind of data is named in `dataset`, where it is not Megapixel MNIST.

    Raises:
        IpslibError: for an unknown kind or field, or a bad value.
    """
    values = dict(values or {})
    kind = values.pop("dataset", DEFAULT_KIND)
    if not isinstance(kind, str) or kind not in KINDS:
        raise IpslibError(
            f"dataset: wanted one of {', '.join(KINDS)}, got {kind!r}"
            f"{did_you_mean(str(kind), KINDS)}."
        )
    return RunConfig.from_flat(values, KINDS[kind])
