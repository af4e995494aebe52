from unittest.mock import Mock
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.transforms.v2 import functional

from ipslib.config import ModelConfig
from ipslib.errors import IpslibError
from ipslib.losses import combined_losses
from ipslib.model import shortcuts
from ipslib.model.encoder import (
    _narrow_resnet18,
    as_encoder_input,
    build_encoder,
    normalised,
    pixel_statistics,
)
from ipslib.model.ips import IPSNet
from ipslib.model.shortcuts import (
    FoldedEncoder,
    _shaken,
    conv_by_windows,
    counting_copies,
    has_stem,
)
from ipslib.patches import TensorBatch


@pytest.mark.parametrize(
    ("settings", "dim"),
    [
        ({}, 128),  # published: ResNet-18, two stages
        ({"n_stages": 3, "width": 0.25}, 64),
        ({"n_stages": 4}, 512),
        ({"width": 1.5, "n_stages": 1}, 96),
        ({"encoder": "resnet50", "n_stages": 1}, 128),
        ({"encoder": "resnet50"}, 128),
    ],
)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_an_embedding_has_the_configured_size_for_any_patch(settings, dim, in_channels):
    config = ModelConfig(**settings)
    encoder = build_encoder(config, in_channels).eval()
    assert config.embedding_dim == dim
    for patch_size in (20, 33):
        with torch.no_grad():
            embeddings = encoder(torch.rand(2, in_channels, patch_size, patch_size))
        assert embeddings.shape == (2, dim)
        assert torch.isfinite(embeddings).all()


def test_the_narrow_network_is_torchvisions_but_for_its_width_and_starts_as_it_does():
    for ours, theirs in zip(_narrow_resnet18(64), list(resnet18().children())[:8], strict=True):
        assert str(ours) == str(theirs) and ours.state_dict().keys() == theirs.state_dict().keys()
        for name, value in theirs.named_parameters():
            mine = ours.get_parameter(name)
            if value.ndim == 4:
                assert mine.mean().item() == pytest.approx(0, abs=0.01), name
                assert mine.std().item() == pytest.approx(value.std().item(), rel=0.05), name
            else:
                assert torch.equal(mine, value), name


def test_torchvisions_weights_give_the_same_embedding():
    config, whole = ModelConfig(n_stages=4), resnet18().eval()
    encoder = build_encoder(config, 3).eval()
    encoder.load_state_dict(nn.Sequential(*list(whole.children())[:8]).state_dict())
    whole.fc = nn.Identity()
    images = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), whole(images))


def trained_a_step(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = TensorBatch(torch.rand(2, 4, 1, 24, 24))
    output = network(batch, generator=torch.Generator())
    combined_losses(output, {"majority": torch.tensor([1, 2])}).total.backward()
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    torch.optim.SGD(learning, lr=0.1).step()
    after = network.state_dict().items()
    return {name for name, value in after if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("settings", "learns"),
    [
        (
            {"encoder": "resnet50", "n_stages": 2},
            {"encoder.0.weight", "encoder.8.weight", "encoder.8.bias"},
        ),
        ({"width": 0.125}, {"encoder.0.weight"}),
        ({"width": 0.125, "n_stages": 1, "frozen": False, "trained_blocks": 1}, None),
    ],
)
def test_frozen_keeps_every_weight_and_statistic_but_stem_and_projection(settings, learns):
    config = ModelConfig(**{"frozen": True, "memory_size": 2, "iter_size": 2} | settings)
    network = IPSNet(config, {"majority": 10})
    for _ in range(2):  # as built, and after train()
        changed = trained_a_step(network)
        encoder = {name for name in changed if name.startswith("encoder.")}
        last_block = {name for name in network.state_dict() if name.startswith("encoder.4.1.")}
        assert encoder == (learns or {"encoder.0.weight"} | last_block)
        assert "heads.majority.weight" in changed
        network.eval().train()
    assert not network.encoder[1].training


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({"encoder": "resnet50", "weights": "imagenet_v2"}, "resnet50-11ad3fa6.pth"),
        ({"encoder": "resnet18", "weights": "imagenet_v1"}, "resnet18-f37072fd.pth"),
        ({"encoder": "torchvision/alexnet", "weights": "default"}, "alexnet-owt-7be5be79.pth"),
    ],
)
def test_weights_out_of_reach_are_one_sentence_that_names_file_and_folder(
    settings, file, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", Mock(side_effect=URLError("offline")))
    with pytest.raises(IpslibError, match=file) as refusal:
        build_encoder(ModelConfig(**settings), 1)
    message = str(refusal.value)
    assert str(tmp_path / "hub" / "checkpoints") in message and "\n" not in message


@pytest.mark.parametrize("scale", [1, 255], ids=["bytes", "floats"])
def test_colour_pixels_are_normalised_for_weights_of_imagenet_only(scale):
    every_byte = torch.arange(256, dtype=torch.uint8).expand(2, 3, 8, -1)
    pixels = every_byte if scale == 1 else every_byte / scale
    before, scaled = pixels.clone(), every_byte.float() / 255
    transforms = ResNet18_Weights.IMAGENET1K_V1.transforms()
    expected = functional.normalize(scaled, transforms.mean, transforms.std)
    statistics = pixel_statistics(nn.Identity())
    for ours in (normalised(pixels), as_encoder_input(pixels, statistics)):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert torch.equal(pixels, before)
    assert torch.equal(as_encoder_input(pixels), scaled)
    assert torch.equal(as_encoder_input(pixels[:, :1], statistics), scaled[:, :1])


PATCHES = torch.rand(9, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_folded_is_the_encoder_in_evaluation_mode_with_the_weights_of_the_last_refresh():
    encoder = _shaken(build_encoder(ModelConfig(n_stages=4, width=0.25), 1))
    folded, patches = FoldedEncoder(encoder), PATCHES.double()
    for _ in range(2):
        folded.refresh(torch.float64)
        torch.testing.assert_close(folded(patches), encoder(patches))
        encoder[1].running_mean += 0.2
        encoder[4][0].conv1.weight *= 1.5


def test_relu_behind_the_pool_gives_the_same_bits():
    layers = [*build_encoder(ModelConfig(width=0.25), 1)]
    results = []
    for order in ((2, 3), (3, 2)):
        encoder = nn.Sequential(*layers[:2], *(layers[i] for i in order), *layers[4:])
        encoder.zero_grad()
        embeddings = encoder(PATCHES)
        embeddings.square().sum().backward()
        results.append([embeddings, *(weight.grad for weight in encoder.parameters())])
    assert isinstance(layers[3], nn.ReLU)
    assert all(map(torch.equal, *results))


def test_a_stem_is_known_with_relu_before_the_pool_or_behind_it():
    children = [*resnet18().children()]
    for encoder in (build_encoder(ModelConfig(), 1), nn.Sequential(*children[:-1], nn.Flatten())):
        assert has_stem(counting_copies(encoder))
    assert not has_stem(nn.Sequential(*children[:2], nn.GELU(), *children[3:-1], nn.Flatten()))


@pytest.mark.parametrize("side", [28, 49, 50])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 7, "stride": 2, "padding": 3},
        {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2), "bias": False},
        {"kernel_size": 8, "stride": 8},
    ],
)
@torch.no_grad()
def test_a_product_of_windows_is_the_convolution(options, side):
    conv = nn.Conv2d(1, 6, **options).double()
    patches = torch.rand(4, 1, side, side, dtype=torch.float64)
    patches = patches.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(conv_by_windows(conv, patches), conv(patches))


OURS = [{}, {"width": 0.25}, {"encoder": "resnet50"}]


def as_on_cuda(patch: pytest.MonkeyPatch) -> None:
    """From now on a CPU goes the ways of CUDA, cuDNN's functions written plainly."""

    def fused(x, weight, bias, *geometry):
        return nn.functional.conv2d(x, weight, bias, *geometry).relu()

    def fused_with(x, weight, shortcut, alpha, bias, *geometry):
        return (nn.functional.conv2d(x, weight, bias, *geometry) + alpha * shortcut).relu()

    patch.setattr(shortcuts, "_has_fused", lambda x: True)
    patch.setattr(torch, "cudnn_convolution_relu", fused)
    patch.setattr(torch, "cudnn_convolution_add_relu", fused_with)


def folded_kinds(encoder: nn.Module, *, channels_last: bool) -> set[str]:
    folded = FoldedEncoder(encoder, channels_last=channels_last)
    return {type(module).__name__ for module in folded._copy.modules()}


@pytest.mark.parametrize("part", OURS)
@torch.no_grad()
def test_the_ways_of_cuda_are_the_encoder(monkeypatch, part):
    encoder = _shaken(build_encoder(ModelConfig(**part), 1))
    kinds = folded_kinds(encoder, channels_last=True)
    assert "_OneChannelConv" in kinds and not {"BasicBlock", "Bottleneck"} & kinds
    as_on_cuda(monkeypatch)
    folded = FoldedEncoder(encoder, channels_last=True)
    folded.refresh(torch.float64)
    torch.testing.assert_close(folded(PATCHES.double()), encoder(PATCHES.double()))


def circular(network):
    network.layer1[0].conv1.padding_mode = "circular"


def same(network):
    network.layer1[0].conv1.padding = "same"


def low_rank(network):
    network.layer1[0].conv1 = nn.Sequential(nn.Conv2d(64, 8, 1), nn.Conv2d(8, 64, 3, padding=1))


def filtered(network):
    network.layer1[0].conv1.register_forward_pre_hook(lambda conv, inputs: (inputs[0] / 2,))


def weighted(network):
    nn.utils.parametrizations.weight_norm(network.layer1[0].conv1)


def gelu(network):
    network.layer1[0].relu = nn.GELU()


@pytest.mark.parametrize("change", [circular, same, low_rank, filtered, weighted, gelu])
@torch.no_grad()
def test_a_block_that_does_something_else_goes_its_own_way(monkeypatch, change):
    network = resnet18()
    network.fc, network.conv1 = nn.Identity(), nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    change(network)
    encoder = _shaken(network)
    expected = encoder(PATCHES.double())
    as_on_cuda(monkeypatch)
    folded = FoldedEncoder(encoder, channels_last=True)
    folded.refresh(torch.float64)
    torch.testing.assert_close(folded(PATCHES.double()), expected)
    assert type(folded._copy.layer1[0]).__name__ == "BasicBlock"
    assert type(folded._copy.layer1[1]).__name__ == "_FusedBasicBlock"


def test_where_channels_are_not_last_nothing_is_fused():
    kinds = folded_kinds(build_encoder(ModelConfig(), 1), channels_last=False)
    assert "BasicBlock" in kinds and "_OneChannelConv" not in kinds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("part", OURS)
@torch.no_grad()
def test_fused_on_cuda_is_near_the_encoder(part):
    encoder = _shaken(build_encoder(ModelConfig(**part), 1)).float().cuda()
    encoder.to(memory_format=torch.channels_last)
    exact = encoder.double()(PATCHES.double().cuda())
    folded = FoldedEncoder(encoder.float(), channels_last=True)
    for dtype, most in ((torch.float32, 1e-2), (torch.bfloat16, 5e-2)):
        folded.refresh(dtype)
        assert (folded(PATCHES.cuda()) - exact).norm() / exact.norm() < most


def test_bf16_is_near_fp32_and_back():
    encoder = _shaken(build_encoder(ModelConfig(width=0.25, n_heads=4), 1)).float()
    folded = FoldedEncoder(encoder)
    folded.refresh(torch.float32)
    exact = folded(PATCHES)
    folded.refresh(torch.bfloat16)
    low = folded(PATCHES)
    assert low.dtype == torch.float32
    assert 0 < (low - exact).norm() / exact.norm() < 0.02
    folded.refresh(torch.float32)
    assert torch.equal(folded(PATCHES), exact)
