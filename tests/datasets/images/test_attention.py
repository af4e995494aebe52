"""What a network keeps of one image, and the same as GeoJSON."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import torch

from ipslib.config import ModelConfig
from ipslib.datasets.images.attention import (
    COLOURS,
    Attention,
    attention_of,
    colours,
    ranks,
    to_geojson,
)
from ipslib.datasets.images.sources import SourceBatch, open_source
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.datasets.slides.bags import SlideBag
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.patches import MixedBatch, TensorBatch
from ipslib.training import answer, attend

M, P = 5, 16
PHOTO = np.random.RandomState(0).randint(0, 256, (70, 90, 3), np.uint8)


def network_for(n_classes: dict, in_channels: int, **changes) -> IPSNet:
    torch.manual_seed(0)
    sizes = {"width": 0.125, "n_heads": 4, "memory_size": M, "iter_size": M}
    config = ModelConfig(**sizes | {"position_encoding": False} | changes)
    return IPSNet(config, n_classes, in_channels=in_channels)


def of_digits(small_data) -> Attention:
    data = MegapixelMNIST(small_data(), "test")
    return attention_of(network_for(data.config.n_classes, 1, memory_size=12), data.batch([2]))


def of_photo(path, **cut) -> Attention:
    batch = SourceBatch([open_source(path, patch_size=P, **cut)])
    return attention_of(network_for({"sign": 2}, 3), MixedBatch([batch]))


def of_slide(folder, **attributes) -> tuple[Attention, np.ndarray]:
    corners = np.array([[448 + 224 * (i % 7), 224 * (i // 7)] for i in range(40)])
    path = folder / "slide.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.random.RandomState(1).standard_normal((40, 6)).astype(np.float32)
        file["coords"] = corners
        file["coords"].attrs.update(attributes)
    network = network_for({"tumour": 2}, 6, encoder="features", width=1.0, n_heads=2)
    batch, classes = SourceBatch([SlideBag(path)]), {"tumour": ["normal", "tumour"]}
    kept = attend(network, batch)[0][0]
    return attention_of(network, batch, classes=classes), corners[np.sort(kept.numpy())]


def test_it_is_what_the_network_keeps_and_answers(small_data):
    data = MegapixelMNIST(small_data(), "test")
    network = network_for(data.config.n_classes, 1, memory_size=12).train()
    batch = data.batch([2])
    seen, output = attention_of(network, batch), answer(network, batch)
    assert network.training
    weights = output.attn_weights[0].double()
    order = weights.mean(dim=(0, 1)).argsort(descending=True)
    kept = output.selection.indices[0][order]
    assert np.array_equal(seen.corners, data.grid.corners(kept.numpy()))
    assert seen.mean() == pytest.approx(weights.mean(dim=(0, 1))[order].numpy())
    assert seen.mean("top", 3) == pytest.approx(weights[3, 2, order].numpy())
    assert seen.mean("top").sum() == pytest.approx(1)
    assert sum(seen.probabilities["max"].values()) == pytest.approx(1)
    assert seen.answers["max"] == str(output.logits["max"].argmax().item())
    several = output.logits["multi"][0]  # a set: every digit by itself
    assert list(seen.probabilities["multi"].values()) == pytest.approx(several.sigmoid().tolist())
    assert seen.answers["multi"] == "|".join(str(i) for i in range(10) if several[i] > 0)
    patches = batch.read(torch.zeros_like(kept), kept)
    alone = answer(network, TensorBatch(patches[:, None])).logits["max"].softmax(dim=1)
    np.testing.assert_allclose(seen.alone["max"], alone, atol=1e-5)


def test_an_image_of_few_patches_keeps_its_own(tmp_path):
    np.save(tmp_path / "a.npy", PHOTO[:P, : 2 * P])
    seen = of_photo(tmp_path / "a.npy")
    assert sorted(seen.corners.tolist()) == [[0, 0], [0, P]]
    assert seen.weights["sign"].sum(axis=1) == pytest.approx(1)


def test_what_has_no_place_or_name_is_refused(small_data, tmp_path):
    network, digits = network_for({"sign": 2}, 3), of_digits(small_data)
    image = open_source(PHOTO, patch_size=P)
    with pytest.raises(IpslibError, match="batch"):
        attention_of(network, MixedBatch([SourceBatch([image])] * 2))
    with pytest.raises(IpslibError, match="lie"):
        attention_of(network, TensorBatch(torch.zeros(1, 9, 3, P, P)))
    with pytest.raises(IpslibError, match="lie"):  # how large a patch is
        of_slide(tmp_path)
    with pytest.raises(IpslibError, match="task"):
        digits.mean("tops")
    with pytest.raises(IpslibError, match="head"):
        digits.mean("top", 4)
    with pytest.raises(IpslibError, match="object_type"):
        to_geojson(digits, object_type="tiles")


def test_equal_attention_has_equal_colours():
    assert ranks(np.array([0.1, 0.6, 0.3])).tolist() == [0, 1, 0.5]
    assert ranks(np.array([0.2, 0.2, 0.6])).tolist() == [0.25, 0.25, 1]
    assert ranks(np.ones(1)).tolist() == [0.5]
    assert colours(np.array([0, 0.5, 1])).tolist() == [list(COLOURS[i]) for i in (0, 2, 4)]


def test_a_level_of_a_pyramid_is_counted_in_pixels_of_level_0(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        options = {"photometric": "rgb", "tile": (16, 16)}
        tiff.write(np.kron(PHOTO, np.ones((4, 4, 1), np.uint8)), subifds=1, **options)
        tiff.write(PHOTO, subfiletype=1, **options)
    seen = of_photo(path, level=1)
    assert seen.patch_size == 4 * P
    assert not (seen.corners % (4 * P)).any() and seen.corners.max() > 70


def test_patches_of_a_slide_lie_where_its_bag_says(tmp_path):
    seen, corners = of_slide(tmp_path, patch_size_level0=224)
    assert sorted(seen.corners[:, ::-1].tolist()) == sorted(corners.tolist())
    assert seen.patch_size == 224
    assert set(seen.probabilities["tumour"]) == {"normal", "tumour"}


def test_another_reader_finds_the_patches_in_the_geojson(tmp_path, small_data):
    shapely = pytest.importorskip("shapely", reason="shapely, which reads GeoJSON, is not here")
    seen, path = of_digits(small_data), tmp_path / "kept.geojson"
    to_geojson(seen, path)
    polygons = shapely.from_geojson(path.read_text()).geoms
    for polygon, (top, left) in zip(polygons, seen.corners, strict=True):
        assert polygon.is_valid
        assert polygon.equals(shapely.box(left, top, left + seen.patch_size, top + seen.patch_size))


def test_geojson_says_what_qupath_shows(tmp_path, small_data):
    seen = of_digits(small_data)
    written = to_geojson(seen, tmp_path / "a.geojson", task="max", object_type="tile")
    assert json.loads((tmp_path / "a.geojson").read_text()) == written
    properties = [feature["properties"] for feature in written["features"]]
    assert {each["objectType"] for each in properties} == {"tile"}
    assert {each["classification"]["name"] for each in properties} == {seen.answers["max"]}
    measured = [each["measurements"] for each in properties]
    assert sum(each["attention"] for each in measured) == pytest.approx(1)
    assert [each["attention"] for each in measured] == pytest.approx(seen.mean("max"))
    alone = [[each[f"{digit} alone"] for digit in range(10)] for each in measured]
    np.testing.assert_allclose(alone, seen.alone["max"])
    assert [each["color"] for each in properties] == colours(ranks(seen.mean("max"))).tolist()
    of_all = to_geojson(seen, head=1)["features"][0]["properties"]
    assert of_all["measurements"]["attention"] == pytest.approx(seen.mean(head=1)[0])
    assert of_all["measurements"]["attention top"] == pytest.approx(seen.mean("top", 1)[0])
    assert of_all["classification"]["name"] == "kept patch"
