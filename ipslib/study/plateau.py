"""What a network does before it learns anything: it is looked at after every epoch, on the same
training images."""

import copy

import pandas as pd
import torch
from torch import Tensor

from ipslib.config import RunConfig
from ipslib.datasets.megapixel_mnist.scenes import SceneBatch
from ipslib.losses import diversity_loss
from ipslib.metrics import localise
from ipslib.model.ips import IPSNet
from ipslib.paths import write_atomically
from ipslib.runs.records import RecordStore
from ipslib.training import TrainingState, answer, forward_step, train

_N_IMAGES, _PASSES = 64, 30


def watch(config: RunConfig, store: RecordStore) -> pd.DataFrame:
    """Train a run of Megapixel MNIST and look at its network after every epoch; what was seen
    before is read from beside the records.

    Returns:
        One row an epoch, of 64 training images in evaluation mode:

        - `train_accuracy`, `train_loss`: of the epoch, on majority and of all tasks;
        - `roi_recall`, `roi_recall_random`, `entropy`: see `ipslib.metrics.Localisation`;
        - `blank`: the share of kept patches that are blank;
        - `turnover`: the share of kept patches that were not kept an epoch before;
        - `heads_alike`, `queries_alike`: mean cosine of attention over pairs of heads, and of the
          query tokens over pairs of tasks;
        - `spread`: 1 less the mean cosine of an image's kept embeddings;
        - `encoder_gradient`, `attention_gradient`: root mean square of the gradient of the loss, in
          training mode, by weight of the encoder, and of queries and keys.
    """
    path = store.folder / f"{config.id}.plateau.csv"
    if path.is_file():
        return pd.read_csv(path)
    rows, kept = [], None

    def look(row: dict, state: TrainingState) -> None:
        nonlocal kept
        seen, kept = _look(state, images, kept)
        of_epoch = row["train"]
        accuracy = {"train_accuracy": of_epoch["accuracy"]["majority"]}
        accuracy["train_loss"] = of_epoch["loss_parts"]["task"]
        rows.append({"epoch": row["epoch"]} | accuracy | seen)

    images = _images(config)
    train(config.replace(eval_every=config.training.epochs), on_epoch=look)
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
    return pd.read_csv(path)


def look_at_start(config: RunConfig) -> dict[str, float]:
    """The same measures before the first step, the statistics of batch norms settled by passes over
    the images."""
    state, images = TrainingState(config), _images(config)
    with torch.no_grad():
        for _ in range(_PASSES):
            state.network.train()(images, generator=state.generator)
    seen, _ = _look(state, images, None)
    return seen


def _images(config: RunConfig) -> SceneBatch:
    train_set = config.data.open_split("train")
    return train_set.batch(range(min(_N_IMAGES, len(train_set))))


def _look(state: TrainingState, images: SceneBatch, before: Tensor | None) -> tuple[dict, Tensor]:
    network = copy.deepcopy(state.network)  # whose statistics must not move
    output = answer(network, images)
    kept = output.selection.indices
    image, index = output.selection.pairs()
    is_blank = images.read(image, index).flatten(1).amax(dim=1) == 0
    located = localise(images.grid, kept, output.attn_weights, images.boxes)
    seen = {name: getattr(located, name) for name in ("roi_recall", "roi_recall_random", "entropy")}
    seen["blank"] = is_blank.float().mean().item()
    seen["turnover"] = float("nan")
    if before is not None:
        stayed = (kept[:, :, None] == before[:, None]).any(dim=2)
        seen["turnover"] = 1 - stayed.float().mean().item()
    seen["heads_alike"] = diversity_loss(output.attn_weights).item()
    queries = network.pool.query[0]
    seen["queries_alike"] = diversity_loss(queries[None, :, None]).item()
    seen["spread"] = 1 - diversity_loss(output.embeddings[:, :, None]).item()
    return seen | _gradients(network, images, state), kept


def _gradients(network: IPSNet, images: SceneBatch, state: TrainingState) -> dict[str, float]:
    order = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # dropout draws
        _, losses, _ = forward_step(network.train(), images, state.settings, order)
        losses.total.backward()
    parts = {"encoder": network.encoder.parameters(), "attention": network.pool.attention_weights()}
    found = {}
    for name, weights in parts.items():
        given = [weight.grad.flatten() for weight in weights if weight.grad is not None]
        found[f"{name}_gradient"] = torch.cat(given).square().mean().sqrt().item()
    return found
