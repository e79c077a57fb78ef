"""Encoders under canonical names, and the networks around them."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE

from monai_ssl_transfer.errors import NetworkError
from monai_ssl_transfer.networks import build_classifier, build_encoder, build_unet
from monai_ssl_transfer.networks.encoders import encoder_spec

EXPECTED = {
    "resnet18": (120, 512),
    "resnet50": (318, 2048),
    "vit_tiny": (150, 192),
    "vit_small": (150, 384),
    "vit_base": (150, 768),
}
LIGHT = [name for name in EXPECTED if name != "vit_base"]
"""ViT-B differs from ViT-S in figures only: it takes part where these are checked. DINOv2's have tests of their own."""


@pytest.mark.parametrize("name", EXPECTED)
def test_encoder_has_canonical_names_and_no_head(name: str) -> None:
    encoder = build_encoder(name)
    tensors, width = EXPECTED[name]
    if name.startswith("resnet"):
        peer = torchvision.models.get_model(name).state_dict()
        canonical = {key: value.shape for key, value in peer.items() if not key.startswith("fc.")}
    else:
        peer = timm.create_model(f"{name}_patch16_224").state_dict()
        canonical = {key: value.shape for key, value in peer.items() if not key.startswith("head.")}
    assert {key: value.shape for key, value in encoder.state_dict().items()} == canonical
    assert len(canonical) == tensors
    assert encoder.num_features == encoder_spec(name).width == width


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("channels", [1, 3])
def test_encoder_takes_any_size(name: str, channels: int) -> None:
    encoder = build_encoder(name, in_channels=channels, image_size=64).eval()
    for size in ((64, 64), (96, 48)):
        assert encoder(torch.randn(2, channels, *size)).shape == (2, EXPECTED[name][1])


@pytest.mark.parametrize("name", EXPECTED)
def test_unet_has_five_strides_and_keeps_the_size(name: str) -> None:
    unet = build_unet(name, in_channels=1, out_channels=4).eval()
    assert isinstance(unet, FlexibleUNet)
    x = torch.randn(1, 1, 64, 96)
    assert [64 // feature.shape[2] for feature in unet.encoder(x)] == [2, 4, 8, 16, 32]
    assert unet(x).shape == (1, 4, 64, 96)


def test_vit_unet_takes_odd_numbers_of_patches() -> None:
    assert build_unet("vit_tiny", out_channels=4).eval()(torch.randn(1, 3, 48, 80)).shape == (1, 4, 48, 80)


@pytest.mark.parametrize("name", LIGHT)
def test_every_part_of_the_unet_gets_a_gradient(name: str) -> None:
    unet = build_unet(name, out_channels=2)
    unet(torch.randn(2, 3, 64, 64)).square().mean().backward()
    without = [key for key, parameter in unet.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("name", LIGHT)
def test_networks_export_to_torchscript(name: str) -> None:
    x = torch.randn(1, 3, 64, 64)
    for network in (build_encoder(name), build_unet(name), build_classifier(name, image_size=64)):
        network.eval()
        scripted = torch.jit.script(network)
        with torch.no_grad():
            assert torch.equal(scripted(x), network(x))


@pytest.mark.parametrize("name", EXPECTED)
def test_classifier_gives_unbounded_logits(name: str) -> None:
    network = build_classifier(name, in_channels=1, classes=6, image_size=64).train()
    logits = network(torch.randn(3, 1, 64, 64))
    assert logits.shape == (3, 6)
    (100 * logits).sum().backward()
    without = [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert not isinstance(list(network.modules())[-1], torch.nn.Tanh)


def test_registering_leaves_monais_backbones_alone() -> None:
    names = FLEXUNET_BACKBONE.register_dict
    assert {"ssl_resnet18", "ssl_vit_small", "ssl_vit_base", "resnet18", "resnet50", "efficientnet-b0"} <= names.keys()
    assert names["resnet50"]["type"].__module__.startswith("monai.networks")


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(NetworkError, match="choose one of resnet18"):
        build_encoder("resnet51")
    with pytest.raises(NetworkError, match="multiple of 16"):
        build_encoder("vit_tiny", image_size=100)
    with pytest.raises(ValueError, match="2-D"):
        FlexibleUNet(1, 2, "ssl_resnet18", spatial_dims=3)
    with pytest.raises(ValueError, match="load_encoder_weights"):
        FlexibleUNet(1, 2, "ssl_vit_tiny", pretrained=True)
