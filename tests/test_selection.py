from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ipslib import selection
from ipslib.datasets.images.sources import SourceBatch
from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.patches import MixedBatch, TensorBatch
from ipslib.selection import NotFiniteError, NotFiniteScoreError, attention_scores, select_patches
from tests.reference import PlainIPS, all_known_blank, dense_bag, random_network
from tests.waits import Waits


def visiting_order(network, n_patches, seed):
    """The permutation that the network draws first from a generator of this seed."""
    if not network.config.shuffle:
        return None
    return torch.randperm(n_patches, generator=torch.Generator().manual_seed(seed))


def select_both(network, batch, seed=0):
    ours = network.select(batch, generator=torch.Generator().manual_seed(seed))
    order = visiting_order(network, batch.n_patches, seed)
    return ours, PlainIPS(network).select(dense_bag(batch), order=order)


@pytest.fixture
def scenes(small_data):
    """Batches of Megapixel MNIST of 90 patches, about a third of them blank."""

    def build(indices=(0, 1, 2), **changes):
        changes = {"canvas": (260, 230), "n_noise": 14} | changes
        return MegapixelMNIST(small_data(**changes), "test").batch(indices)

    return build


@pytest.mark.parametrize(
    ("memory_size", "iter_size", "n_images", "shuffle"),
    [
        (6, 4, 3, False),
        (6, 4, 3, True),
        (1, 1, 1, True),
        (10, 20, 3, True),  # 90 patches: four whole blocks
        (6, 5, 2, False),  # the last block holds 4
        (7, 89, 2, True),  # a single block, smaller than I
        (89, 1, 1, True),  # M = N - 1
    ],
)
@pytest.mark.parametrize("window_size", [4096, 8])
def test_keeps_the_patches_of_the_plain_algorithm(
    scenes, monkeypatch, memory_size, iter_size, n_images, shuffle, window_size
):
    monkeypatch.setattr(selection, "WINDOW_SIZE", window_size)
    batch = scenes(range(n_images))
    assert 0.1 < all_known_blank(batch).double().mean() < 0.9
    network = random_network(5, memory_size=memory_size, iter_size=iter_size, shuffle=shuffle)
    ours, plain = select_both(network, batch)
    assert torch.equal(ours.indices.sort().values, plain.indices.sort().values)
    torch.testing.assert_close(ours.scores, plain.scores)


@pytest.mark.parametrize("seed", range(3))
def test_without_positions_blank_patches_tie_and_the_others_are_those_of_the_plain_algorithm(
    scenes, seed
):
    batch = scenes([seed, seed + 1])
    network = random_network(seed, position_encoding=False, memory_size=40, iter_size=7)
    ours, plain = select_both(network, batch)
    torch.testing.assert_close(ours.scores, plain.scores)
    for image, blank in enumerate(all_known_blank(batch)):
        ours_inked, plain_inked = (
            {p for p in kept.indices[image].tolist() if not blank[p]} for kept in (ours, plain)
        )
        assert ours_inked == plain_inked


def test_known_blank_patches_are_never_read(scenes):
    batch = scenes()
    blank, read, wanted = all_known_blank(batch), batch.read, []
    batch.read = lambda image, patch: wanted.append(blank[image, patch]) or read(image, patch)
    random_network(0).select(batch, generator=torch.Generator())
    first, *rest = wanted  # the first read learns the shape of a patch
    assert len(first) == 1
    assert not torch.cat(rest).any()


def of_feature(features, _index):
    """A score that a patch has by itself: its first feature."""
    return features[:, :1]


def select(batch, **changes):
    """Of feature bags, by the first feature of each, whatever else is in the set."""
    embed, score_set = lambda features: features, lambda logits: logits[..., 0]
    how = {"embed": embed, "score": of_feature, "score_set": score_set}
    return select_patches(batch, **how | changes)


@settings(max_examples=60, deadline=None)
@given(
    n_images=st.integers(1, 3),
    n_patches=st.integers(1, 40),
    memory_size=st.integers(1, 45),
    iter_size=st.integers(1, 45),
    window_size=st.sampled_from([1, 13, 4096]),
    read_values=st.sampled_from([1, 7, 320_000]),
    in_set=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_scores_of_patches_by_themselves_select_the_best_of_all_in_any_order(
    n_images, n_patches, memory_size, iter_size, window_size, read_values, in_set, seed
):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n_images, n_patches, generator=generator).argsort(dim=1) / n_patches
    bag = torch.stack([values, torch.ones_like(values)], dim=2)  # (B, N, 2) feature bags
    how = {"memory_size": memory_size, "iter_size": iter_size}
    how |= {"order": torch.randperm(n_patches, generator=generator)}
    if in_set:  # of one head and one query: a softmax over any set keeps the order of its logits
        how |= {"score_set": attention_scores}
    with mock.patch.multiple(selection, WINDOW_SIZE=window_size, _CHUNK_VALUES=read_values):
        chosen = select(TensorBatch(bag), **how)
    if memory_size >= n_patches:
        assert torch.equal(chosen.indices, torch.arange(n_patches).expand(n_images, -1))
        assert chosen.scores is None
    else:
        assert torch.equal(chosen.indices, values.topk(memory_size, dim=1).indices)


class Endless:
    """Any number of patches that are made when they are read, and never held."""

    def __init__(self, n_patches, batch_size=2):
        self.n_patches, self.batch_size, self.reads = n_patches, batch_size, []

    def read(self, image, patch):
        self.reads.append(len(patch))
        value = (patch * 7919 + image * 104729) % 251
        return value[:, None, None, None].expand(-1, 1, 8, 8).to(torch.uint8)


class LargestValues(TorchDispatchMode):
    """The most bytes of pixels, embeddings or logits that any tensor held."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.dtype in (torch.float32, torch.uint8):
                self.largest = max(self.largest, each.untyped_storage().nbytes())
        return result


def test_memory_does_not_grow_with_the_number_of_patches():
    largest = {}
    for n_patches in (9_000, 36_000):
        batch = Endless(n_patches)
        embed = lambda patches: patches.float().flatten(1)  # noqa: E731
        with LargestValues() as watch:
            chosen = select(batch, embed=embed, memory_size=5, iter_size=100)
        assert chosen.indices.shape == (2, 5)
        assert (chosen.scores == 250).all()
        assert sum(batch.reads) >= 2 * n_patches  # all were read, never many at a time
        assert max(batch.reads) <= selection._READ_CHUNKS * selection._CHUNK_VALUES // 64
        largest[n_patches] = watch.largest
    bound = 4 * selection._READ_CHUNKS * selection._CHUNK_VALUES  # bytes of float32
    assert largest[9_000] == largest[36_000] <= bound


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (-1, 5)])
def test_sizes_below_one_are_refused(sizes):
    batch, (memory_size, iter_size) = TensorBatch(torch.ones(1, 4, 2)), sizes
    with pytest.raises(IpslibError, match="memory_size"):
        select(batch, memory_size=memory_size, iter_size=iter_size)


class TestNotFinite:
    """One value that is not a number makes every score of its set one that is not."""

    def select(self, bag, **how):
        query = torch.linspace(-1, 1, bag.shape[2])[:, None]
        how = {"score_set": attention_scores, "memory_size": 10, "iter_size": 50} | how
        return select(TensorBatch(bag), score=lambda rows, _: rows.float() @ query, **how)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_a_patch_is_named_and_refused_wherever_it_lies(self, value, dtype):
        for image, patch in ((0, 0), (1, 150), (1, 199)):
            bag = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
            bag[image, patch, 3] = value
            with pytest.raises(NotFiniteError, match=f"patch {patch} of image {image}"):
                self.select(bag)

    def test_large_numbers_are_numbers(self):
        bag = torch.full((1, 200, 8), 60_000.0, dtype=torch.float16)  # more in all than it holds
        assert self.select(bag, score_set=lambda logits: logits[..., 0]).indices.shape == (1, 10)

    def test_a_score_of_a_sound_patch_is_laid_on_the_weights(self):
        score = lambda _, index: torch.where(index == 7, torch.nan, 1.0)[:, None]  # noqa: E731
        with pytest.raises(NotFiniteScoreError, match="patch 7:"):
            select(TensorBatch(torch.ones(1, 20, 2)), score=score, memory_size=3, iter_size=4)

    def test_on_an_accelerator_it_is_the_lowest_of_all_and_nothing_waits(self, monkeypatch):
        monkeypatch.setattr(selection, "is_accelerator", lambda device: True)
        values = torch.rand(1, 40, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
        scores, bag = values[0, :, None].float(), torch.ones(1, 40, 2, dtype=torch.uint8)
        how = {"embed": torch.Tensor.float, "score": lambda _, index: scores[index]}
        how |= {"score_set": attention_scores}
        for odd in (torch.nan, torch.inf, -torch.inf):
            scores[values[0].argmax()] = odd
            with Waits() as waits:
                kept = select(TensorBatch(bag), memory_size=5, iter_size=7, **how)
            best = values.masked_fill(values == values.max(), -1).topk(5).indices
            assert torch.equal(kept.indices, best)
            assert waits.seen == ["nonzero"]  # of the host's own table

    @pytest.mark.parametrize("memory_size", [2, 5, 100])
    def test_a_network_refuses_it_by_the_name_of_the_image(self, memory_size):
        def named(rows):
            about = {"blank": None, "name": "s.h5", "n_patches": 5, "patch_shape": (6,)}
            return SimpleNamespace(read=rows.__getitem__, dtype=torch.float32, **about)

        small = {"encoder": "features", "width": 1 / 16, "memory_size": memory_size, "iter_size": 2}
        network = random_network(0, {"a": 2}, in_channels=6, **small)
        sound, odd = torch.ones(5, 6), torch.ones(5, 6)
        odd[3, 1] = torch.nan
        for batch in (
            SourceBatch([named(sound), named(odd)]),
            MixedBatch([SourceBatch([named(rows)]) for rows in (sound, odd)]),
        ):
            with pytest.raises(NotFiniteError, match=r"s\.h5, patch 3:"):
                network(batch, generator=torch.Generator())
