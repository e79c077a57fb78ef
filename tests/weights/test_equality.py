"""An encoder computes the same in every network that can hold it; all parameters random, in float64."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from monai.networks import nets
from safetensors.torch import load_file
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_dense, build_detector, build_encoder, build_unet
from monai_ssl_transfer.networks.encoders import encoder_spec
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, save_encoder
from monai_ssl_transfer.weights.built import load_encoder
from monai_ssl_transfer.weights.converting.convert import convert_file
from monai_ssl_transfer.weights.converting.reshape import change_channels
from monai_ssl_transfer.weights.converting.reshape_volume import inflate

TOLERANCE = 1e-9
"""Largest difference as a share of the largest value; a wrong tensor gives more than 1e-4."""
SIDES = {"resnet18": 64, "resnet50": 64, "vit_tiny": 64, "vit_small": 32, "vit_small_dinov2": 42}
SIDES["vit_small_dinov2_reg"] = 42
RESNETS = ("resnet18", "resnet50")
ROUNDED = ("vit_small_dinov2",)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(network: nn.Module) -> nn.Module:
    """Give every tensor a random value: norms, biases, statistics, gains, tokens and positions too."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(17)
            continue
        positive = tensor.ndim == 1 and not name.endswith(("bias", "mean"))
        spread = tensor[0].numel() ** -0.5 if tensor.ndim in (2, 4) else 0.3
        tensor.copy_(float(positive) + spread * torch.randn(tensor.shape, generator=generator).clamp(-2, 2))
        if tensor.ndim == 3:  # tokens and positions: a grid on which their sum is exact in float32
            tensor.copy_((tensor * 1024).round() / 1024)
    return network.eval()


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """By name: the random encoder in timm, and its file.

    It is in float32, which is faster, unless it is changed on the way, where float32 would round.
    """
    made: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in made:
            spec = encoder_spec(name)
            arguments: dict[str, Any] = {"img_size": SIDES[name]} if spec.family == "vit" else {}
            with torch.device("meta"):
                encoder = timm.create_model(spec.timm_name, num_classes=0, **arguments)
            encoder = randomised(encoder.to_empty(device="cpu"))
            if name not in ROUNDED:
                encoder.float()
            card = EncoderCard(architecture=name, channels="rgb", image_size=SIDES[name], licence="CC0")
            file = save_encoder(encoder, tmp_path_factory.mktemp(name), card)
            made[name] = encoder.double(), file
        return made[name]

    return make


def image_for(name: str, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, SIDES[name], SIDES[name], generator=torch.Generator().manual_seed(1))


def apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    assert got.shape == wanted.shape
    assert float(wanted.std()) > 1e-3, "features that are all alike show nothing"
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module")
def maps_of_torchvision(encoder_of: Callable) -> Callable[[str], list[Tensor]]:
    """The maps of strides 2 to 32 and the embedding, by torchvision."""
    made: dict[str, list[Tensor]] = {}

    def make(name: str) -> list[Tensor]:
        if name not in made:
            made[name] = torchvision_maps(name, encoder_of(name)[0], image_for(name))
        return made[name]

    return make


def torchvision_maps(name: str, encoder: nn.Module, x: Tensor) -> list[Tensor]:
    peer = torchvision.models.get_model(name)
    peer.fc = nn.Identity()
    peer.load_state_dict(encoder.state_dict())
    peer.eval()
    maps = [peer.relu(peer.bn1(peer.conv1(x)))]
    last = peer.maxpool(maps[0])
    for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        last = layer(last)
        maps.append(last)
    return [*maps, peer(x)]


def converted(file: Path, to: str, folder: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """The network that the code in the log builds and fills."""
    with caplog.at_level(logging.INFO):
        out = convert_file(file, to, folder / "out.safetensors")
    code = caplog.messages[-1].split("it is loaded by\n")[1]
    scope: dict[str, Any] = {}
    torch.set_default_dtype(max((each.dtype for each in load_file(out).values() if each.ndim), key=str))
    exec(code.replace(out.name, str(out)), scope)  # what the message tells the user to run
    torch.set_default_dtype(torch.float64)
    assert not scope["network"].training
    return scope["network"].double()


@pytest.mark.parametrize(
    ("name", "to"),
    [("resnet18", to) for to in ("timm", "torchvision", "monai-resnet", "monai-flexible-unet")]
    + [("resnet50", to) for to in ("torchvision", "monai-resnet", "monai-flexible-unet")],
)
@torch.no_grad()
def test_converted_resnets_equal_torchvision_exactly(
    name: str,
    to: str,
    encoder_of: Callable,
    maps_of_torchvision: Callable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, file = encoder_of(name)
    x, wanted = image_for(name), maps_of_torchvision(name)
    network = converted(file, to, tmp_path, caplog)
    got = network.encoder(x) if to == "monai-flexible-unet" else [network(x)]
    assert len(got) == (5 if to == "monai-flexible-unet" else 1)
    for mine, theirs in zip(got, wanted[:5] if len(got) == 5 else wanted[5:], strict=True):
        assert apart(mine, theirs) == 0.0


@pytest.mark.parametrize(
    ("name", "to"),
    [("vit_tiny", to) for to in ("timm", "torchvision", "monai-vit", "monai-flexible-unet")]
    + [("vit_small", "monai-vit")]
    + [("vit_small_dinov2", "monai-vit"), ("vit_small_dinov2_reg", "timm")],
)
@torch.no_grad()
def test_converted_vits_equal_timm(
    name: str, to: str, encoder_of: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, file = encoder_of(name)
    x = image_for(name)
    network = converted(file, to, tmp_path, caplog)
    if to == "monai-flexible-unet":
        assert apart(network.encoder.tokens(x)[-1], encoder.forward_features(x)) < TOLERANCE
    else:
        got = network(x)[0] if to == "monai-vit" else network(x)
        assert apart(got, encoder(x)) < TOLERANCE


@torch.no_grad()
def test_monais_own_eps_is_the_only_difference(
    encoder_of: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, file = encoder_of("vit_tiny")
    network = converted(file, "monai-vit", tmp_path, caplog)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    x = image_for("vit_tiny")
    assert 1e-8 < apart(network(x)[0], encoder(x)) < 1e-3


@torch.no_grad()
def test_monais_default_resnet_loads_strictly_and_is_refused(encoder_of: Callable) -> None:
    """The trap: with the default stem all names and shapes fit, and the network is another."""
    encoder, file = encoder_of("resnet50")
    x = image_for("resnet50")
    network = nets.resnet50(spatial_dims=2, n_input_channels=3, bias_downsample=False, feed_forward=False).eval()
    network.load_state_dict(encoder.state_dict())
    assert apart(network(x), encoder(x)) > 1e-2
    with pytest.raises(WeightsError, match="conv1_t_stride=2"):
        load_encoder_weights(network, file)


def tokens_of_mae(network: Any, x: Tensor) -> Tensor:
    """What MONAI's masked autoencoder encodes when nothing is masked."""
    patches = network.patch_embedding(x)
    return network.blocks(torch.cat([network.cls_token.expand(len(x), -1, -1), patches], dim=1))


@torch.no_grad()
def test_monais_masked_autoencoder_equals_timm(encoder_of: Callable, tmp_path: Path) -> None:
    encoder, file = encoder_of("vit_tiny")
    x = image_for("vit_tiny")
    sizes: dict[str, Any] = {"hidden_size": 192, "mlp_dim": 768, "num_layers": 12, "num_heads": 3, "qkv_bias": True}
    network = nets.MaskedAutoEncoderViT(3, 64, 16, spatial_dims=2, decoder_num_layers=1, **sizes).eval()
    network.double()  # MONAI makes its positions in float32
    report = load_encoder_weights(network, file)
    assert report.complete
    assert len(report.matched) == 150
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    assert apart(tokens_of_mae(network, x), encoder.forward_features(x)) < TOLERANCE
    again = load_encoder(save_encoder(network, tmp_path, EncoderCard("vit_tiny", image_size=64)))
    assert apart(again(x), encoder(x)) < TOLERANCE


NETWORKS: dict[str, Callable[[str], Any]] = {
    "linear": lambda name: build_dense(name, "linear", image_size=SIDES[name]),
    "unet": lambda name: build_unet(name, image_size=SIDES[name]),
    "deeplabv3plus": lambda name: build_dense(name, "deeplabv3plus"),
    "dpt": lambda name: build_dense(name, "dpt", image_size=SIDES[name]),
    "detector": lambda name: build_detector(name, image_size=64),
    "classifier": lambda name: build_classifier(name, image_size=SIDES[name]),
    "torchvision": lambda name: torchvision.models.get_model(name),
    "stock unet": lambda name: nets.FlexibleUNet(3, 2, name),
}


def deepest(network: Any, kind: str, x: Tensor) -> Tensor:
    """What the encoder inside of a network computes: a ResNet's last map, a ViT's normalised patch tokens as a map."""
    if kind == "linear":
        return network.features(x)
    if kind == "deeplabv3plus":
        return network.encoder(x)[-1][..., ::2, ::2]
    if kind == "torchvision":
        network.fc, network.avgpool = nn.Identity(), nn.Identity()
        return network(x).reshape(len(x), -1, x.shape[2] // 32, x.shape[3] // 32)
    if kind == "detector" and isinstance(network.backbone.body, nn.ModuleDict):
        return list(network.backbone.body(x).values())[-1]
    if kind == "detector":
        return grid(network.backbone.body.forward_features(x)[:, 1:], x)
    if kind == "unet" and hasattr(network.encoder, "tokens"):
        return grid(network.encoder.tokens(x)[-1][:, 1:], x)
    if kind == "dpt":
        return grid(network.encoder(x)[-1][:, 1:], x)
    return network.encoder(x)[-1]


def grid(tokens: Tensor, x: Tensor) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).reshape(len(x), -1, side, side)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet18", kind) for kind in ("linear", "deeplabv3plus", "detector", "torchvision")]
    + [("resnet50", "stock unet")]
    + [("vit_small_dinov2", "dpt"), ("vit_small_dinov2_reg", "linear"), ("vit_small_dinov2_reg", "dpt")]
    + [("vit_tiny", kind) for kind in ("linear", "unet", "dpt", "detector")],
)
@torch.no_grad()
def test_task_networks_have_the_encoders_features(
    name: str, kind: str, encoder_of: Callable, maps_of_torchvision: Callable
) -> None:
    encoder, file = encoder_of(name)
    x = image_for(name)
    network = NETWORKS[kind](name).eval()
    report = load_encoder_weights(network, file)
    assert report.complete
    assert report.fraction == 1.0
    if name in RESNETS:
        wanted = maps_of_torchvision(name)[4]
    else:
        wanted = grid(encoder.forward_features(x)[:, encoder.num_prefix_tokens :], x)
    assert apart(deepest(network, kind, x), wanted) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
@torch.no_grad()
def test_classifiers_have_the_encoders_embedding(name: str, encoder_of: Callable) -> None:
    encoder, file = encoder_of(name)
    network = build_classifier(name, classes=3, image_size=SIDES[name]).eval()
    load_encoder_weights(network, file)
    head = network.fc if name in RESNETS else network.classification_head
    x = image_for(name)
    assert apart(network(x), head(encoder(x))) < TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "vit_small_dinov2_reg"])
@torch.no_grad()
def test_built_encoders_are_the_saved_ones(name: str, encoder_of: Callable) -> None:
    encoder, file = encoder_of(name)
    x = image_for(name)
    assert apart(load_encoder(file)(x), encoder(x)) == 0.0
    assert apart(build_encoder(name, image_size=SIDES[name]).eval()(x), encoder(x)) > 1e-2, "a random one differs"


def circular(network: nn.Module) -> nn.Module:
    """Convolutions that wrap around at the borders, so that a volume has no first and last slice."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.kernel_size[0] > 1:
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [side for side in module.padding for _ in (0, 1)]
    return network


@torch.no_grad()
def test_inflated_resnet_equals_the_slice_on_a_constant_volume(encoder_of: Callable) -> None:
    encoder, _ = encoder_of("resnet18")
    arguments = {"n_input_channels": 1, "bias_downsample": False, "conv1_t_stride": 2, "feed_forward": False}
    slices = nets.resnet18(spatial_dims=2, **arguments).eval()
    volumes = nets.resnet18(spatial_dims=3, **arguments).eval()
    state = change_channels(encoder.state_dict(), 1)
    slices.load_state_dict(state)
    volumes.load_state_dict(inflate(state))
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert apart(slices(x), encoder(x.expand(-1, 3, -1, -1))) < TOLERANCE
    repeated = x.unsqueeze(-1).expand(-1, -1, -1, -1, 48)

    def early(network: Any, image: Tensor) -> Tensor:
        return network.layer1(network.maxpool(network.act(network.bn1(network.conv1(image)))))

    inside = early(volumes, repeated)
    wanted = early(slices, x).unsqueeze(-1).expand_as(inside)
    assert apart(inside[..., 6], wanted[..., 6]) < TOLERANCE
    assert apart(inside[..., :1], wanted[..., :1]) > 1e-3, "zeros before the first slice are seen there"
    whole = circular(volumes)(repeated[..., :16])
    assert apart(whole, circular(slices)(x)) < TOLERANCE
