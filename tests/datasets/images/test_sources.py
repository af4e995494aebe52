import multiprocessing
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ipslib.config import ModelConfig, TrainingConfig
from ipslib.datasets.images import tiff
from ipslib.datasets.images.folders import PieceCache
from ipslib.datasets.images.sources import SourceBatch, open_source
from ipslib.errors import IpslibError
from ipslib.model.ips import IPSNet
from ipslib.patches import PatchGrid, TensorBatch, cut_image
from ipslib.selection import select_patches
from ipslib.training import forward_step
from tests.reference import random_network

CANVAS, P = (90, 70), 20
GRID = PatchGrid(CANVAS, P, P)
FEATURES = np.random.RandomState(3).standard_normal((40, 6)).astype(np.float32)
IMAGE_FILES = ("a.npy", "a.tif", "plain.tif", "a.png")


def drawn(seed: int) -> np.ndarray:
    """A few bright squares on black."""
    random, image = np.random.RandomState(seed), np.zeros(CANVAS, np.uint8)
    for row, col in random.randint(0, 60, (6, 2)):
        image[row : row + 12, col : col + 12] = random.randint(1, 256, (12, 12))[
            : 90 - row, : 70 - col
        ]
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One image in every kind of file, and a bag."""
    folder, image = tmp_path_factory.mktemp("sources"), drawn(0)
    np.save(folder / "a.npy", image)
    tifffile.imwrite(folder / "a.tif", image, tile=(16, 32), compression="zlib")
    tifffile.imwrite(folder / "plain.tif", image)
    Image.fromarray(image).save(folder / "a.png")
    with h5py.File(folder / "bag.h5", "w") as file:
        file["features"] = FEATURES
    return folder


def in_memory(*images: np.ndarray) -> TensorBatch:
    return TensorBatch(torch.stack([cut_image(image, GRID) for image in images]))


def every_pair(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of image and patch, in some order."""
    pairs = torch.cartesian_prod(torch.arange(batch.batch_size), torch.arange(batch.n_patches))
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    return tuple(pairs[order].T)


def test_one_image_reads_alike_from_every_kind_of_file(folder):
    paths = [folder / name for name in IMAGE_FILES]
    batch = SourceBatch([open_source(image, patch_size=P) for image in (drawn(0), *paths)])
    pairs = every_pair(batch)
    assert torch.equal(batch.read(*pairs), in_memory(*[drawn(0)] * 5).read(*pairs))


def test_every_image_of_a_batch_is_read_for_itself():
    images = [drawn(seed) for seed in range(3)]
    batch = SourceBatch([open_source(image, patch_size=P) for image in images])
    pairs = every_pair(batch)
    assert (batch.batch_size, batch.n_patches, batch.blank) == (3, 20, None)
    assert torch.equal(batch.read(*pairs), in_memory(*images).read(*pairs))


def test_options_reach_the_file_that_takes_them(folder):
    source = open_source(str(folder / "a.tif"), patch_size=20, patch_stride=10, level=0)
    assert source.grid == PatchGrid(CANVAS, 20, 10)
    assert open_source(folder / "bag.h5").n_patches == len(FEATURES)


def test_a_network_sees_no_difference_to_images_in_memory(folder):
    images = [drawn(seed) for seed in range(3)]
    batch = SourceBatch([open_source(image, patch_size=P) for image in images])
    network = random_network(1)
    outputs = [
        network(each, generator=torch.Generator().manual_seed(0))
        for each in (batch, in_memory(*images))
    ]
    assert torch.equal(outputs[0].selection.indices, outputs[1].selection.indices)
    for task, logits in outputs[0].logits.items():
        assert torch.equal(logits, outputs[1].logits[task])


def test_a_training_step_reads_its_labels_from_the_batch():
    torch.manual_seed(0)
    network = IPSNet(ModelConfig(width=0.125, n_heads=4, memory_size=6, iter_size=4), {"sign": 3})
    labels = {"sign": torch.tensor([2, 0])}
    batch = SourceBatch([open_source(drawn(s), patch_size=P) for s in range(2)], labels=labels)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    totals = []
    for _ in range(8):
        _, losses, _ = forward_step(network, batch, TrainingConfig(), torch.Generator())
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        totals.append(losses.total.item())
    assert totals[-1] < totals[0]


def test_selection_from_a_bag_keeps_its_best_rows(folder):
    batch = SourceBatch([open_source(folder / "bag.h5")])
    query = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    selection = select_patches(
        batch, lambda x: x, lambda x, index: x @ query, memory_size=7, iter_size=5
    )
    best = (torch.from_numpy(FEATURES) @ query)[:, 0].argsort(descending=True)[:7]
    assert selection.indices[0].tolist() == best.tolist()


def test_patches_known_to_be_blank_are_never_read(tmp_path):
    tiles = np.full((2, 16, 16), 9, np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, iter([*tiles, None, None]), shape=(32, 32), dtype=np.uint8, tile=(16, 16)
    )
    image = np.zeros((32, 32), np.uint8)
    batch = SourceBatch([open_source(image, patch_size=8), open_source(path, patch_size=8)])
    assert batch.blank.tolist() == [[False] * 16, [False] * 8 + [True] * 8]
    assert batch.read(*every_pair(batch)).sum() == 2 * 16 * 16 * 9


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_sources_go_to_other_processes_open_or_not(folder, start, monkeypatch):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {start}")
    monkeypatch.setattr(tiff, "PIECES", PieceCache(1))  # a forked process reads the file too
    sources = [open_source(folder / name, patch_size=P) for name in IMAGE_FILES]
    sources += [open_source(np.load(folder / "a.npy", mmap_mode="r"), patch_size=P)]
    sources += [open_source(folder / "bag.h5")]
    everything = [source.read(torch.arange(source.n_patches)).numpy() for source in sources]
    with multiprocessing.get_context(start).Pool(2) as pool:
        read = pool.map_async(read_often, sources * 20, chunksize=1).get(timeout=60)
    for there, here in zip(read, everything * 20, strict=True):
        assert np.array_equal(there, here)


def read_often(source) -> np.ndarray:
    """Patch by patch, so that processes that shared a handle would meet."""
    patches = [source.read(torch.tensor([patch])) for patch in range(source.n_patches)]
    return torch.cat(patches).numpy()


@pytest.mark.parametrize(
    ("other", "got"),
    [
        (np.zeros((130, 70), np.uint8), "28 patches of 1 x 20 x 20 uint8"),
        (np.zeros((90, 70, 3), np.uint8), "20 patches of 3 x 20 x 20 uint8"),
        (np.zeros((90, 70)), "20 patches of 1 x 20 x 20 float32"),
    ],
)
def test_images_of_a_batch_are_alike(folder, other, got):
    sources = [open_source(folder / "a.npy", patch_size=P), open_source(other, patch_size=P)]
    said = rf"sources\[1\].* uint8 as in .*a\.npy, got {got}; bring"
    with pytest.raises(IpslibError, match=said):
        SourceBatch(sources)


def test_a_batch_needs_an_image_and_a_label_for_each():
    with pytest.raises(IpslibError, match="at least one image, got none"):
        SourceBatch([])
    with pytest.raises(IpslibError, match="labels of sign: wanted 1, one an image, got 2"):
        SourceBatch([open_source(drawn(0), patch_size=P)], labels={"sign": torch.zeros(2)})


def test_what_cannot_be_opened_is_said_in_a_sentence(folder, tmp_path):
    (tmp_path / "a.gif").touch()
    (tmp_path / "noname").touch()
    for image, options, said in [
        (
            tmp_path / "absent.tif",
            {"patch_size": P},
            "absent.tif: wanted an image file, found noth",
        ),
        (
            tmp_path / "absent.xyz",
            {"patch_size": P},
            "absent.xyz: wanted an image file, found noth",
        ),
        (
            tmp_path / "a.gif",
            {"patch_size": P},
            "a.gif: wanted an image or a feature bag, got .gif",
        ),
        (tmp_path / "noname", {"patch_size": P}, "got a file without a suffix (valid: .h5"),
        (folder / "a.png", {}, "a.png: wanted a patch_size in pixels, got none"),
        (folder / "a.png", {"patch_size": P, "level": 1}, "a.png: wanted no level for"),
        (folder / "bag.h5", {"patch_size": P}, "bag.h5: wanted no patch_size for"),
        (np.zeros((9, 9)), {}, "array: wanted a patch_size in pixels, got none"),
    ]:
        with pytest.raises(IpslibError) as refusal:
            open_source(image, **options)
        assert said in str(refusal.value) and str(refusal.value).endswith(".")
