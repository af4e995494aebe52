"""What a run on the Swedish traffic signs is made of; the defaults are the published sizes."""

import attrs

from ipslib.datasets.traffic_signs.annotations import CLASSES
from ipslib.fields import check_fits, choice, flag, integer, number, side_lengths
from ipslib.patches import Dataset, PatchGrid

SET_OF = {"train": "Set1", "test": "Set2"}
# Images of Set1 and Set2 after the published filter, by class.
PUBLISHED_COUNTS = {"train": (486, 79, 123, 59), "test": (451, 86, 83, 64)}
_PUBLISHED_WIDTH, _PUBLISHED_SHIFT = 1600, 100
_N_TRAIN, _N_TEST = (sum(counts) for counts in PUBLISHED_COUNTS.values())


@attrs.frozen(kw_only=True)
class TrafficSignsConfig:
    """Sizes in pixels, counts in images.

    Synthetic photographs have 4/5 of the canvas's sides, as the real ones (960 x 1280) of theirs.
    """

    signs: str = choice("real", ("real", "standin"))
    canvas: tuple[int, int] = side_lengths((1200, 1600))  # what the photographs are brought to
    patch_size: int = integer(100, at_least=4)
    patch_stride: int = integer(lambda self: self.patch_size)
    fraction: float = number(1.0, at_least=0.001, at_most=1.0)  # of each training class
    thin_test: bool = flag(False)  # true, as published: the test set too
    jitter: float = number(0.1, at_most=0.5)
    translate: int = integer(
        lambda self: round(self.canvas[1] * _PUBLISHED_SHIFT / _PUBLISHED_WIDTH), at_least=0
    )
    standin_train: int = integer(_N_TRAIN, at_least=len(CLASSES))  # as the real sets have
    standin_test: int = integer(_N_TEST, at_least=len(CLASSES))
    standin_shares: str = choice("published", ("published", "equal"))  # of the classes

    kind = "traffic_signs"
    in_channels = 3

    def __attrs_post_init__(self) -> None:
        check_fits(self.canvas, patch_size=self.patch_size)
        _ = self.grid  # which checks itself

    @property
    def grid(self) -> PatchGrid:
        return PatchGrid(self.canvas, self.patch_size, self.patch_stride)

    @property
    def n_classes(self) -> dict[str, int]:
        """Outputs by task."""
        return {"sign": len(CLASSES)}

    @property
    def is_synthetic(self) -> bool:
        return self.signs == "standin"

    @property
    def source(self) -> str:
        """What results are made of, in words."""
        if self.signs == "real":
            return "the Swedish traffic signs"
        return "SYNTHETIC road scenes, drawn by this project, not the Swedish traffic signs"

    @property
    def short_name(self) -> str:
        """In the published convention; what was drawn is called so."""
        parts = ["traffic_sign" if self.signs == "real" else "traffic_standin"]
        parts.append(f"{100 * self.fraction:03.4g}")
        parts += ["thinned"] if self.thin_test else []
        parts += [f"PS_{self.patch_size}"] if self.patch_size != 100 else []
        return "_".join(parts)

    @property
    def n_train(self) -> int:
        """Images that train, as far as can be told before they are read."""
        whole = _N_TRAIN if self.signs == "real" else self.standin_train
        return int(self.fraction * whole)

    @property
    def standin_size(self) -> tuple[int, int]:
        """Height and width of a drawn photograph."""
        height, width = (round(side * 4 / 5) for side in self.canvas)
        return height, width

    def open_split(self, split: str) -> Dataset:
        from ipslib.datasets.traffic_signs.dataset import load_traffic_signs  # needs this module

        return load_traffic_signs(self, split)
