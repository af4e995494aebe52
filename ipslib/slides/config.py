"""What a run on bags of slides is made of; `sets.describe_bags` reads it from the bags."""

from pathlib import Path

import attrs

from ipslib.fields import integer

TASK = "tumour"


@attrs.frozen(kw_only=True)
class SlidesConfig:
    """Bags of CAMELYON16, or of slides that are named as its are.

    The hash is of names, sizes, settings and labels of the bags, so that a run belongs to them.
    """

    bags: str  # folder of the bags
    labels: str = ""  # path of the CSV of labels; "": they follow from the names
    bags_sha256: str
    in_channels: int = integer(2048)  # D, features of a patch

    grid = None  # slides differ in size

    @property
    def tasks(self) -> tuple[str, ...]:
        return (TASK,)

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return {TASK: 2}

    @property
    def source(self) -> str:
        """What results are made of, in words."""
        return f"the bags of {Path(self.bags).name}"

    @property
    def short_name(self) -> str:
        return f"slides_{Path(self.bags).name}"
