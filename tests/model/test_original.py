"""An original checkpoint answers what ../shared/checkpoints says. `IPSLIB_TEST_IMAGES=240` draws
that many images for the accuracies; the default is few enough for every day."""

import json
import os
import re

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact

from ipslib.datasets.megapixel_mnist.config import MegapixelMNISTConfig
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.metrics import touches
from ipslib.model.original import load_original
from ipslib.patches import PatchGrid, TensorBatch, cut_image
from ipslib.training import evaluate

N_IMAGES = int(os.environ.get("IPSLIB_TEST_IMAGES") or 16)
N_THEIR_IMAGES = 48
CANVAS, PATCH = (1500, 1500), 50


@pytest.fixture
def path(shared):
    return shared / "checkpoints" / "original_84px_400noise_1500.pth"


@pytest.fixture
def expected(shared):
    return np.load(shared / "checkpoints" / "expected_84px_400noise_1500.npz")


@pytest.fixture
def state(path):
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("image", range(3))
def test_it_keeps_and_answers_what_the_original_code_did(path, expected, image):
    pixels = np.zeros(CANVAS, np.uint8)
    pixels.flat[expected[f"index_{image}"]] = expected[f"value_{image}"]
    grid = PatchGrid(CANVAS, PATCH, PATCH)
    network = load_original(path, shuffle=False, memory_size=100, iter_size=100)
    with torch.no_grad():
        output = network(TensorBatch(cut_image(pixels, grid)[None]), generator=torch.Generator())
    kept, scores, _ = output.selection
    assert kept[0].tolist() == expected[f"kept_{image}"].tolist()
    assert np.allclose(scores[0], expected[f"attention_{image}"], atol=1e-6)
    for task in ("majority", "max", "top"):
        ours = output.logits[task][0].softmax(dim=0)
        assert np.allclose(ours, expected[f"{task}_{image}"], atol=1e-4), task
    assert np.allclose(output.logits["multi"][0].sigmoid(), expected[f"multi_{image}"], atol=1e-4)
    branches = output.branch_logits["majority"][0].softmax(dim=1)
    assert np.allclose(branches, expected[f"branch_majority_{image}"], atol=1e-4)
    corners = torch.from_numpy(expected[f"digit_corners_{image}"])
    boxes = torch.cat([corners, torch.full_like(corners, 84)], dim=1)
    assert touches(grid, kept, boxes[None]).any(dim=-1).all()  # it looks at all five digits


def test_images_of_our_generator_are_as_hard_for_it_as_the_published_ones(
    path, expected, mnist_root
):
    sizes = {"canvas": CANVAS, "digit_size": 84, "n_noise": 400, "patch_size": PATCH}
    config = MegapixelMNISTConfig(noise="bezier_pixel", n_test=N_IMAGES, **sizes)
    found = evaluate(load_original(path), MegapixelMNIST(config, "test"), 4)
    print(f"\nof {N_IMAGES} images: {found.accuracy}")
    for task, stated in json.loads(str(expected["accuracy"])).items():
        theirs, ours = round(stated * N_THEIR_IMAGES), round(found.accuracy[task] * N_IMAGES)
        table = [[theirs, N_THEIR_IMAGES - theirs], [ours, N_IMAGES - ours]]
        assert fisher_exact(table).pvalue > 1e-3, (task, stated, found.accuracy[task])
    assert found.localisation.roi_recall > 0.95


def saved(tmp_path, content):
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    return path


def test_a_checkpoint_of_the_base_method_has_no_branch_map_and_answers_alike(path, state, tmp_path):
    base = {key: value for key, value in state.items() if ".fb." not in key}
    assert len(base) == len(state) - 1
    networks = load_original(saved(tmp_path, base)), load_original(path)
    bag = TensorBatch(torch.rand(1, 12, 1, 50, 50, generator=torch.Generator().manual_seed(0)))
    base, whole = (network(bag, generator=torch.Generator()) for network in networks)
    torch.testing.assert_close(base.logits, whole.logits)


def refused(path):
    with pytest.raises(IpslibError) as refusal:
        load_original(path)
    message = str(refusal.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_missing_or_torn_file_is_one_sentence(path, tmp_path):
    file, whole = tmp_path / "torn.pth", path.read_bytes()
    refused(tmp_path)  # a folder
    refused(file)
    for share in (0.0, 0.3, 0.99):
        file.write_bytes(whole[: int(share * len(whole))])
        refused(file)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    refused(saved(tmp_path, {"encoder.0.weight": Payload()}))
    assert not (tmp_path / "ran").exists()


def test_a_foreign_file_is_one_sentence(tmp_path):
    numbers = {"encoder.0.weight": 1, "transf.crs_attn.q": 2}
    for content in ({"fc.weight": torch.zeros(2, 2)}, {}, torch.zeros(3), numbers):
        assert "original checkpoint" in refused(saved(tmp_path, content))


def test_other_architectures_are_one_sentence(state, tmp_path):
    def without(pattern):
        return {key: value for key, value in state.items() if not re.search(pattern, key)}

    wider = state | {"transf.mlp.w_1.weight": torch.zeros(99, 128)}
    extra = state | {"transf.gate.weight": torch.zeros(1)}
    flat = state | {"transf.crs_attn.q": torch.zeros(128)}
    for other in (without("k_w"), without("encoder.5"), without("output"), wider, extra, flat):
        assert "original" in refused(saved(tmp_path, other))
