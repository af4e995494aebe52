"""Train on images of one's own, name what is on further ones, and see where the network looks.

trained = train_images("labels.csv", patch_size=100, epochs=30, folder="outputs/mine")
print(trained.accuracy, trained.predict(["new.jpg"]))
trained.attention_map("new.jpg").savefig("map.png")
trained.save("model.ipslib")  # one file for another machine, see `ipslib.load`
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from ipslib.config import OTHER_WEIGHTS, ModelConfig, RunConfig, TrainingConfig
from ipslib.datasets.images.config import OwnImagesConfig
from ipslib.datasets.images.own_images import OwnImages, describe_images, image_stamps
from ipslib.datasets.registry import run_config
from ipslib.paths import (
    changed_files,
    found,
    from_here,
    from_project,
    inside_project,
    stamp,
    write_atomically,
)
from ipslib.runs import reporting
from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore
from ipslib.runs.trained_images import TrainedImages
from ipslib.runtime import chosen_device

# Of images of one's own: the rate and warm-up published for real images, and what notebook 16 found
# to let more runs take off. The latter three follow from other fields, see `_derived`.
DEFAULTS = {
    "position_encoding": False,
    "memory_size": 50,
    "iter_size": 50,
    "lr": 3e-4,
    "warmup_epochs": "a tenth of the epochs",
    "novelty_epochs": "half of the epochs, 0 where patches are masked or drawn by lot",
    "translate": "half a patch",
}


def train_images(
    labels: str | Path,
    *,
    folder: str | Path,
    device: str | None = None,
    group: str | None = None,
    tasks: str | Sequence[str] | None = None,
    several: str | Sequence[str] = (),
    numbers: str | Sequence[str] = (),
    boxes: str | Path = "",
    **fields: object,
) -> TrainedImages:
    """Train on images of one's own; called again, it goes on from where it was, or is done.

    It is done only if labels, images and settings are the same; which files are not is said. A
    record that came without its weights is trained again.

    Args:
        labels: a CSV of images and labels, see `ipslib.datasets.images.own_images`.
        folder: where record, weights and checkpoints go.
        device: `cpu` or `cuda`; a GPU where there is one if None.
        group: the column of what images belong to, such as `patient`: they are not split. The one
            that is called so if None, none if empty.
        tasks: the columns of labels, of classes where not said otherwise; all others if None.
        several: those of them that hold sets of labels, `a|b`.
        numbers: those that hold numbers.
        boxes: a CSV of what is to be found, see `ipslib.datasets.images.boxes`.
        fields: of `OwnImagesConfig`, `ModelConfig` and `TrainingConfig`: `patch_size`, `epochs`,
            `weights="imagenet_v1"`, `validation=0.15`, `flips="both"`, `class_weights="balanced"`,
            ... Unless said otherwise M = I = 50, no position encoding, a peak rate of 0.0003 as
            published for real images, a tenth of the epochs to warm up, and a recipe that lets more
            runs take off (notebook 16): images moved by up to half a patch (`translate`), and
            novelty for half of the epochs where patches are neither masked nor drawn by lot.

    Raises:
        IpslibError: for labels, images, settings or a device that cannot be used, before anything
            is trained; a single image that cannot be read whole is left out and named in `skipped`.
    """
    device, store = chosen_device(device), RecordStore(from_here(folder))
    before, memory = _remembered(store, labels)
    columns = {"group": group, "tasks": tasks, "several": several, "numbers": numbers}
    config = _configured(labels, before, boxes=boxes, **columns, **fields)
    data, start = config.data, config.model.weights
    record = store.run(config).record(with_weights=True)
    if record is None:
        after = image_stamps(data, before)
        files = filter(None, (data.labels, data.boxes, start if data.weights_sha256 else ""))
        after |= {file: stamp(from_project(file)) for file in files}
        changed = changed_files(before, after) if data.labels in before else []
        images = data.open_split("train")
        data.open_split("test").batch([0])
        _say(data, images.skipped, (*images.notes, *_too_large(config, images)), changed)
        with suppress(OSError):  # a folder that cannot be written is told with the run
            write_atomically(memory, json.dumps(after))
        with reporting([], [config]) as report:
            record = train_and_record(
                config, store, device=device, report=report, with_weights=True
            )
            report({"event": "run", "id": config.id, "status": "made"})
    else:
        of_images = record["provenance"]
        done = (
            f"trained before with these images and settings; nothing is trained: {config.id}.json."
        )
        _say(data, of_images["skipped"], (*of_images["notes"], done))
    skipped, notes = (tuple(record["provenance"][of]) for of in ("skipped", "notes"))
    return TrainedImages(record, config, store.load_network(record), skipped, notes)


def images_record(labels: str | Path, *, folder: str | Path, **options: object) -> dict | None:
    """The record that `train_images` has made of the same images and settings, whether its weights
    are here or not; None where it has made none. Nothing is trained."""
    store = RecordStore(from_here(folder))
    return store.find(_configured(labels, _remembered(store, labels)[0], **options))


def _remembered(store: RecordStore, labels: str | Path) -> tuple[dict, Path]:
    """What files were when they were read last, and where that is kept."""
    memory = store.folder / ".contents" / f"{Path(labels).name}.json"
    try:
        return json.loads(memory.read_text()), memory
    except (FileNotFoundError, ValueError):  # none, or torn: all is read anew
        return {}, memory


def _configured(labels: str | Path, before: dict, **options: object) -> RunConfig:
    """The run of these images and settings, `options` of `train_images`."""
    known = {field.name for of in (ModelConfig, TrainingConfig) for field in attrs.fields(of)}
    options = DEFAULTS | _derived(options) | options
    settings = {name: value for name, value in options.items() if name in known}
    described = {name: value for name, value in options.items() if name not in known}
    data = describe_images(labels, known=before, **described)
    weights = str(settings.get("weights", ""))
    if re.fullmatch(OTHER_WEIGHTS["pattern"], weights) and (file := found(weights)).is_file():
        settings["weights"] = start = os.path.join(".", inside_project(file))
        data = attrs.evolve(data, weights_sha256=stamp(from_project(start)).sha256)
    return run_config({"dataset": data.kind} | attrs.asdict(data) | settings)


def _derived(fields: Mapping[str, object]) -> dict[str, int]:
    """What `DEFAULTS` tells in words. A field that is no number is refused by its configuration."""
    epochs = fields.get("epochs", TrainingConfig().epochs)
    patch_size = fields.get("patch_size", attrs.fields(OwnImagesConfig).patch_size.default)
    epochs, patch_size = (each if type(each) is int else 0 for each in (epochs, patch_size))
    ranked = not fields.get("mask_k") and fields.get("selection") != "random"
    novelty = {"novelty_epochs": epochs // 2 * ranked, "translate": patch_size // 2}
    return {"warmup_epochs": -(-epochs // 10)} | novelty


def _too_large(config: RunConfig, images: OwnImages) -> Iterator[str]:
    """What is larger than the images, so that nothing is selected."""
    data, n_kept = config.data, config.model.memory_size
    grids = [images.source(i).grid for i in range(len(images))]
    side, n_patches = max(max(grid.canvas) for grid in grids), max(grid.n_patches for grid in grids)
    if data.patch_size > side:
        yield f"patch_size is {data.patch_size} px, and no image has a side of more than {side} px."
    if n_kept >= n_patches:
        yield (
            f"memory_size is {n_kept}, and no image has more than {n_patches} patches: all are "
            "kept, and none is selected."
        )


def _say(
    data: OwnImagesConfig, skipped: Sequence[str], notes: Sequence[str], changed: Sequence[str] = ()
) -> None:
    """What a person is to know of the images, before they are trained on."""
    told = [f"{Path(data.labels).name}: {note}" for note in notes]
    if changed:
        others = f" and {len(changed) - 5} more" * (len(changed) > 5)
        anew = f"trained anew, since these are others than before: {', '.join(changed[:5])}"
        told.insert(0, anew + others)
    if skipped:
        told += [f"left out, {len(skipped)} in all:", *skipped]
    for sentence in told:
        print(sentence, file=sys.stderr)
