import copy
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from ipslib.datasets.images import own_images
from ipslib.datasets.images.image import ImageSource
from ipslib.errors import IpslibError
from ipslib.runs.train_images import images_record, train_images
from ipslib.training import evaluate, train
from tests.datasets.images.test_own_images import write_boxes, write_images

SMALL = {
    "patch_size": 10, "width": 0.25, "n_heads": 4, "memory_size": 4, "iter_size": 4,
    "epochs": 20, "warmup_epochs": 1, "batch_size": 8, "lr": 1e-3, "dropout": 0.0,
    "attn_dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module", params=["one size", "two sizes"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, n=40, sides=[40, 40, 60] if request.param == "two sizes" else None)
    return train_images(folder / "labels.csv", folder=folder / "runs", **SMALL)


def test_it_learns_what_is_bright(trained):
    assert trained.chance == {"kind": 0.5}
    assert trained.accuracy["kind"] == 1.0
    assert trained.record["result"]["measures"]["auc"] == {"kind": 1.0}


def test_predictions_are_named_and_sure(trained, tmp_path):
    image = np.zeros((80, 50), np.uint8)
    image[4:12, 4:12] = 250
    Image.fromarray(image).save(tmp_path / "new.png")
    table = trained.predict([tmp_path / "new.png", image])
    assert table["predicted"].tolist() == ["bright", "bright"]
    assert (table["bright"] + table["dim"]).tolist() == pytest.approx([1, 1])
    assert table["bright"].iloc[0] == pytest.approx(table["bright"].iloc[1], abs=1e-5)
    with pytest.raises(IpslibError, match="wanted 1 channels, got 3"):
        trained.predict([np.zeros((40, 40, 3), np.uint8)])
    for paths in (pd.Series([str(tmp_path / "new.png")]), np.array([str(tmp_path / "new.png")])):
        assert trained.predict(paths)["predicted"].tolist() == ["bright"]


@pytest.mark.parametrize("image", [None, 3, b"new.png", Image.new("L", (40, 40))])
def test_what_is_no_image_is_not_predicted(trained, image):
    with pytest.raises(IpslibError, match="image"):
        trained.predict(image)


@pytest.fixture
def train_a_little(tmp_path):
    """Trains an epoch on twelve images in the folder."""
    write_images(tmp_path, n=12)
    labels, few = tmp_path / "labels.csv", SMALL | {"epochs": 1, "folder": tmp_path / "runs"}
    return lambda **fields: train_images(labels, **few | fields)


def test_what_is_known_of_files_may_be_torn(tmp_path, train_a_little):
    first = train_a_little()
    known = next((tmp_path / "runs/.contents").iterdir())
    known.write_text(known.read_text()[:-9])
    assert train_a_little().record["id"] == first.record["id"]


def test_a_tenth_of_the_epochs_warms_up_unless_said_otherwise(tmp_path):
    write_images(tmp_path, n=12)
    of = {name: value for name, value in SMALL.items() if name != "warmup_epochs"}
    of |= {"labels": tmp_path / "labels.csv", "folder": tmp_path / "runs"}
    assert train_images(**of | {"epochs": 2}).config.training.warmup_epochs == 1
    with pytest.raises(IpslibError, match="epochs"):
        train_images(**of | {"epochs": "many"})


@pytest.mark.parametrize(
    ("fields", "novelty", "translate"),
    [
        ({}, 1, 5),
        ({"mask_k": 2, "mask_p": 0.5}, 0, 5),
        ({"selection": "random"}, 0, 5),
        ({"novelty_epochs": 2, "translate": 0}, 2, 0),
    ],
)
def test_images_move_and_novelty_selects_at_first_unless_said_otherwise(
    train_a_little, fields, novelty, translate
):
    config = train_a_little(epochs=2, **fields).config
    assert (config.training.novelty_epochs, config.data.translate) == (novelty, translate)


@pytest.mark.parametrize(
    ("size", "doubt"),
    [({"memory_size": 4}, ""), ({"memory_size": 16}, "memory_size"), ({"patch_size": 50}, "side")],
)
def test_sizes_that_leave_nothing_to_select_are_said(train_a_little, capsys, size, doubt):
    train_a_little(**size)  # on images of 40 px
    said = capsys.readouterr().err
    assert doubt in said and ("memory_size" in said) == bool(doubt)


class TestReuse:
    @pytest.fixture
    def train(self, train_a_little, capsys):
        """Trains a little, and returns the record's id and what was said."""

        def call(**fields):
            capsys.readouterr()
            return train_a_little(**fields).record["id"], capsys.readouterr().err

        return call

    def test_other_images_under_the_same_names_are_trained_on_anew_and_named(self, train, tmp_path):
        first, said = train()
        assert "anew" not in said
        image = tmp_path / "3.png"
        times = image.stat().st_atime_ns, image.stat().st_mtime_ns
        pixels = np.rot90(np.array(Image.open(image))).copy()
        Image.fromarray(pixels).save(image)
        os.utime(image, ns=times)
        second, said = train()
        assert second != first and "3.png" in said and "4.png" not in said
        assert train()[0] == second
        table = (tmp_path / "labels.csv").read_text()
        (tmp_path / "labels.csv").write_text(table.replace("11.png,bright", "11.png,dim"))
        third, said = train()
        assert third not in (first, second) and "labels.csv" in said

    def test_a_record_that_came_without_its_weights_is_trained_again(self, train, tmp_path):
        first, _ = train()
        record, weights = (tmp_path / "runs" / f"{first}.{suffix}" for suffix in ("json", "pt"))
        before, result = weights.read_bytes(), json.loads(record.read_text())["result"]
        weights.unlink()
        asked = {"folder": tmp_path / "runs", **SMALL, "epochs": 1}
        assert images_record(tmp_path / "labels.csv", **asked)["id"] == first
        assert images_record(tmp_path / "labels.csv", **asked, seed=1) is None
        assert not weights.exists()
        assert train()[0] == first
        assert weights.read_bytes() == before
        assert json.loads(record.read_text())["result"] == result
        assert "nothing is trained" in train()[1]

    def test_other_weights_to_start_from_under_the_same_name_are_another_run(self, train, tmp_path):
        file, ids = tmp_path / "weights.pth", []
        fields = {"weights": str(file), "width": 1.0, "n_stages": 1}
        for _ in range(2):
            torch.save(resnet18().state_dict(), file)
            ids += [train(**fields), train(**fields)]
        (first, _), (again, _), (other, said), _ = ids
        assert first == again != other == ids[3][0]
        assert "weights.pth" in said and "labels.csv," not in said

    def test_what_was_left_out_is_said_again_without_reading_images(
        self, train, tmp_path, monkeypatch
    ):
        (tmp_path / "3.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
        first, said = train()
        assert "3.png" in said
        with monkeypatch.context() as patch:
            own_images._opened.cache_clear()  # as in another process
            patch.setattr(ImageSource, "read", None)
            again = train()
        assert again[0] == first and "3.png" in again[1]


def test_a_group_and_tasks_may_be_named(train_a_little, tmp_path):
    table = pd.read_csv(tmp_path / "labels.csv")
    table = table.assign(tree=[f"T{i // 2}" for i in range(12)], size=["a", "b", "c"] * 4)
    table.to_csv(tmp_path / "labels.csv", index=False)
    trained = train_a_little(group="tree", tasks="kind")
    assert list(trained.accuracy) == ["kind"] and trained.config.data.group == "tree"


def test_tasks_and_classes_of_any_name_are_trained_kept_and_predicted(train_a_little, tmp_path):
    tasks = ["type", "<type>", "train", "keys", "tumor.grade", "class", "max", "a b", "\u00e4"]
    classes = ["image", "predicted", "task"]
    table = pd.DataFrame({"image": pd.read_csv(tmp_path / "labels.csv")["image"]})
    table[tasks] = np.repeat(classes * 4, len(tasks)).reshape(12, -1)
    table.to_csv(tmp_path / "labels.csv", index=False)
    trained = train_a_little(semantic_weight=1.0)
    assert list(trained.accuracy) == tasks
    for image in (tmp_path / "0.png", str(tmp_path / "0.png"), np.zeros((40, 40), np.uint8)):
        rows = trained.predict(image)  # one image need not be in a list
        assert rows["task"].tolist() == tasks
        shares = rows[[f"{name} (class)" for name in classes]].to_numpy()
        assert shares.sum(axis=1) == pytest.approx(np.ones(len(tasks)))
        assert rows["predicted"].tolist() == [classes[i] for i in shares.argmax(axis=1)]
        assert rows["image"].nunique() == 1


def test_a_mistyped_field_is_told_before_training(train_a_little, tmp_path):
    with pytest.raises(IpslibError, match="epoch"):
        train_a_little(epoch=3)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Everything at once."""
    folder = tmp_path_factory.mktemp("options")
    table = write_images(folder, n=40, sides=[40, 53])
    table["light"] = [3.5 if kind == "bright" else 1.25 for kind in table["kind"]]
    table["tags"] = ["a|b" if kind == "bright" else "b" for kind in table["kind"]]
    table.to_csv(folder / "labels.csv", index=False)
    return SMALL | {
        "labels": folder / "labels.csv", "folder": folder / "runs", "several": "tags",
        "numbers": "light", "boxes": write_boxes(folder, table["image"]), "flips": "both",
        "rotations": True, "validation": 0.2, "class_weights": "balanced",
    }  # fmt: skip


@pytest.fixture(scope="module")
def with_options(options):
    return train_images(**options)


class TestOptions:
    @pytest.fixture
    def image(self, options):
        return options["labels"].with_name("1.png")

    def test_classes_sets_and_numbers_of_the_tables_unit_are_learned(self, with_options, image):
        assert with_options.accuracy == {"kind": 1.0, "tags": 1.0}
        assert with_options.measures["r2"]["light"] > 0.9
        assert with_options.measures["mean_absolute_error"]["light"] < 0.3
        rows = with_options.predict(image).set_index("task")
        assert rows.loc["kind", "predicted"] == "bright" and rows.loc["tags", "predicted"] == "a|b"
        assert rows.loc["light", "predicted"] == pytest.approx(3.5, abs=0.5)
        assert rows.loc["tags", "a"] + rows.loc["tags", "b"] > 1.2  # each has its probability

    def test_the_best_epoch_on_the_validation_part_is_kept_and_named(self, with_options):
        result, history = with_options.record["result"], with_options.record["history"]
        losses = [row["validation"]["loss"] for row in history]
        kept = history[result["best_epoch"] - 1]
        assert kept["validation"]["loss"] == min(losses)
        assert result["accuracy"] == kept["test"]["accuracy"]
        data = with_options.config.data.open_split("validation")
        assert evaluate(with_options.network, data, 8).loss == pytest.approx(min(losses), rel=1e-4)

    def test_recall_of_boxes_is_measured_and_they_are_shown(self, with_options, image, tmp_path):
        attention = with_options.record["result"]["attention"]
        assert attention["roi_recall"] > attention["roi_recall_random"]
        with_options.attention_map(image).canvas.draw()
        page = with_options.attention_page(image, tmp_path / "page.html").read_text()
        assert '"boxes":[[4.0,4.0,8.0,8.0]]' in page and '"answer":"a|b"' in page

    def test_going_on_after_a_stop_ends_the_same(self, with_options):
        snapshots, config = [], with_options.config.replace(epochs=3)

        def keep(row, state):
            row.pop("seconds")
            snapshots.append(copy.deepcopy(state.snapshot()))

        whole = train(config, on_epoch=keep)
        resumed = train(config, snapshot=snapshots[0], on_epoch=keep)
        assert resumed.history == whole.history
        weights = resumed.network.state_dict()
        assert all(torch.equal(v, weights[k]) for k, v in whole.network.state_dict().items())

    def test_balanced_sampling_trains(self, options):
        fields = options | {"class_weights": "", "balanced_sampling": "kind", "epochs": 1}
        assert train_images(**fields).record["config"]["balanced_sampling"] == "kind"
