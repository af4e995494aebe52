import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from ipslib.datasets.images import photo
from ipslib.datasets.images.folders import PieceCache
from ipslib.datasets.images.photo import PhotoSource
from ipslib.errors import IpslibError
from ipslib.patches import PatchGrid, cut_image

P, S = 20, 15
IMAGE = np.random.RandomState(0).randint(0, 256, (67, 51, 3)).astype(np.uint8)


def cut(image: np.ndarray) -> torch.Tensor:
    image = image[:, :, None] if image.ndim == 2 else image
    return cut_image(np.array(image.transpose(2, 0, 1)), PatchGrid(image.shape[:2], P, S))


def patches_of(path) -> torch.Tensor:
    source = PhotoSource(path, patch_size=P, patch_stride=S)
    patches = pickle.loads(pickle.dumps(source)).read(torch.arange(source.n_patches))
    assert patches.dtype == source.dtype and patches.shape[1:] == source.patch_shape
    return patches


def test_a_png_is_read_as_it_is(tmp_path):
    for name, image in [("colour", IMAGE), ("grey", IMAGE[:, :, 0])]:
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        assert torch.equal(patches_of(tmp_path / f"{name}.png"), cut(image))


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.jpg")
    assert torch.equal(
        patches_of(tmp_path / "a.jpg"), cut(np.asarray(Image.open(tmp_path / "a.jpg")))
    )


def test_sixteen_bits_become_floats_to_1(tmp_path):
    image = IMAGE[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(image).save(tmp_path / "a.png")
    assert torch.equal(
        patches_of(tmp_path / "a.png"), cut(image.astype(np.float32) / np.float32(65535))
    )


@pytest.mark.parametrize(("mode", "channels"), [("P", 3), ("RGBA", 3), ("LA", 1), ("1", 1)])
def test_palettes_and_transparency_become_plain_colour_and_grey(tmp_path, mode, channels):
    Image.fromarray(IMAGE).convert(mode).save(tmp_path / "a.png")
    plain = Image.open(tmp_path / "a.png").convert("RGB" if channels == 3 else "L")
    assert torch.equal(patches_of(tmp_path / "a.png"), cut(np.asarray(plain)))


def test_an_image_is_decoded_once_while_the_cache_holds_it(tmp_path, monkeypatch):
    decoded, decode = [], PhotoSource._decode
    monkeypatch.setattr(PhotoSource, "_decode", lambda self: decoded.append(1) or decode(self))
    monkeypatch.setattr(photo, "PIECES", PieceCache(10**6))
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    source = PhotoSource(tmp_path / "a.png", patch_size=P)
    assert not decoded  # its size is known from the header
    for patch in range(source.n_patches):
        source.read(torch.tensor([patch]))
    assert len(decoded) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_torn_file_is_refused_by_name(tmp_path, suffix):
    """Where the header is left, when its pixels are read."""
    Image.fromarray(IMAGE).save(tmp_path / f"a.{suffix}")
    stored = (tmp_path / f"a.{suffix}").read_bytes()
    for length in range(0, len(stored) - 20, 97):
        path = tmp_path / f"torn_{length}.{suffix}"
        path.write_bytes(stored[:length])
        with pytest.raises(IpslibError, match=rf"torn_{length}\.{suffix}: wanted a .*again\.$"):
            patches_of(path)


def test_an_image_too_large_to_decode_is_sent_to_tiff(tmp_path, monkeypatch):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(IpslibError, match=r"a\.png: .*tiled TIFF, which is read in part\.$"):
        PhotoSource(tmp_path / "a.png", patch_size=P)
