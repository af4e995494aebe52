import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from ipslib.datasets.traffic_signs import image
from ipslib.datasets.traffic_signs.augment import Augmentation, augmented
from ipslib.datasets.traffic_signs.image import SignImage, decode, inspect_image
from ipslib.errors import IpslibError
from ipslib.model.imagenet import normalised
from ipslib.patches import PatchGrid, cut_image

P, S = 20, 15
CANVAS = (65, 85)
PIXELS = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)


@pytest.fixture
def path(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


def source_of(path, **options) -> SignImage:
    return SignImage(path, canvas=CANVAS, patch_size=P, patch_stride=S, **options)


def resized(path, canvas=CANVAS) -> torch.Tensor:
    """By torchvision, as published: (3, H, W) uint8."""
    return functional.pil_to_tensor(functional.resize(Image.open(path), list(canvas)))


def test_patches_are_those_of_the_resized_image(path):
    source = pickle.loads(pickle.dumps(source_of(path)))
    patches = source.read(torch.arange(source.n_patches))
    assert patches.dtype == source.dtype == torch.uint8
    assert patches.shape[1:] == source.patch_shape
    assert torch.equal(patches, cut_image(resized(path), PatchGrid(CANVAS, P, S)))


def test_what_hangs_over_an_edge_is_black(path):
    source = source_of(path)
    rows, cols = source.grid.shape
    inside = CANVAS[1] - (cols - 1) * S
    assert inside < P
    corner = source.read(torch.tensor([rows * cols - 1]))
    assert not corner[..., inside:].any() and corner[..., :inside].any()


def test_an_augmented_image_is_resized_first(path):
    augmentation = Augmentation((("brightness", 0.9), ("hue", 0.04)), (3, -5))
    image = functional.resize(Image.open(path), list(CANVAS))
    expected = np.asarray(augmented(image, augmentation))
    assert np.array_equal(source_of(path, augmentation=augmentation).pixels, expected)


def test_a_grey_image_is_read_as_colour(tmp_path):
    Image.fromarray(PIXELS[:, :, 0]).save(tmp_path / "grey.jpg")
    pixels = decode(tmp_path / "grey.jpg", CANVAS, None)
    assert pixels.shape == (*CANVAS, 3)
    assert np.array_equal(pixels[..., 0], pixels[..., 2]) and np.ptp(pixels) > 0


def test_an_image_is_decoded_once_and_travels_without_its_pixels(path, monkeypatch):
    decoded = []
    monkeypatch.setattr(image, "decode", lambda *args: decoded.append(1) or decode(*args))
    source = source_of(path)
    assert not decoded
    for patch in range(source.n_patches):
        source.read(torch.tensor([patch]))
    assert len(decoded) == 1
    assert len(pickle.dumps(source)) < 2000 < source.pixels.nbytes


def test_a_sound_image_is_inspected_without_decoding_it(path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert inspect_image(path) == ((48, 64), "", "")


def test_padding_behind_a_jpeg_is_no_damage(path):
    path.write_bytes(path.read_bytes() + bytes(500))
    assert inspect_image(path).size == (48, 64)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_a_torn_image_is_one_sentence(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    seen = inspect_image(path)
    assert (seen.size, seen.kind) == (None, "damaged image")
    assert "a.jpg: wanted a readable file" in seen.sentence and seen.sentence.endswith("again.")
    with pytest.raises(IpslibError, match=r"a\.jpg: wanted a readable file, .*again\.$"):
        source_of(path).read(torch.tensor([0]))


def test_a_missing_image_is_one_sentence(tmp_path):
    seen = inspect_image(tmp_path / "gone.jpg")
    assert (seen.size, seen.kind) == (None, "missing image")
    assert "gone.jpg: wanted an image" in seen.sentence and "delete its line" in seen.sentence


def test_the_real_photographs(shared):
    """Two are at hand: as published they become 192 patches of 100 px."""
    paths = sorted((shared / "traffic_signs").glob("*.jpg"))
    if not paths:
        pytest.skip("../shared holds no photographs of traffic signs")
    for path in paths:
        assert inspect_image(path).size == (960, 1280)
        source = SignImage(path, canvas=(1200, 1600), patch_size=100)
        assert source.n_patches == 192
        patches = source.read(torch.arange(192))
        assert torch.equal(patches, cut_image(resized(path, (1200, 1600)), source.grid))
        assert 0.5 < float(normalised(patches).std()) < 2.5  # of one order with ImageNet
