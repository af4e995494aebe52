"""What attention heads do beside each other: how alike they are, and what each reads alone.

Semantic and diversity losses (Zhang et al., ACMIL, arXiv 2311.07125) are made to change these.
"""

from typing import NamedTuple

import torch

from ipslib.losses import diversity_loss
from ipslib.model.ips import IPSNet, evaluating
from ipslib.patches import Dataset
from ipslib.tally import n_correct
from ipslib.training import batches

_ORDER_SEED = 0  # of the order in which patches are visited: the same every time


class HeadMeasures(NamedTuple):
    """Means over the images of a set, all tasks' tokens and all pairs of heads.

    The cosine of two heads' attention is 1 where they attend alike and 0 where they share no
    patch. The outputs of H heads can be less alike, down to a mean of -1 / (H - 1).
    """

    attention_alike: float  # cosine of attention over the kept patches
    outputs_alike: float  # cosine of what was read there
    alone: dict[str, float]  # accuracy of one head by itself, mean over heads, by task


@torch.no_grad()
def measure_heads(network: IPSNet, dataset: Dataset, batch_size: int) -> HeadMeasures:
    """Measure a trained network's heads over a data set, in evaluation mode.

    `alone` goes through the map that only the semantic loss trains: without that loss a head is
    asked in a language it was never taught, and answers at chance.
    """
    generator = torch.Generator().manual_seed(_ORDER_SEED)
    attention = outputs = 0.0
    correct = dict.fromkeys(network.heads, 0.0)
    with evaluating(network.modules()):
        for batch in batches(dataset, batch_size, device=network.device):
            output = network(batch, generator=generator)
            attention += diversity_loss(output.attn_weights).item() * batch.batch_size
            outputs += diversity_loss(output.head_outputs).item() * batch.batch_size
            for task, logits in output.branch_logits.items():  # (B, H, C)
                labels = batch.labels[task].to(network.device)
                heads = logits.unbind(dim=1)
                correct[task] += sum(n_correct(h, labels).item() for h in heads) / len(heads)
    n = len(dataset)
    return HeadMeasures(attention / n, outputs / n, {t: each / n for t, each in correct.items()})
