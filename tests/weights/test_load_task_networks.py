"""The file of a pretraining fills the encoder of every dense and detection network, which then computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_dense, build_detector, build_encoder
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, read_encoder, save_encoder

SIDE = 64
RESNETS, VITS = ("resnet18", "resnet50"), ("vit_tiny", "vit_small")
NETWORKS: dict[str, Callable[[str], nn.Module]] = {
    "linear": lambda name: build_dense(name, "linear", image_size=SIDE),
    "unet": lambda name: build_dense(name, "unet", image_size=SIDE),
    "deeplabv3plus": lambda name: build_dense(name, "deeplabv3plus"),
    "dpt": lambda name: build_dense(name, "dpt", image_size=SIDE),
    "detector": lambda name: build_detector(name, image_size=SIDE),
}
PAIRS = [
    (name, kind)
    for name in (*RESNETS, *VITS)
    for kind in NETWORKS
    if kind != ("dpt" if name in RESNETS else "deeplabv3plus")
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """By name: a random encoder in which every tensor matters, and the file that it was saved to."""
    made: dict[str, tuple[nn.Module, Path]] = {}

    def make(name: str) -> tuple[nn.Module, Path]:
        if name not in made:
            encoder = build_encoder(name, image_size=SIDE).eval()
            generator = torch.Generator().manual_seed(0)
            for key, tensor in encoder.state_dict().items():
                if key.endswith("num_batches_tracked"):
                    tensor.fill_(17)
                elif tensor.ndim == 1:
                    tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator))
            card = EncoderCard(architecture=name, channels="rgb", image_size=SIDE)
            made[name] = encoder, save_encoder(encoder, tmp_path_factory.mktemp(name), card)
        return made[name]

    return make


def plain_features(encoder: Any, x: Tensor) -> list[Tensor]:
    """Maps of a ResNet at strides 2 to 32 by torchvision; a ViT's normalised patch tokens as a map, by timm."""
    if "conv1.weight" not in encoder.state_dict():
        return encoder.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    depth = "resnet50" if encoder.num_features == 2048 else "resnet18"
    peer = torchvision.models.get_model(depth).eval()
    peer.load_state_dict(encoder.state_dict(), strict=False)
    maps = [peer.relu(peer.bn1(peer.conv1(x)))]
    last = peer.maxpool(maps[0])
    for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        last = layer(last)
        maps.append(last)
    return maps


def network_features(network: Any, kind: str, x: Tensor) -> list[Tensor]:
    """What the encoder inside of a network computes, in the form of `plain_features`."""
    if kind == "linear":
        return [network.features(x)]
    if kind == "unet":
        is_vit = hasattr(network.encoder, "tokens")
        return [_grid(network.encoder.tokens(x)[-1], x)] if is_vit else list(network.encoder(x))
    if kind == "deeplabv3plus":
        maps = network.encoder(x)[1:]
        return [*maps[:4], maps[4][..., ::2, ::2]]
    if kind == "dpt":
        return [_grid(network.encoder(x)[-1], x)]
    body = network.backbone.body
    if isinstance(body, nn.ModuleDict):
        return list(body(x).values())
    return [_grid(body.forward_features(x), x)]


def _grid(tokens: Tensor, x: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).reshape(len(x), -1, x.shape[2] // 16, x.shape[3] // 16)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_whole_encoder_is_filled_and_computes_the_same(
    name: str, kind: str, pretrained: Callable[[str], tuple[nn.Module, Path]]
) -> None:
    encoder, file = pretrained(name)
    network = NETWORKS[kind](name).eval()
    report = load_encoder_weights(network, file)
    assert report.complete
    assert report.fraction == 1.0
    assert len(report.matched) == len(encoder.state_dict())
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, got = plain_features(encoder, x), network_features(network, kind, x)
    assert 1 <= len(got) <= len(wanted)
    for mine, theirs in zip(got, wanted[-len(got) :], strict=True):
        exact = kind != "deeplabv3plus"
        assert torch.allclose(mine, theirs, rtol=0, atol=0 if exact else 1e-5 * float(theirs.abs().max()))


def test_vit_base_fills_a_dpt(pretrained: Callable[[str], tuple[nn.Module, Path]]) -> None:
    encoder, file = pretrained("vit_base")
    network = build_dense("vit_base", "dpt", image_size=96)
    report = load_encoder_weights(network, file)
    assert report.fraction == 1.0
    assert report.notes == ("position embedding resampled from 4 x 4 to 6 x 6 patches",)
    assert torch.equal(network.encoder.encoder.blocks[11].mlp.fc2.weight, encoder.blocks[11].mlp.fc2.weight)


@pytest.mark.parametrize(
    ("name", "kind"), [("resnet18", "deeplabv3plus"), ("resnet18", "detector"), ("vit_tiny", "dpt")]
)
def test_the_encoder_leaves_as_it_entered(
    tmp_path: Path, name: str, kind: str, pretrained: Callable[[str], tuple[nn.Module, Path]]
) -> None:
    encoder, file = pretrained(name)
    network = NETWORKS[kind](name)
    load_encoder_weights(network, file)
    card = EncoderCard(architecture=name, image_size=SIDE)
    again, _ = read_encoder(save_encoder(network, tmp_path, card))
    assert again.keys() == encoder.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in encoder.state_dict().items())


def test_frozen_batch_norm_takes_everything_but_the_counters(
    tmp_path: Path, pretrained: Callable[[str], tuple[nn.Module, Path]]
) -> None:
    encoder, file = pretrained("resnet18")
    ours = build_detector("resnet18", image_size=SIDE, frozen_batch_norm=True).eval()
    stock = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 2).eval()
    x = torch.randn(1, 3, SIDE, SIDE)
    wanted = plain_features(encoder, x)[1:]
    for network in (ours, stock):
        assert load_encoder_weights(network, file).complete
        with torch.no_grad():
            for got, expected in zip(network.backbone.body(x).values(), wanted, strict=True):
                assert torch.allclose(got, expected, atol=1e-5 * float(expected.abs().max()))
    written = save_encoder(ours, tmp_path, EncoderCard(architecture="resnet18"))
    assert "20 batch counters" in load_encoder_weights(build_encoder("resnet18"), written).table()


def test_stock_smp_networks_only_where_they_compute_the_same(
    pretrained: Callable[[str], tuple[nn.Module, Path]],
) -> None:
    encoder, file = pretrained("resnet18")
    unet = smp.Unet("resnet18", encoder_weights=None).eval()
    assert load_encoder_weights(unet, file).complete
    x = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(unet.encoder(x)[-1], plain_features(encoder, x)[-1])
    with pytest.raises(WeightsError, match="build_dense"):
        load_encoder_weights(smp.DeepLabV3Plus("resnet18", encoder_weights=None), file)
    with pytest.raises(WeightsError, match="build_dense"):
        load_encoder_weights(smp.Unet("mobilenet_v2", encoder_weights=None), file)


@pytest.mark.parametrize("kind", ["linear", "dpt", "detector"])
def test_another_architecture_is_refused_and_changes_nothing(
    kind: str, pretrained: Callable[[str], tuple[nn.Module, Path]]
) -> None:
    _, file = pretrained("resnet18")
    network = NETWORKS[kind]("vit_tiny")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"holds a resnet18 but the .* \(vit_tiny\) wants vit_tiny"):
        load_encoder_weights(network, file)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
