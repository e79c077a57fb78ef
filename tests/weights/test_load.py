"""An encoder that was saved computes the same in every network that it is loaded into."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from monai.networks import nets
from torch import nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_encoder, build_unet
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, read_encoder, save_encoder
from monai_ssl_transfer.weights.transformer_names import from_monai_vit, monai_vit_names

VITS = ("vit_tiny", "vit_small")
RESNETS = ("resnet18", "resnet50")


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor a random value, those included that start as zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(17)
            continue
        spread = 0.2 if tensor.ndim == 1 else tensor[0].numel() ** -0.5
        centre = 1.0 if tensor.ndim == 1 and not name.endswith(("bias", "mean")) else 0.0
        tensor.copy_(centre + spread * torch.randn(tensor.shape, generator=generator).clamp(-2, 2))
        if tensor.ndim == 3:  # class token and positions: a grid on which their sum is exact in float32
            tensor.copy_((tensor * 1024).round() / 1024)
    return network.eval()


def saved(folder: Path, name: str, in_channels: int = 3, image_size: int = 224) -> tuple[nn.Module, Path]:
    """A random encoder and the file that it was saved to."""
    encoder = randomised(build_encoder(name, in_channels, image_size))
    card = EncoderCard(architecture=name, in_channels=in_channels, channels="windows", image_size=image_size)
    return encoder, save_encoder(encoder, folder, card)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [*RESNETS, *VITS])
def test_same_embedding_in_a_new_encoder(tmp_path: Path, name: str, image: torch.Tensor) -> None:
    encoder, file = saved(tmp_path, name)
    other = build_encoder(name).eval()
    report = load_encoder_weights(other, file)
    assert report.complete
    assert report.fraction == 1.0
    assert len(report.matched) == len(encoder.state_dict())
    assert torch.equal(other(image), encoder(image))


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_feature_maps_in_unet_equal_torchvision(tmp_path: Path, name: str, image: torch.Tensor) -> None:
    encoder, file = saved(tmp_path, name)
    peer = torchvision.models.get_model(name).eval()
    assert peer.load_state_dict(encoder.state_dict(), strict=False).missing_keys == ["fc.weight", "fc.bias"]
    unet = build_unet(name).eval()
    load_encoder_weights(unet, file)
    stem = peer.relu(peer.bn1(peer.conv1(image)))
    expected = [stem]
    x = peer.maxpool(stem)
    for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        x = layer(x)
        expected.append(x)
    features = unet.encoder(image)
    assert len(features) == 5
    for got, wanted in zip(features, expected, strict=True):
        assert torch.equal(got, wanted)


def test_stock_flexible_unet_takes_the_weights(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "resnet50")
    stock = nets.FlexibleUNet(in_channels=3, out_channels=2, backbone="resnet50")
    report = load_encoder_weights(stock, file)
    assert len(report.matched) == 318
    own = build_unet("resnet50", 3, 2)
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in stock.state_dict().items()}


def test_loading_leaves_the_decoder_alone(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "resnet18")
    unet = build_unet("resnet18")
    before = {k: v.clone() for k, v in unet.state_dict().items() if not k.startswith("encoder.")}
    load_encoder_weights(unet, file)
    assert before
    assert all(torch.equal(unet.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("name", RESNETS)
def test_monai_resnet_equals_torchvision(tmp_path: Path, name: str, image: torch.Tensor) -> None:
    encoder, file = saved(tmp_path, name)
    network = build_classifier(name, classes=6).eval()
    load_encoder_weights(network, file)
    network.fc = nn.Identity()
    assert torch.equal(network(image), encoder(image))


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("image_size", [64, 224])
def test_monai_vit_equals_timm(tmp_path: Path, name: str, image_size: int) -> None:
    encoder, file = saved(tmp_path, name, image_size=image_size)
    network = build_classifier(name, classes=6, image_size=64).eval()
    report = load_encoder_weights(network, file)
    assert bool(report.notes) == (image_size != 64)
    head = network.classification_head.double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    got = network.double()(x)
    encoder = encoder.double()
    if image_size == 64:
        wanted = head(encoder(x))
        assert (got - wanted).abs().max() < 1e-9 * wanted.abs().max()
    else:  # timm resamples the position embedding in float32
        wanted = head(encoder(x))
        assert (got - wanted).abs().max() < 1e-6 * wanted.abs().max()


def test_forgotten_class_position_would_be_seen(tmp_path: Path) -> None:
    """Negative control of the test above: the class token's position matters."""
    encoder, file = saved(tmp_path, "vit_tiny", image_size=64)
    network = build_classifier("vit_tiny", classes=6, image_size=64).eval()
    load_encoder_weights(network, file)
    x = torch.randn(2, 3, 64, 64)
    wanted = network.classification_head(encoder(x))
    network.cls_token.data -= encoder.pos_embed[:, :1]
    assert (network(x) - wanted).abs().max() > 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("name", VITS)
def test_registered_vit_backbone_has_timms_tokens(tmp_path: Path, name: str, image: torch.Tensor) -> None:
    encoder, file = saved(tmp_path, name)
    unet = build_unet(name).eval()
    load_encoder_weights(unet, file)
    _, peer = encoder.forward_intermediates(image, indices=[2, 5, 8, 11], output_fmt="NLC", return_prefix_tokens=True)
    tapped = unet.encoder.tokens(image)
    assert len(tapped) == 4
    for number, (patches, prefix) in enumerate(peer):
        wanted = torch.cat([prefix, patches], dim=1)
        assert torch.equal(tapped[number], encoder.norm(wanted) if number == 3 else wanted)


@pytest.mark.parametrize("name", [*RESNETS, *VITS])
def test_encoder_leaves_a_transfer_network_as_it_entered(tmp_path: Path, name: str, image: torch.Tensor) -> None:
    encoder, file = saved(tmp_path / "a", name, image_size=64)
    for number, network in enumerate((build_unet(name, image_size=64), build_classifier(name, image_size=64))):
        load_encoder_weights(network, file)
        again = save_encoder(network, tmp_path / str(number), EncoderCard(name, image_size=64))
        other = build_encoder(name, image_size=64).eval()
        load_encoder_weights(other, again)
        x = torch.randn(2, 3, 64, 64)
        assert torch.allclose(other(x), encoder(x), rtol=1e-4, atol=1e-5)


def test_every_way_to_name_the_file(tmp_path: Path) -> None:
    encoder, file = saved(tmp_path, "resnet18")
    for name in (file, str(file), tmp_path, tmp_path / "encoder.json"):
        state, card = read_encoder(name)
        assert card.channels == "windows"
        assert all(torch.equal(state[k], v) for k, v in encoder.state_dict().items())


def test_plain_torch_state_dict(tmp_path: Path, image: torch.Tensor) -> None:
    peer = randomised(torchvision.models.resnet18())
    torch.save(peer.state_dict(), tmp_path / "resnet18.pth")
    encoder = build_encoder("resnet18").eval()
    load_encoder_weights(encoder, tmp_path / "resnet18.pth")
    peer.fc = nn.Identity()
    assert torch.equal(encoder(image), peer(image))
    assert read_encoder(tmp_path / "resnet18.pth")[1].architecture == "resnet18"


def test_old_torchvision_files_have_no_batch_counters(tmp_path: Path) -> None:
    state = {k: v for k, v in build_encoder("resnet18").state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    report = load_encoder_weights(build_encoder("resnet18"), tmp_path / "old.pth")
    assert "20 batch counters" in report.table()


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    state = dict(state)
    tensor = state.pop("layer2.0.conv1.weight")
    if how == "unexpected":
        return state | {"layer2.0.conv1.weight": tensor, "register": torch.zeros(3)}
    if how == "mismatched":
        return state | {"layer2.0.conv1.weight": tensor[:, :5]}
    return state


@pytest.mark.parametrize(
    ("how", "named"), [("missing", "layer2.0"), ("unexpected", "register"), ("mismatched", "64, 3, 3")]
)
def test_refuses_what_does_not_fit(tmp_path: Path, how: str, named: str) -> None:
    state = broken(build_encoder("resnet18").state_dict(), how)
    torch.save(state, tmp_path / "part.pth")
    encoder = build_encoder("resnet18")
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=r"part\.pth") as refusal:
        load_encoder_weights(encoder, tmp_path / "part.pth")
    assert named in str(refusal.value)
    assert "minimum" not in str(refusal.value)  # no bundle and no command has it
    assert all(torch.equal(encoder.state_dict()[k], v) for k, v in before.items())
    report = load_encoder_weights(encoder, tmp_path / "part.pth", minimum=0.9)
    assert not report.complete
    assert how in report.table()


def test_refuses_other_input_channels(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "resnet18", in_channels=1)
    with pytest.raises(WeightsError, match=r"1 input channels .* in_channels=1"):
        load_encoder_weights(build_unet("resnet18", in_channels=3), file)


def test_refuses_another_architecture(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "resnet18")
    with pytest.raises(WeightsError, match="holds a resnet18"):
        load_encoder_weights(build_unet("resnet50"), file)


@pytest.mark.parametrize(
    "network",
    [
        lambda: nets.resnet50(spatial_dims=2, n_input_channels=3, bias_downsample=False, num_classes=2),
        lambda: nets.resnet50(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, num_classes=2),
        lambda: nets.FlexibleUNet(3, 2, "resnet18"),
        lambda: nets.FlexibleUNet(3, 2, "efficientnet-b0"),
        lambda: nets.ViT(3, 64, 16, 192, 768, 12, 3, spatial_dims=2),
        lambda: nn.Linear(3, 3),
    ],
    ids=["stem stride 1", "shortcut biases", "parameter-free shortcuts", "EfficientNet", "no class token", "linear"],
)
def test_refuses_networks_that_compute_something_else(tmp_path: Path, network: object) -> None:
    _, file = saved(tmp_path, "resnet50")
    with pytest.raises(WeightsError, match="build"):
        load_encoder_weights(network(), file)


def test_refuses_damage(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "resnet18")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-1000] ^= 1
    for damage in (bytes(flipped), whole[:-4], whole[:3], b""):
        file.write_bytes(damage)
        with pytest.raises(WeightsError, match=r"encoder\.safetensors is .*(damaged|cut off|empty)"):
            read_encoder(file)


def test_refuses_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_encoder(tmp_path)
    torch.save({"epoch": 3, "state_dict": OrderedDict()}, tmp_path / "run.pt")
    with pytest.raises(WeightsError, match=r"run\.pt is a training checkpoint \(epoch, state_dict\)"):
        read_encoder(tmp_path / "run.pt")
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="none of our encoders"):
        read_encoder(tmp_path / "other.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "program.pt")
    with pytest.raises(WeightsError, match=r"program\.pt asks for torch\.nn\.modules\.linear\.Linear"):
        read_encoder(tmp_path / "program.pt")


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"conv1.weight": Attack()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError):
        read_encoder(tmp_path / "evil.pth")
    assert not (tmp_path / "run").exists()


def test_stock_monai_vit_is_filled_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder, file = saved(tmp_path, "vit_tiny", image_size=64)
    arguments = {"classification": True, "num_classes": 6, "qkv_bias": True, "post_activation": "none"}
    network = nets.ViT(3, 64, 16, 192, 768, 12, 3, spatial_dims=2, **arguments).eval()
    assert load_encoder_weights(network, file).complete
    assert "LayerNorm eps 1e-05" in caplog.text
    x = torch.randn(2, 3, 64, 64)
    wanted = network.classification_head(encoder(x))
    assert (network(x)[0] - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_tables_of_key_maps_are_inverse() -> None:
    canonical = randomised(build_encoder("vit_tiny", image_size=64)).state_dict()
    back = from_monai_vit(monai_vit_names(canonical))
    assert back.keys() == canonical.keys()
    for name, tensor in canonical.items():
        if name not in ("cls_token", "pos_embed"):
            assert torch.equal(back[name], tensor)
    assert torch.equal(
        back["cls_token"] + back["pos_embed"][:, :1], canonical["cls_token"] + canonical["pos_embed"][:, :1]
    )


def test_renaming_is_anchored() -> None:
    """Only whole names at the start of a block's part or of the tensor are renamed, never a middle."""
    for name in ("blocks.3.extra.mlp.fc1.weight", "blocks.3.xmlp.fc1.weight", "old.patch_embed.proj.weight"):
        assert list(monai_vit_names({name: torch.zeros(1)})) == [name]
    assert list(monai_vit_names({"blocks.11.mlp.fc1.bias": torch.zeros(1)})) == ["blocks.11.mlp.linear1.bias"]
