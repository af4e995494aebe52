"""One file takes a trained network elsewhere: it answers there what it answered here."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import nn

from ipslib import IPSNet, ModelConfig, TrainedImages, load, load_original
from ipslib.errors import IpslibError
from ipslib.runs import model_file
from ipslib.runs.train_images import train_images
from tests.datasets.images.test_own_images import write_images
from tests.runs.test_train_images import SMALL
from tests.test_package import STUDY, without

BEYOND_THE_CORE = f"{STUDY} distributed h5py jinja2 openslide skimage timm"
ANSWER = """
import sys, numpy, torch
from ipslib import load
torch.set_num_threads(1)
model, image = load(sys.argv[1]), numpy.load(sys.argv[2])
table, attention = model.predict(image), model.attention(image)
print(table[["bright", "dim"]].to_numpy().tobytes().hex())
print(attention.weights["kind"].tobytes().hex())
model.attention_map(image), model.to_geojson(image), model.attention_page(image, sys.argv[3])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, n=12)
    few = SMALL | {"epochs": 2, "position_encoding": True, "patch_stride": 7}
    return train_images(folder / "labels.csv", folder=folder / "runs", **few)


@pytest.fixture
def path(trained, tmp_path):
    return trained.save(tmp_path / "model.ipslib")


@pytest.fixture
def image():
    return np.random.RandomState(0).randint(0, 256, (90, 70), np.uint8)


def test_it_answers_the_same_with_the_packages_of_the_core_alone(trained, path, image, tmp_path):
    np.save(tmp_path / "image.npy", image)
    files = [str(path), str(tmp_path / "image.npy"), str(tmp_path / "page.html")]
    done = without(BEYOND_THE_CORE, f"import sys\nsys.argv = {['', *files]!r}\n{ANSWER}")
    assert done.returncode == 0, done.stderr
    table, attention = trained.predict(image), trained.attention(image)
    shares, weights = (bytes.fromhex(each) for each in done.stdout.split())
    assert shares == table[["bright", "dim"]].to_numpy().tobytes()
    assert weights == attention.weights["kind"].tobytes()


def test_it_says_what_it_is_and_not_where_it_was_made(trained, path):
    draws = torch.get_rng_state()
    loaded = load(path)
    assert torch.equal(torch.get_rng_state(), draws)
    assert loaded.accuracy == trained.accuracy and loaded.chance == trained.chance
    assert loaded.config.model == trained.config.model
    assert loaded.config.data.classes == {"kind": ["bright", "dim"]}
    assert "ipslib" in loaded.written_by and "arithmetic" in loaded.written_by
    assert str(path.parent.parent).encode() not in path.read_bytes()
    again = loaded.save(path.with_name("again"))
    assert load(again).written_by == loaded.written_by
    assert again.read_bytes() == path.read_bytes()


def refusal(path, **options):
    with pytest.raises(IpslibError) as refused:
        load(path, **options)
    said = str(refused.value)
    assert path.name in said and "\n" not in said
    return said


def changed(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: changed(content, content.index(b'"in_channels') + 3),
        lambda content: changed(content, len(content) - 1),
        lambda content: save({"weight": torch.zeros(2)}),
        lambda content: pickle.dumps({"weight": 2}),
        lambda content: b"image,kind\n",
    ],
)
def test_a_torn_a_changed_and_another_file_are_refused(path, spoil):
    path.write_bytes(spoil(path.read_bytes()))
    refusal(path)


def test_no_file_is_refused(tmp_path):
    refusal(tmp_path)  # a folder
    refusal(tmp_path / "none.ipslib")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 2, "ipslib": "9.8.7"}, "9.8.7"),
        ({"config": {"encoder": "resnet19"}}, "resnet19"),
        ({"config": {"encoder": "resnet50"}}, "weights"),
        ({"config": {"new_field": 3}, "ipslib": "9.8.7"}, "9.8.7"),
        ({"config": {"classes": {"kind": ["a", "b", "c"]}}}, "weights"),
    ],
    ids=str,
)
def test_a_file_of_a_later_version_or_another_network_is_refused(path, changes, named):
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["ipslib"])
    weights = load_file(path)
    about |= changes | {"config": about["config"] | changes.get("config", {})}
    del about["sha256"]
    about["sha256"] = model_file._digest(about, weights)
    save_file(weights, path, {"ipslib": json.dumps(about)})
    assert named in refusal(path)


def test_other_arithmetic_is_said(path, monkeypatch):
    monkeypatch.setattr(model_file, "ARITHMETIC", 99)
    with pytest.warns(UserWarning, match="arithmetic"):
        load(path)


def test_an_encoder_of_ones_own_is_given_again(image, tmp_path):
    def encoder(dim=6):
        layers = nn.Conv2d(1, dim, 3), nn.BatchNorm2d(dim), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten())

    config = ModelConfig(n_heads=3, memory_size=4, iter_size=4)
    network = IPSNet(config, {"kind": 3}, patch_size=20, encoder=encoder())
    model = TrainedImages.of(network, patch_size=20, classes={"kind": ["a", "b", "c"]})
    path = model.save(tmp_path / "model.ipslib")
    assert load(path, encoder=encoder()).predict(image).equals(model.predict(image))
    assert "encoder" in refusal(path)
    assert "weights" in refusal(path, encoder=encoder(dim=12))


def test_where_weights_to_start_from_lay_is_not_told(image, tmp_path):
    config = ModelConfig(n_stages=1, memory_size=4, iter_size=4, weights=f"{tmp_path}/weights.pth")
    network = IPSNet(config, {"kind": 3}, patch_size=20, pretrained=False)
    model = TrainedImages.of(network, patch_size=20)
    path = model.save(tmp_path / "model.ipslib")
    assert load(path).predict(image).equals(model.predict(image))
    assert str(tmp_path).encode() not in path.read_bytes()


def test_an_original_checkpoint_is_converted(shared, tmp_path):
    original = load_original(shared / "checkpoints" / "original_84px_400noise_1500.pth")
    digits = {"majority": [f"digit {i}" for i in range(10)]}
    sets = {"several": ["multi"]}
    model = TrainedImages.of(original, patch_size=50, classes=digits, **sets)
    image = np.random.RandomState(0).randint(0, 256, (400, 300), np.uint8)
    opened = load(model.save(tmp_path / "model.ipslib"))
    table = opened.predict(image)
    assert table.equals(model.predict(image)) and len(table) == 4
    assert table["predicted"][0].startswith("digit ") and opened.accuracy == {}
    assert table.loc[3, [str(i) for i in range(10)]].sum() != pytest.approx(1)  # each for itself
    for wrong in ({"classes": {"minority": ["a", "b"]}}, {"several": ["mutli"]}):
        with pytest.raises(IpslibError, match="classes"):
            TrainedImages.of(original, patch_size=50, **wrong)
