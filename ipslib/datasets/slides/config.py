"""What a run on bags of slides is made of; `sets.describe_bags` reads it from the bags."""

from pathlib import Path

import attrs

from ipslib.fields import flag, integer
from ipslib.patches import Dataset

TASK = "tumour"


@attrs.frozen(kw_only=True)
class SlidesConfig:
    """Bags of CAMELYON16, or of slides that are named as its are.

    The hash is of names, sizes, settings and labels of the bags, so that a run belongs to them.
    """

    bags: str  # folder of the bags, relative to the project where it lies inside
    labels: str = ""  # path of the CSV of labels; "": they follow from the names
    bags_sha256: str
    in_channels: int = integer(2048)  # D, features of a patch
    standin: bool = flag(False)  # any slide was drawn: no result is one of real slides

    kind = "slides"
    tasks = (TASK,)
    patch_size = None  # of features
    grid = None  # slides differ in size

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return {TASK: 2}

    @property
    def is_synthetic(self) -> bool:
        return self.standin

    @property
    def source(self) -> str:
        """What results are made of, in words."""
        if self.standin:
            return f"SYNTHETIC slides, drawn and not real ({Path(self.bags).name})"
        return f"the slides of {Path(self.bags).name}"

    @property
    def short_name(self) -> str:
        return f"{'standin' if self.standin else 'slides'}_{Path(self.bags).name}"

    def open_split(self, split: str) -> Dataset:
        from ipslib.datasets.slides.sets import open_slides  # and HDF5

        return open_slides(self, split)
