"""Encoders of one's own, of torchvision and of timm: what they give, what of them is trained, and
that shortcuts are taken where they change nothing, and only there."""

import re
import sys
from unittest import mock

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

from ipslib.config import ModelConfig, TrainingConfig
from ipslib.errors import IpslibError
from ipslib.model import ips
from ipslib.model.encoder import build_encoder
from ipslib.model.ips import IPSNet
from ipslib.model.shortcuts import Shortcuts, _shaken, find_shortcuts
from ipslib.patches import TensorBatch
from ipslib.runs.one_run import train_and_record
from ipslib.runs.records import RecordStore
from ipslib.training import answer, evaluate, forward_step
from tests.tiny import TINY

N_CHANNELS, PATCH = 2, 32
EXACT = Shortcuts(alone=True, folded=True, repeats=True, channels_last=True)


class Own(nn.Module):
    """A network in ten lines; flags make one shortcut or another inexact."""

    def __init__(self, *, drop=0.0, norm_first=False, views=False, centred=None, single=False):
        super().__init__()
        self.stem = nn.Conv2d(N_CHANNELS, 8, 3, stride=2)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(drop)
        self.last = nn.Conv2d(8, 12, 3, stride=2)
        self.norm_first, self.views, self.single = norm_first, views, single
        self.centred = None if centred is None else nn.Parameter(torch.tensor(centred))

    def forward(self, x):
        x = self.stem(x.float() if self.single else x)
        x = self.last(self.norm(x.relu()) if self.norm_first else self.norm(x).relu())
        x = x.view(len(x), -1) if self.views else x.mean((2, 3))
        return self.drop(x if self.centred is None else x - self.centred * x.mean(0))


@pytest.mark.parametrize(
    ("flags", "inexact"),
    [
        ({}, ()),
        ({"norm_first": True}, ("folded",)),  # the norm comes after a rectifier
        ({"drop": 1e-6}, ("repeats",)),  # copies draw each for itself, however seldom
        ({"views": True}, ("repeats", "channels_last")),  # it wants the one layout in memory
        ({"centred": 1.0}, ("alone", "repeats")),  # an embedding depends on its batch
        ({"centred": 0.0}, ("alone", "repeats")),  # it will, when that branch is trained
        ({"single": True}, Shortcuts._fields),  # it cannot be tried in float64
    ],
    ids=str,
)
def test_shortcuts_are_found_exact_by_what_a_network_computes(flags, inexact):
    network, state = Own(**flags), torch.get_rng_state()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    found = find_shortcuts(network, (N_CHANNELS, PATCH, PATCH))
    assert found == EXACT._replace(**dict.fromkeys(inexact, False))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])


def test_the_published_encoders_have_all():
    for config in (ModelConfig(n_stages=2), ModelConfig(encoder="resnet50", frozen=True)):
        assert find_shortcuts(build_encoder(config, 3), (3, 28, 28)) == EXACT
    features = build_encoder(ModelConfig(encoder="features", width=1 / 8), 6)
    assert find_shortcuts(features, (6,))[:3] == (True, True, False)


def drawn(n_images, seed):
    """Images of 16 patches, half of them blank; one has stripes of its image's class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_images) % 3
    bag = torch.randint(0, 60, (n_images, 16, N_CHANNELS, PATCH, PATCH), generator=generator)
    bag[:, ::2] = 0
    bars = torch.arange(PATCH) // 4 % 2
    row, column = torch.meshgrid(bars, bars, indexing="ij")
    stripes = 255 * torch.stack([row, column, row ^ column])
    where = torch.randint(0, 16, (n_images,), generator=generator)
    bag[torch.arange(n_images), where] = stripes[labels][:, None]
    batch = TensorBatch(bag.to(torch.uint8))
    batch.labels = {"stripes": labels}
    return batch


def network_of(name):
    """A fresh network with the encoder of this name."""
    torch.manual_seed(0)
    own = Own() if name == "own" else None
    named = {} if own else {"encoder": name}
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is an optional extra")
    sizes = {"in_channels": N_CHANNELS, "patch_size": PATCH}
    config = ModelConfig(memory_size=5, iter_size=4, n_heads=4, dropout=0.0, **named)
    network = IPSNet(config, {"stripes": 3}, encoder=own, **sizes)
    for module in network.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.2  # MobileNet's would take hundreds of steps
    return network


NAMES = ["own", "torchvision/mobilenet_v3_small", "timm/resnet10t"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_patches_and_answers_with_and_without_shortcuts(name, monkeypatch):
    network, batch = network_of(name), drawn(6, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(ips, "find_shortcuts", lambda *_: Shortcuts())
        plain = network_of(name)
    assert network.shortcuts.folded and not any(plain.shortcuts)
    with torch.no_grad():
        _shaken(network.encoder).float()
        network.pool.query *= 6
        plain.load_state_dict(network.state_dict())
    for training in (False, True):
        outputs = []
        for each in (network, plain):
            torch.manual_seed(0)  # of MobileNet's dropout
            outputs.append(each.train(training)(batch, generator=torch.Generator()))
        ours, expected = outputs
        kept = [each.selection.indices.sort(dim=1).values for each in outputs]
        assert torch.equal(*kept)
        torch.testing.assert_close(ours.logits, expected.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "patch_size", "dim"), [("squeezenet1_1", 32, 512), ("googlenet", 40, 1024)]
)
def test_unusual_classifiers_of_torchvision_are_taken_off_too(name, patch_size, dim):
    config = ModelConfig(encoder=f"torchvision/{name}", memory_size=2, iter_size=2)
    network = IPSNet(config, {"a": 2}, in_channels=3, patch_size=patch_size).train()
    batch = TensorBatch(torch.rand(2, 3, 3, patch_size, patch_size))
    assert network(batch, generator=torch.Generator()).logits["a"].shape == (2, 2)
    assert network.pool.query.shape[-1] == dim


@pytest.mark.parametrize(("name", "lr"), [*zip(NAMES, (3e-3, 3e-3, 1e-3), strict=True)])
def test_it_learns_the_drawn_example(name, lr):
    network, settings = network_of(name), TrainingConfig()
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        _, losses, _ = forward_step(network.train(), drawn(12, 10 + step), settings, generator)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    test = drawn(30, seed=0)
    right = answer(network, test).logits["stripes"].argmax(dim=1) == test.labels["stripes"]
    assert right.float().mean() >= 2 / 3


@pytest.mark.parametrize(
    ("changes", "encoder", "field"),
    [
        ({"encoder": "torchvision/mobilenet_v3_smal"}, None, "encoder: .*mobilenet_v3_small"),
        ({"encoder": "torchvision/vit_b_16"}, None, "patch_size"),
        ({"n_heads": 5}, Own(), "n_heads: .* 12"),
        ({"weights": "default"}, Own(), "weights: .* own"),
        ({}, nn.Conv2d(N_CHANNELS, 8, 3), "embeddings"),
        ({}, nn.Conv2d(N_CHANNELS + 1, 8, 3), "in_channels"),
        ({"trained_blocks": 4, "n_heads": 4}, Own(), "trained_blocks: .* 2"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, encoder, field):
    with pytest.raises(IpslibError, match=field) as refusal:
        IPSNet(ModelConfig(**changes), {"a": 2}, in_channels=N_CHANNELS, encoder=encoder)
    assert "\n" not in str(refusal.value)


def test_a_missing_timm_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(IpslibError, match="ipslib.timm"):
        build_encoder(ModelConfig(encoder="timm/resnet10t"), 3)


def test_a_run_trains_it_and_its_network_opens_without_the_first_weights(tmp_path):
    file, encoder = tmp_path / "weights.pth", "torchvision/mobilenet_v3_small"
    torch.save(mobilenet_v3_small().state_dict(), file)
    config = TINY.replace(encoder=encoder, width=1.0, weights=str(file), epochs=1, precision="bf16")
    store = RecordStore(tmp_path / "runs")
    record = train_and_record(config, store)
    file.unlink()
    network, test = store.load_network(record), config.data.open_split("test")
    loss = evaluate(network, test, config.training.batch_size).loss
    assert loss == record["history"][-1]["test"]["loss"]


def test_weights_of_timm_come_from_a_file_or_the_error_says_where_it_goes(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is an optional extra")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet10t.safetensors"
    config = ModelConfig(encoder="timm/resnet10t", weights="default")
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", mock.Mock(side_effect=OSError("no network")))
        with pytest.raises(IpslibError, match=re.escape(str(file))):
            build_encoder(config, 3)
    theirs, images = timm.create_model("resnet10t").eval(), torch.rand(2, 3, 40, 40)
    file.parent.mkdir(parents=True)
    pytest.importorskip("safetensors.torch").save_file(theirs.state_dict(), file)
    theirs.reset_classifier(0)
    assert torch.equal(build_encoder(config, 3).eval()(images), theirs(images))


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({"frozen": True}, set()),
        ({"trained_blocks": 1}, {"classifier.0"}),
        ({"trained_blocks": 3}, {"features.11", "features.12", "classifier.0"}),
        ({}, None),
    ],
)
def test_all_the_last_blocks_or_nothing_is_trained(changes, trained):
    config = ModelConfig(encoder="torchvision/mobilenet_v3_small", **changes)
    network = IPSNet(config, {"a": 2}, in_channels=3).train()
    learning = {
        ".".join(name.split(".")[:2])
        for name, weight in network.encoder.named_parameters()
        if weight.requires_grad
    }
    assert learning == trained or (trained is None and len(learning) == 14)
    frozen = network.encoder.features[0]
    assert frozen.training == (trained is None)


def test_weights_come_from_a_file(tmp_path):
    theirs, file = mobilenet_v3_small(num_classes=7).eval(), tmp_path / "weights.pth"
    counts = "num_batches_tracked"  # which older files lack
    state = {name: w for name, w in theirs.state_dict().items() if not name.endswith(counts)}
    torch.save(state, file)
    config = ModelConfig(encoder="torchvision/mobilenet_v3_small", weights=str(file))
    ours, images = build_encoder(config, 3).eval(), torch.rand(2, 3, 40, 40)
    theirs.classifier[3] = nn.Identity()
    assert torch.equal(ours(images), theirs(images))
    torch.save({"fc.weight": torch.zeros(1)}, file)
    with pytest.raises(IpslibError, match="weights"):
        build_encoder(config, 3)
    with pytest.raises(IpslibError, match=r"none\.pth"):
        build_encoder(ModelConfig(encoder="resnet18", weights=str(tmp_path / "none.pth")), 3)
