"""A session in a terminal: train, predict, map; and wrong use, which is one line."""

import json
import sys
from inspect import signature

import attrs
import pandas as pd
import pytest
from PIL import Image

from ipslib import load
from ipslib.__main__ import main
from ipslib.config import ModelConfig, TrainingConfig
from ipslib.runs import train_images as module
from ipslib.runs.records import Run
from tests.datasets.images.test_own_images import write_images
from tests.runs.test_train_images import SMALL

FIELDS = SMALL | {"epochs": 3, "shuffle": False, "lr": 1e-4, "precision": "fp32"}


def flags(**fields) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in fields.items())
    return [word for pair in pairs for word in pair]


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, n=12)
    return tmp_path


@pytest.fixture
def train(folder):
    """Trains a little, as a command."""
    options = [*flags(**FIELDS, folder=folder / "runs"), "--tasks", "kind"]
    return lambda: main(["train", str(folder / "labels.csv"), *options])


def test_a_session(folder, train, capsys):
    assert train() == 0
    said = capsys.readouterr().out
    path = folder / "runs" / "model.ipslib"
    model = load(path)
    accuracy = f"{100 * model.accuracy['kind']:.1f} % of {model.record['result']['n_test']} test"
    assert str(path) in said and accuracy in said and "50.0 %" in said

    images = [str(folder / name) for name in ("0.png", "1.png")]
    table = ["--csv", str(folder / "out.csv")]
    assert main(["predict", str(path), *images, *table]) == 0
    written = pd.read_csv(folder / "out.csv")
    pd.testing.assert_frame_equal(written, model.predict(images), check_dtype=False)
    capsys.readouterr()
    assert main(["predict", str(path), str(folder / "none.png"), images[0]]) == 1
    said = capsys.readouterr()
    assert "none.png" in said.err and "0.png" in said.out

    shown = {name: str(folder / name / f"map.{name}") for name in ("html", "geojson", "png")}
    assert main(["map", str(path), images[0], *flags(**shown, task="kind", head=0)]) == 0
    assert json.loads((folder / "geojson/map.geojson").read_text())["type"] == "FeatureCollection"
    assert Image.open(folder / "png/map.png").size > (100, 100)
    assert "<html" in (folder / "html/map.html").read_text()


def test_numbers_sets_and_boxes_are_named_as_in_python(folder, capsys):
    table = pd.read_csv(folder / "labels.csv")
    table = table.assign(age=[1.5 * i for i in range(12)], tags=["a|b", "b", "a"] * 4)
    table.to_csv(folder / "labels.csv", index=False)
    boxes = pd.DataFrame({"image": table["image"], "x": 4, "y": 4, "width": 8, "height": 8})
    boxes.to_csv(folder / "boxes.csv", index=False)
    named = flags(numbers="age", several="tags", boxes=folder / "boxes.csv", flips="both")
    weights = ["--class-weights", "{kind: {dim: 2, bright: 1}}"]
    options = [*flags(**FIELDS, folder=folder), *named, *weights]
    assert main(["train", str(folder / "labels.csv"), *options]) == 0
    said = capsys.readouterr().out
    assert "tags: " in said and "r2" in said
    model = load(folder / "model.ipslib")
    assert model.predict(folder / "0.png")["task"].tolist() == ["kind", "tags", "age"]
    assert model.config.data.class_weights == {"kind": {"dim": 2.0, "bright": 1.0}}
    assert b"boxes.csv" not in (folder / "model.ipslib").read_bytes()
    files = [str(folder / name) for name in ("model.ipslib", "0.png")]
    assert main(["map", *files, "--png", str(folder / "p.png")]) == 0


def test_stopped_it_goes_on(train, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which would draw a bar
    save_checkpoint = Run.save_checkpoint

    def stop(*arguments):
        save_checkpoint(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", stop)
        assert train() == 130
    capsys.readouterr()
    assert train() == 0
    said = capsys.readouterr().err
    assert "epoch 2 of 3" in said and "epoch 1 of 3" not in said
    assert train() == 0
    said = capsys.readouterr()
    assert "epoch" not in said.err and "trained before" in said.err and "earlier" in said.out


def test_every_field_of_python_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    fields = {field.name for of in (ModelConfig, TrainingConfig) for field in attrs.fields(of)}
    arguments = signature(module.train_images).parameters.keys() - {"labels", "fields"}
    for name in {*fields, *arguments, "patch_size", "level", "test_share"}:
        assert f"--{name.replace('_', '-')} " in shown, name
    assert "--labels-sha256" not in shown
