from urllib.error import URLError

import pytest
import torch

from ipslib.datasets.slides.features import Backbone, BackboneConfig
from ipslib.errors import IpslibError

TILES = torch.randint(0, 256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    ("name", "n_stages", "n_features"),
    [("resnet18", 1, 64), ("resnet18", 4, 512), ("resnet50", 3, 1024), ("resnet50", 4, 2048)],
)
def test_a_backbone_gives_the_features_of_its_last_stage(name, n_stages, n_features):
    config = BackboneConfig(backbone=name, weights="none", n_stages=n_stages)
    features = Backbone(config)(TILES)
    assert features.shape == (3, n_features) and config.n_features == n_features
    assert features.dtype == torch.float32 and not features.requires_grad


def test_random_weights_follow_their_seed_and_leave_other_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    made = [
        Backbone(BackboneConfig(backbone="resnet18", weights="none", n_stages=1, seed=seed))(TILES)
        for seed in (0, 0, 1)
    ]
    assert torch.rand(1) == expected
    assert torch.equal(made[0], made[1]) and not torch.allclose(made[0], made[2])


def test_tiles_are_normalised_as_imagenet_was_and_each_stands_alone():
    network = Backbone(BackboneConfig(backbone="resnet18", weights="none", n_stages=1))
    assert torch.allclose(network(TILES)[1:2], network(TILES[1:2]), atol=1e-5)
    seen = []
    network.layers.register_forward_pre_hook(lambda _, images: seen.extend(images))
    network(torch.tensor([124, 116, 104]).byte().expand(1, 8, 8, 3))  # the mean colour
    network(torch.full((1, 4, 4, 3), 255).byte())
    assert seen[0].shape == (1, 3, 8, 8) and seen[0].abs().max() < 0.02
    assert seen[1][0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_without_a_network_the_file_of_weights_is_named(monkeypatch):
    def offline(**_):
        raise URLError("no network")

    monkeypatch.setattr("ipslib.model.encoder.resnet50", offline)
    config = BackboneConfig()
    with pytest.raises(IpslibError, match="wanted the imagenet_v1 weights of resnet50, found none"):
        Backbone(config)
    with pytest.raises(IpslibError, match=r"put resnet50-0676ba61\.pth .* into .*checkpoints"):
        Backbone(config)


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(IpslibError, match="imagenet_v2 exists for resnet50 only"):
        Backbone(BackboneConfig(backbone="resnet18", weights="imagenet_v2"))
