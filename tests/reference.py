"""One training step of IPS written plainly, as published: what ipslib's own is judged by.

Bergner, Lippert and Mahendran, arXiv 2210.13007; semantic and diversity losses as in arXiv
2412.11237. The bag lies dense in memory, every patch is embedded, the memory holds embeddings, and
keys are computed for each set anew. `PlainIPS` takes the weights of an IPSNet, and none of its
short cuts: no patch is skipped, shared or folded. In float64 its rounding does not count.
"""

import math
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from ipslib.config import ModelConfig, TrainingConfig
from ipslib.losses import Losses
from ipslib.model.ips import IPSNet, IPSOutput
from ipslib.patches import PatchBatch, known_blank
from ipslib.selection import Selection


def dense_bag(batch: PatchBatch) -> Tensor:
    """Every patch of every image, (B, N, C, P, P)."""
    image = torch.arange(batch.batch_size).repeat_interleave(batch.n_patches)
    patch = torch.arange(batch.n_patches).repeat(batch.batch_size)
    return batch.read(image, patch).unflatten(0, (batch.batch_size, batch.n_patches))


def all_known_blank(batch: PatchBatch) -> Tensor:
    """The patches that a batch knows to be all zero, (B, N) bool."""
    return known_blank(batch, torch.arange(batch.n_patches))


class PlainIPS(nn.Module):
    """The network of plain modules, with the weights, names of weights and mode of an IPSNet."""

    def __init__(self, network: IPSNet):
        super().__init__()
        self.config = config = network.config
        channels, dim = round(64 * config.width), config.embedding_dim
        self.encoder = plain_resnet(network.encoder[0].in_channels, channels, config.n_stages)
        self.pool = PlainPool(dim, len(network.heads), config)
        self.heads = nn.ModuleDict(
            {task: nn.Linear(dim, head.out_features) for task, head in network.heads.items()}
        )
        self.load_state_dict(network.state_dict())
        self.train(network.training)

    def embed(self, bag: Tensor, indices: Tensor) -> Tensor:
        """Encode the patches `indices` (B, n) of a bag (B, N, C, P, P) uint8 to (B, n, D)."""
        patches = bag[torch.arange(len(bag))[:, None], indices].flatten(0, 1)  # (B n, C, P, P)
        pixels = patches.to(self.pool.query.dtype) / 255
        embeddings = self.encoder(pixels).unflatten(0, indices.shape)
        if self.config.position_encoding:
            embeddings = embeddings + positions(indices, embeddings.shape[2]).to(pixels)
        return embeddings

    @torch.no_grad()
    def select(self, bag: Tensor, *, order: Tensor | None = None) -> Selection:
        """Keep the M patches of each image that survive every iteration (algorithm 1), best first.

        Args:
            bag: (B, N, C, P, P) uint8.
            order: (N,) permutation in which patches are visited, row-major if None.
        """
        memory_size, (n_images, n_patches) = self.config.memory_size, bag.shape[:2]
        in_order = torch.arange(n_patches, device=bag.device)
        if memory_size >= n_patches:
            return Selection(in_order.expand(n_images, -1), None)
        order = in_order if order is None else order.to(bag.device)
        training = self.training
        self.eval()
        kept = order[:memory_size].expand(n_images, -1)  # (B, M)
        memory = self.embed(bag, kept)  # (B, M, D)
        for block in order[memory_size:].split(self.config.iter_size):
            block = block.expand(n_images, -1)  # (B, I)
            kept = torch.cat([kept, block], dim=1)  # (B, M + I)
            memory = torch.cat([memory, self.embed(bag, block)], dim=1)  # (B, M + I, D)
            weights = self.pool.attention(memory).mean(dim=1)  # (B, T, M + I), of heads
            scores, best = weights.mean(dim=1).topk(memory_size, dim=1)  # (B, M)
            kept = kept.gather(1, best)
            memory = memory.gather(1, best[..., None].expand(-1, -1, memory.shape[2]))
        self.train(training)
        return Selection(kept, scores)

    def forward(self, bag: Tensor, *, order: Tensor | None = None) -> IPSOutput:
        """Select, then gather the kept patches, encode them in the network's mode, and classify."""
        selection = self.select(bag, order=order)
        tokens, branches, attn_weights, head_outputs = self.pool(self.embed(bag, selection.indices))
        logits, branch_logits = {}, {}
        for token, (task, head) in enumerate(self.heads.items()):
            logits[task] = head(tokens[:, token])  # (B, C)
            branch_logits[task] = head(branches[:, :, token])  # (B, H, C)
        return IPSOutput(logits, branch_logits, attn_weights, head_outputs, selection)


class PlainPool(nn.Module):
    """Multi-head cross-attention of T query tokens, and an MLP."""

    def __init__(self, dim: int, n_tokens: int, config: ModelConfig):
        super().__init__()
        self.n_heads = config.n_heads
        self.query = nn.Parameter(torch.empty(1, n_tokens, dim))
        self.to_query, self.to_key, self.to_value, self.merge = (
            nn.Linear(dim, dim, bias=False) for _ in range(4)
        )
        self.branch = nn.Linear(dim // config.n_heads, dim, bias=False)
        self.attn_norm, self.mlp_norm = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.expand, self.contract = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.attn_dropout = nn.Dropout(config.attn_dropout)

    def attention(self, embeddings: Tensor) -> Tensor:
        """Each head's and token's attention over a set of embeddings, (B, n, D) to (B, H, T, n)."""
        query = self._by_head(self.to_query(self.query))
        key = self._by_head(self.to_key(embeddings))
        return (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).softmax(dim=3)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, M, D) to tokens (B, T, D), branches (B, H, T, D), attention (B, H, T, M) and the
        outputs of heads (B, H, T, D_v)."""
        attn_weights = self.attention(embeddings)
        head_outputs = self.attn_dropout(attn_weights) @ self._by_head(self.to_value(embeddings))
        concatenated = torch.cat(head_outputs.unbind(dim=1), dim=2)  # (B, T, D)
        tokens = self._mlp(self.attn_norm(self.dropout(self.merge(concatenated)) + self.query))
        return tokens, self._mlp(self.branch(head_outputs)), attn_weights, head_outputs

    def _by_head(self, rows: Tensor) -> Tensor:
        """(B, n, D) to (B, H, n, D / H)."""
        return torch.stack(rows.chunk(self.n_heads, dim=2), dim=1)

    def _mlp(self, tokens: Tensor) -> Tensor:
        return self.mlp_norm(self.dropout(self.contract(self.expand(tokens).relu())) + tokens)


def plain_resnet(in_channels: int, channels: int, n_stages: int) -> nn.Sequential:
    """The first stages of ResNet-18, then average pooling; 64 channels make it the original."""
    layers = [
        nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Sequential(BasicBlock(channels, channels), BasicBlock(channels, channels)),
    ]
    for n_in in (channels * 2**stage for stage in range(n_stages - 1)):
        n_out = 2 * n_in
        shortcut = nn.Sequential(
            nn.Conv2d(n_in, n_out, 1, stride=2, bias=False), nn.BatchNorm2d(n_out)
        )
        first = BasicBlock(n_in, n_out, stride=2, downsample=shortcut)
        layers.append(nn.Sequential(first, BasicBlock(n_out, n_out)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def positions(indices: Tensor, dim: int) -> Tensor:
    """Sines in even columns and cosines in odd ones, (B, n) to (B, n, D) (arXiv 1706.03762)."""
    wavelengths = 10000 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = indices.cpu()[..., None] / wavelengths
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)


def plain_losses(
    output: IPSOutput, labels: Mapping[str, Tensor], settings: TrainingConfig
) -> Losses:
    """Total = task + semantic_weight x semantic + diversity_weight x diversity."""
    by_task = plain_task_losses(output.logits, labels)
    total = task = sum(by_task.values()) / len(by_task)
    semantic = diversity = torch.zeros_like(task)
    if settings.semantic_weight:
        n_heads, losses = output.attn_weights.shape[1], []
        for head in range(n_heads):
            alone = {each: logits[:, head] for each, logits in output.branch_logits.items()}
            losses += plain_task_losses(alone, labels).values()
        semantic = sum(losses) / len(losses)
        total = total + settings.semantic_weight * semantic
    if settings.diversity_weight:
        on_attention = settings.diversity_on == "attention"
        per_head = output.attn_weights if on_attention else output.head_outputs
        pairs = list(combinations(per_head.unbind(dim=1), 2))  # of (B, T, X)
        diversity = sum(F.cosine_similarity(*pair, dim=2).mean() for pair in pairs) / len(pairs)
        total = total + settings.diversity_weight * diversity
    return Losses(total, task, semantic, diversity, by_task)


def plain_task_losses(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The negative log-likelihood of a class behind a softmax, or the binary cross-entropy of a
    set (multi-hot) behind a sigmoid."""
    losses = {}
    for task, x in logits.items():
        if labels[task].ndim == 2:
            present, p = labels[task], x.sigmoid()
            losses[task] = -(present * p.log() + (1 - present) * (1 - p).log()).mean()
        else:
            losses[task] = -x.softmax(dim=1)[torch.arange(len(x)), labels[task]].log().mean()
    return losses


def plain_rate(step: int, *, n_steps: int, n_warmup: int, peak: float) -> float:
    """Learning rate of step 1 ... n_steps: linear warm-up, then cosine to 0.001 of the peak."""
    if step < n_warmup:
        return peak * step / n_warmup
    share = (step - n_warmup) / (n_steps - n_warmup)
    lowest = 0.001 * peak
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * share)) / 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_network(
    seed: int,
    n_classes: Mapping[str, int] | None = None,
    *,
    in_channels: int = 1,
    **config: object,
) -> IPSNet:
    """A network as unlike a fresh one as a trained one is, in evaluation mode: its batch norms
    have statistics of their own, and its attention is peaked."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        small = {"width": 0.125, "n_heads": 4, "memory_size": 6, "iter_size": 4} | config
        n_classes = n_classes or {"majority": 10, "multi": 10}
        network = IPSNet(ModelConfig(**small), n_classes, in_channels=in_channels)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.3)
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.1, 0.5)
        with torch.no_grad():
            network.pool.query *= 6
    return network.eval()
