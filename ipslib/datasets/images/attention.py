"""What a network keeps of one image, how it attends to it and what it answers: one object that
pages, maps and GeoJSON show.

    attention = attention_of(network, data.batch([0]), classes=data.config.classes)
    to_geojson(attention, "kept.geojson")
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipslib.errors import IpslibError, did_you_mean
from ipslib.model.ips import IPSNet, evaluating
from ipslib.patches import MixedBatch, PatchBatch, device_of, is_normalised
from ipslib.paths import write_atomically
from ipslib.training import answer

# From the least attention to the most: matplotlib's plasma without its darkest fifth, which is
# lost on a black canvas.
COLOURS = ((106, 0, 168), (177, 42, 144), (225, 100, 98), (252, 166, 54), (240, 249, 33))
OBJECT_TYPES = ("annotation", "tile", "detection")  # of QuPath
_CLASS_COLOUR = [225, 100, 98]


class Attention(NamedTuple):
    """The M patches that a network kept of one image, those first that it attends to most.

    Lengths are pixels of level 0, the full resolution, of the image as viewers show it: one that
    EXIF turns is turned.
    """

    corners: np.ndarray  # (M, 2) row and column of the patches' top-left corners
    patch_size: float
    weights: dict[str, np.ndarray]  # by task: (H, M), every head's attention, adding up to 1
    answers: dict[str, str]  # by task: the image's class, of a set of labels `a|b`, or its number
    probabilities: dict[str, dict[str, float]]  # of the image, by task and class; none of a number
    alone: dict[str, np.ndarray]  # by task: (M, C), of an image that is this patch alone

    def mean(self, task: str | None = None, head: int | None = None) -> np.ndarray:
        """Attention to each patch (M,), adding up to 1.

        Args:
            task: one of them; the mean over all if None.
            head: one attention head, from 0; the mean over all if None.
        """
        if task is not None and task not in self.weights:
            raise IpslibError(f"task: no task {task!r}{did_you_mean(task, self.weights)}.")
        weights = list(self.weights.values()) if task is None else [self.weights[task]]
        n_heads = len(weights[0])
        if head is not None and head not in range(n_heads):
            raise IpslibError(f"head: wanted one of 0 to {n_heads - 1}, got {head}.")
        return np.mean([w.mean(axis=0) if head is None else w[head] for w in weights], axis=0)


@torch.no_grad()
def attention_of(
    network: IPSNet,
    batch: PatchBatch | MixedBatch,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    several: Collection[str] = (),
    numbers: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Attention:
    """What a network keeps of an image and answers to it, in evaluation mode.

    Args:
        batch: of one image, from a data set, `SourceBatch` or a bag of features of a slide.
        classes: names of the outputs by task; 0, 1, 2, ... for a task that is not in it.
        several: tasks whose label is a set of classes; those are known of a batch with labels.
        numbers: by task of numbers, the mean and deviation that they were standardised by.

    Raises:
        IpslibError: for several images, or one of which it is not known where its patches lie.
    """
    if batch.batch_size != 1:
        raise IpslibError(f"batch: wanted one image, got {batch.batch_size}; take one at a time.")
    part = batch.parts[0] if isinstance(batch, MixedBatch) else batch
    output = answer(network, part)
    kept = output.selection.indices[0].cpu()
    kept = kept[kept >= 0]
    weights = output.attn_weights[0, ..., : len(kept)].cpu().double()  # (H, T, M)
    order = weights.mean(dim=(0, 1)).argsort(descending=True, stable=True)
    kept, weights = kept[order], weights[..., order].numpy()
    place = device_of(part)
    patches = part.read(torch.zeros_like(kept).to(place), kept.to(place))
    with evaluating(network.modules()):
        logits_alone = network.answer_alone(patches, kept, normalised=is_normalised(part))
    labels = getattr(batch, "labels", {})
    answers, probabilities, alone = {}, {}, {}
    for task, logits in output.logits.items():
        if task in numbers:
            answers[task] = f"{number_of(logits[0], numbers[task]):.4g}"
            probabilities[task], alone[task] = {}, np.zeros((len(kept), 0))
            continue
        is_set = task in several or (task in labels and labels[task].ndim == 2)
        names = list((classes or {}).get(task, map(str, range(logits.shape[1]))))
        shares = probabilities_of(logits.cpu().double(), is_set)[0].numpy()
        answers[task] = class_named(shares, names, is_set)
        probabilities[task] = dict(zip(names, shares.tolist(), strict=True))
        alone[task] = probabilities_of(logits_alone[task].cpu().double(), is_set).numpy()
    of_task = {task: weights[:, i] for i, task in enumerate(output.logits)}
    return Attention(*_places(part, kept.numpy()), of_task, answers, probabilities, alone)


def probabilities_of(logits: Tensor, is_set: bool) -> Tensor:
    """Of logits (..., C): of each class, or of each label of a set by itself."""
    return logits.sigmoid() if is_set else logits.softmax(dim=-1)


def class_named(shares: np.ndarray, names: Sequence[str], is_set: bool) -> str:
    """The class of the largest of probabilities (C,), or the labels of a set above 0.5, `a|b`."""
    best = np.flatnonzero(shares > 0.5) if is_set else [shares.argmax()]
    return "|".join(names[i] for i in best)


def number_of(output: Tensor, scale: Sequence[float]) -> float:
    """A number as the table has it, of the network's output (1,)."""
    mean, deviation = scale
    return mean + deviation * output.item()


def _places(batch: PatchBatch, kept: np.ndarray) -> tuple[np.ndarray, float]:
    """Rows and columns of kept patches, and their size, in pixels of level 0."""
    source = batch.sources[0] if hasattr(batch, "sources") else batch
    if hasattr(source, "coords") and hasattr(source, "size_level0"):  # of a slide
        corners, size = source.coords(), source.size_level0
        if corners is not None and size:
            return corners[kept, ::-1], size
    elif getattr(source, "grid", None) is not None:
        scale = getattr(source, "downsample", 1)
        return source.grid.corners(kept) * scale, source.grid.patch_size * scale
    raise IpslibError(
        f"{getattr(source, 'name', 'batch')}: wanted to know where its patches lie and how large "
        "they are, got features or patches alone; take the image, or a bag with corners."
    )


def ranks(weights: np.ndarray) -> np.ndarray:
    """Weights (M,) as places from 0, the least, to 1, the most; equal ones share theirs."""
    first = np.searchsorted(np.sort(weights), weights, side="left")
    last = np.searchsorted(np.sort(weights), weights, side="right") - 1
    return (first + last) / 2 / (len(weights) - 1) if len(weights) > 1 else np.full(1, 0.5)


def colours(values: np.ndarray) -> np.ndarray:
    """Colours (M, 3) uint8 of values (M,) in 0..1."""
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(values, stops, channel) for channel in np.transpose(COLOURS)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def to_geojson(
    attention: Attention,
    path: str | Path | None = None,
    *,
    task: str | None = None,
    head: int | None = None,
    object_type: str = "annotation",
) -> dict:
    """The kept patches as QuPath (from 0.4) and other readers of GeoJSON take them.

    A polygon a patch, x and y in pixels of level 0 of the image as viewers show it. Its colour is
    by the rank of its attention, its classification the network's answer to the image, and its
    measurements are `attention` (adding up to 1), `attention TASK` of each of several tasks, and
    `CLASS alone`, the probability of a class if the image were this patch alone.

    Args:
        attention: of `attention_of`.
        path: of the file that is written, if any.
        task: of attention and classification; the mean over all if None, and with several tasks
            the classification is then `kept patch`.
        head: of attention, from 0; the mean over all if None.
        object_type: `annotation`, `tile` or `detection`.

    Returns:
        The FeatureCollection.
    """
    if object_type not in OBJECT_TYPES:
        hint = did_you_mean(object_type, OBJECT_TYPES)
        raise IpslibError(f"object_type: no type {object_type!r}{hint}.")
    weights, tasks = attention.mean(task, head), list(attention.weights)
    shown = tasks if task is None else [task]
    measured = {"attention": weights}
    if len(shown) > 1:
        measured |= {f"attention {each}": attention.mean(each, head) for each in shown}
    for each in shown:
        prefix = f"{each} " if len(shown) > 1 else ""
        names = attention.probabilities[each]
        measured |= {f"{prefix}{n} alone": attention.alone[each][:, i] for i, n in enumerate(names)}
    name = attention.answers[shown[0]] if len(shown) == 1 else "kept patch"
    painted, size = colours(ranks(weights)).tolist(), attention.patch_size
    features = []
    for i, (top, left) in enumerate(attention.corners.tolist()):
        right, bottom = left + size, top + size
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        properties = {
            "objectType": object_type,
            "name": f"attention {100 * weights[i]:.3g} %",
            "color": painted[i],
            "classification": {"name": name or "none", "color": _CLASS_COLOUR},
            "measurements": {key: float(values[i]) for key, values in measured.items()},
        }
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    collection = {"type": "FeatureCollection", "features": features}
    if path is not None:
        write_atomically(Path(path), json.dumps(collection, allow_nan=False))
    return collection
