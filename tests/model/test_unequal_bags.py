"""Bags of unequal numbers of patches in one batch: each is answered as it is alone."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipslib.losses import combined_losses
from ipslib.patches import MixedBatch, TensorBatch
from tests.reference import random_network, seeded

M, IN_CHANNELS = 32, 12
TASKS = {"tumour": 2, "kind": 3}
CLOSE = {"atol": 1e-6, "rtol": 1e-5}


def network_of_bags(**config):
    config = {"memory_size": M, "iter_size": 7, "shuffle": False} | config
    config |= {"encoder": "features", "dropout": 0.0, "attn_dropout": 0.0}
    return random_network(0, TASKS, in_channels=IN_CHANNELS, **config)


def bags_of(sizes):
    random = seeded(sum(sizes))
    return [TensorBatch(torch.randn(1, n, IN_CHANNELS, generator=random)) for n in sizes]


def labels_of(sizes):
    return {task: torch.arange(len(sizes)) % n for task, n in TASKS.items()}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.booleans())
@example(sizes=[5, 20, 50], position_encoding=False)
@example(sizes=[50, 32, 31], position_encoding=True)
@example(sizes=[1, 1, 40], position_encoding=True)
def test_each_bag_is_answered_as_it_is_alone(sizes, position_encoding):
    network = network_of_bags(position_encoding=position_encoding)
    bags = bags_of(sizes)
    together = network(MixedBatch(bags), generator=seeded())
    kept = [min(M, n) for n in sizes]
    assert together.selection.indices.shape == (len(sizes), max(kept))
    assert (together.selection.real is None) == (len(set(kept)) == 1)
    for i, (bag, n) in enumerate(zip(bags, kept, strict=True)):
        alone = network(bag, generator=seeded())
        indices, weights = together.selection.indices[i], together.attn_weights[i]
        assert torch.equal(indices[:n], alone.selection.indices[0])
        assert (indices[n:] == -1).all() and (weights[..., n:] == 0).all()
        torch.testing.assert_close(weights[..., :n], alone.attn_weights[0], **CLOSE)
        torch.testing.assert_close(together.head_outputs[i], alone.head_outputs[0], **CLOSE)
        for task in TASKS:
            torch.testing.assert_close(together.logits[task][i], alone.logits[task][0], **CLOSE)
            branches = together.branch_logits[task][i], alone.branch_logits[task][0]
            torch.testing.assert_close(*branches, **CLOSE)


@pytest.mark.parametrize("diversity_on", ["attention", "outputs"])
@pytest.mark.parametrize("sizes", [(5, 20, 50), (40, 1)])
def test_losses_and_gradients_are_the_mean_of_those_of_each_alone(sizes, diversity_on):
    weights = {"semantic_weight": 0.5, "diversity_weight": 2.0, "diversity_on": diversity_on}
    network, bags, labels = network_of_bags(), bags_of(sizes), labels_of(sizes)

    def losses(batch, images):
        of_images = {task: label[images] for task, label in labels.items()}
        found = combined_losses(network(batch, generator=seeded()), of_images, **weights)
        (found.total * len(of_images["kind"]) / len(bags)).backward()
        return torch.stack([found.task, found.semantic, found.diversity])

    def gradients():
        found = {name: w.grad.clone() for name, w in network.named_parameters()}
        network.zero_grad()
        return found

    together = losses(MixedBatch(bags), slice(None))
    of_batch = gradients()
    alone = torch.stack([losses(bag, slice(i, i + 1)) for i, bag in enumerate(bags)])
    torch.testing.assert_close(together, alone.mean(dim=0), **CLOSE)
    for name, gradient in gradients().items():
        torch.testing.assert_close(of_batch[name], gradient, **CLOSE, msg=name)


def test_statistics_of_the_batch_are_of_real_patches_only():
    sizes = (5, 20, 50)
    network, bags = network_of_bags(), bags_of(sizes)
    normalise, project, norm = network.encoder[:3]
    norm.reset_running_stats()
    norm.momentum = 1.0  # the statistics of the last batch
    output = network.train()(MixedBatch(bags), generator=seeded())
    kept = [
        bag.instances[0][indices[indices >= 0]]
        for bag, indices in zip(bags, output.selection.indices, strict=True)
    ]
    assert [len(rows) for rows in kept] == [5, 20, M]
    projected = project(normalise(torch.cat(kept)))
    torch.testing.assert_close(norm.running_mean, projected.mean(dim=0), **CLOSE)
    torch.testing.assert_close(norm.running_var, projected.var(dim=0), **CLOSE)


@pytest.mark.parametrize("mask_variant", ["scores", "logits"])
def test_masking_drops_of_each_bag_what_it_drops_alone(mask_variant):
    masking = {"mask_k": 12, "mask_p": 0.5, "mask_variant": mask_variant, "mask_in_eval": True}
    network, bags = network_of_bags(memory_size=8, **masking), bags_of((5, 60, 40, 8))
    lots = seeded(3)
    alone = [network(bag, generator=lots) for bag in bags]
    together = network(MixedBatch(bags), generator=seeded(3))
    unmasked = network_of_bags(memory_size=8)(MixedBatch(bags), generator=seeded(3))
    assert not torch.equal(together.selection.indices, unmasked.selection.indices)
    for i, each in enumerate(alone):
        kept = together.selection.indices[i]
        assert torch.equal(kept[kept >= 0], each.selection.indices[0])
        torch.testing.assert_close(together.logits["kind"][i], each.logits["kind"][0], **CLOSE)
