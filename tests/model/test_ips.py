import attrs
import pytest
import torch

from ipslib.datasets.megapixel_mnist.config import TASKS
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.model.encoder import normalised
from ipslib.patches import MixedBatch, TensorBatch
from ipslib.selection import novelty_scores
from tests.reference import PlainIPS, dense_bag, random_network, seeded


@pytest.fixture
def batch(small_data):
    """3 images of 90 patches."""
    return MegapixelMNIST(small_data(canvas=(260, 230), n_noise=14), "test").batch([0, 1, 2])


def test_patches_by_lot_are_as_many_others_for_each_image_and_each_draw(batch):
    network = random_network(0)
    network.config = attrs.evolve(network.config, selection="random")
    drawn = torch.cat([network.select(batch, generator=seeded(i)).indices for i in range(300)])
    assert (drawn.sort(dim=1).values.diff(dim=1) > 0).all()  # none twice
    assert len(drawn.unique(dim=0)) > 890  # of 900
    counts = drawn.flatten().bincount(minlength=batch.n_patches)
    expected = drawn.numel() / batch.n_patches
    assert (counts > 0.4 * expected).all() and (counts < 1.8 * expected).all()
    network.config = attrs.evolve(network.config, memory_size=batch.n_patches + 5)
    assert network.select(batch, generator=seeded()).indices.shape == (3, batch.n_patches)


@pytest.mark.parametrize(("seed", "memory_size"), [(0, 6), (1, 6), (2, 60)])
def test_evaluation_is_the_plain_algorithm(batch, seed, memory_size):
    network = random_network(seed, dict.fromkeys(TASKS, 10), memory_size=memory_size)
    order = torch.randperm(batch.n_patches, generator=seeded(seed))
    with torch.no_grad():
        ours = network(batch, generator=seeded(seed))
        plain = PlainIPS(network)(dense_bag(batch), order=order)
    assert torch.equal(ours.selection.indices, plain.selection.indices)
    for part, expected in plain._asdict().items():
        if part not in ("selection", "embeddings"):  # which the plain one has otherwise, or not
            torch.testing.assert_close(getattr(ours, part), expected, atol=1e-5, rtol=1e-4)


def test_novelty_keeps_what_is_rare_whichever_way_it_deviates(batch):
    logits = torch.zeros(1, 50, 3)
    logits[0, 7], logits[0, 31] = 2, -2
    assert {*novelty_scores(logits).topk(2).indices[0].tolist()} == {7, 31}

    network = random_network(0).train()
    network.by_novelty = True

    def kept():
        indices = network.select(batch, generator=seeded()).indices
        return indices.sort(dim=1).values.tolist()

    selected = kept()
    with torch.no_grad():
        network.pool.query.neg_()
    assert kept() == selected
    network.eval()  # which selects by attention
    assert kept() != selected


class NormalisedBatch(TensorBatch):
    normalised = True


def test_one_picture_is_normalised_once_whatever_its_depth():
    """For weights of ImageNet, which are not at hand: what the network does with pixels counts."""
    network = random_network(3, in_channels=3, width=1, shuffle=False)
    network.config = attrs.evolve(network.config, weights="imagenet_v1")
    pixels = torch.randint(0, 256, (2, 9, 3, 20, 20), dtype=torch.uint8, generator=seeded())
    expected = network(TensorBatch(pixels), generator=seeded())
    parts = [TensorBatch(pixels[:1]), TensorBatch(pixels[1:] / 255)]
    normalised_before = NormalisedBatch(normalised(pixels.flatten(0, 1)).unflatten(0, (2, 9)))
    for batch in (TensorBatch(pixels / 255), MixedBatch(parts), normalised_before):
        output = network(batch, generator=seeded())
        for task, logits in expected.logits.items():
            torch.testing.assert_close(output.logits[task], logits, atol=1e-4, rtol=1e-3)
