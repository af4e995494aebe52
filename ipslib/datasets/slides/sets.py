"""The official training and test set of CAMELYON16, opened from a folder of bags."""

import hashlib
import json
from pathlib import Path

from ipslib.datasets.slides.bag_files import SETTINGS
from ipslib.datasets.slides.bags import BagDataset, SlideBag, open_bags, stored_labels
from ipslib.datasets.slides.camelyon16 import (
    Labelled,
    canonical_name,
    label_slides,
    read_labels,
    split_of,
)
from ipslib.datasets.slides.config import SlidesConfig
from ipslib.errors import IpslibError
from ipslib.paths import from_project, inside_project


def describe_bags(bags: str | Path, labels: str | Path | None = None) -> SlidesConfig:
    """Read a folder of bags into a configuration.

    Args:
        bags: folder, or a file with a group a slide.
        labels: CSV such as `reference.csv`; without it test slides have a label where their bags
            say it.

    Raises:
        IpslibError: when there is no bag with a label, or the CSV is not as it should be.
    """
    opened, _ = open_bags(bags)
    labelled = label_bags(opened, labels)
    if not labelled.labels:
        reason = next(iter(labelled.skipped.values()), "there is none that can be read.")
        raise IpslibError(f"{bags}: wanted bags with labels, got none; the first: {reason}")
    first = min(labelled.labels)
    return SlidesConfig(
        bags=inside_project(bags),
        labels="" if labels is None else inside_project(labels),
        bags_sha256=_digest(opened, labelled),
        in_channels=opened[first].patch_shape[0],
        standin=any(opened[name].is_standin for name in labelled.labels),
    )


def open_slides(config: SlidesConfig, split: str) -> BagDataset:
    """The official `train` or `test` set.

    What is left out, of either set, is in its `skipped`.

    Raises:
        IpslibError: when the bags or labels have changed, or none is of this split.
    """
    opened, unreadable = open_bags(from_project(config.bags))
    labelled = label_bags(opened, from_project(config.labels) if config.labels else None)
    if _digest(opened, labelled) != config.bags_sha256:
        raise IpslibError(
            f"{config.bags}: wanted the bags and labels that this run was described with, got "
            "others; describe them anew."
        )
    of_split = [name for name in labelled.labels if split_of(name) == split]
    if not of_split:
        raise IpslibError(
            f"{config.bags}: wanted bags of the {split} set, got none; name them as CAMELYON16 "
            "does, normal_001 and tumor_001 to train and test_001 to test, and give the labels "
            "of the latter."
        )
    bags = {name: opened[name] for name in of_split}
    skipped = unreadable | labelled.skipped
    for name in labelled.labels:
        if split_of(name) is None:
            skipped[name] = f"{name}: wanted a name that says its set, got another; rename its bag."
    return BagDataset(bags, labelled.labels, names=of_split, also_skipped=skipped)


def label_bags(opened: dict[str, SlideBag], labels: str | Path | None = None) -> Labelled:
    """Labels of slides: from a CSV where they stand in it, else as their bags say (ACMIL, IPS),
    else from their names.

    Raises:
        IpslibError: when the CSV is missing, or a row says no class.
    """
    said = {canonical_name(name): label for name, label in stored_labels(opened).items()}
    return label_slides(opened, said | ({} if labels is None else read_labels(labels)))


def _digest(opened: dict[str, SlideBag], labelled: Labelled) -> str:
    """Hash what tells these bags from others, without reading their rows."""
    said = [
        [
            canonical_name(name), label, opened[name].n_patches, *opened[name].patch_shape,
            str(opened[name].layout.attributes.get(SETTINGS, "")),
        ]
        for name, label in sorted(labelled.labels.items())
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
