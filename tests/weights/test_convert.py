"""Converted files load strictly, say what was done, are read back where they can be, or are refused with the remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from monai.networks import nets
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import EncoderCard, read_encoder, save_encoder
from monai_ssl_transfer.weights.converting.convert import TARGETS, ConvertOptions, convert_file
from monai_ssl_transfer.weights.read import encoder_facts
from monai_ssl_transfer.weights.transformer_names import (
    from_monai_mae,
    from_monai_vit,
    from_torchvision_vit,
    monai_mae_names,
    monai_vit_names,
    torchvision_vit_names,
)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By name: the file of a random encoder."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            side = 56 if "dinov2" in name else 64
            card = EncoderCard(
                architecture=name, channels="rgb", image_size=side, licence="CC0", source_hash="abc",
                mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), method={"name": "dino"},
            )  # fmt: skip
            made[name] = save_encoder(build_encoder(name, image_size=side), tmp_path_factory.mktemp(name), card)
        return made[name]

    return make


def built_by(file: Path) -> Any:
    """The network that the code in a file's metadata builds and fills."""
    with safe_open(file, "pt") as reader:
        code = reader.metadata()["load"]
    scope: dict[str, Any] = {}
    exec(code.replace(f'"{file.name}"', f'"{file}"'), scope)
    return scope["network"]


@pytest.mark.parametrize(
    ("name", "to"), [("resnet18", "torchvision"), ("vit_tiny", "torchvision"), ("vit_tiny", "timm")]
)
def test_libraries_files_are_read_back(name: str, to: str, file_of: Callable, tmp_path: Path) -> None:
    given, card = read_encoder(file_of(name))
    state, again = read_encoder(convert_file(file_of(name), to, tmp_path / "out.safetensors"))
    assert state.keys() == given.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in given.items())
    assert (again.architecture, again.licence, again.source_hash) == (name, card.licence, card.source_hash)
    assert again.method == {"name": "dino", "conversion": [f"converted to {to}"]}
    twice = convert_file(tmp_path / "out.safetensors", "timm", tmp_path / "twice.safetensors")
    assert load_file(twice).keys() == given.keys()


@pytest.mark.parametrize(("name", "to"), [("resnet18", "monai-resnet"), ("vit_tiny", "monai-flexible-unet")])
def test_monais_files_are_read_back(name: str, to: str, file_of: Callable, tmp_path: Path) -> None:
    given, _ = read_encoder(file_of(name))
    state, card = read_encoder(convert_file(file_of(name), to, tmp_path / "out.safetensors"))
    assert card.architecture == name
    assert all(torch.equal(state[key], tensor) for key, tensor in given.items())


CHANGED = [
    ("resnet18", "timm", {"in_channels": 1}, (1, 1, 64, 64), 2),
    ("resnet18", "torchvision", {"in_channels": 5}, (1, 5, 64, 64), 2),
    ("resnet18", "monai-resnet", {"in_channels": 1, "spatial_dims": 3}, (1, 1, 32, 32, 32), 3),
    ("vit_tiny", "torchvision", {"in_channels": 1, "image_size": 32}, (1, 1, 32, 32), 3),
    ("vit_tiny", "monai-vit", {"in_channels": 2, "patch_size": 8}, (1, 2, 64, 64), 4),
    ("vit_tiny", "monai-vit", {"in_channels": 1, "image_size": 32, "spatial_dims": 3}, (1, 1, 32, 32, 32), 4),
    ("vit_tiny", "monai-flexible-unet", {"image_size": 96}, (1, 3, 96, 96), 2),
    ("vit_small_dinov2", "timm", {"patch_size": 16, "image_size": 64, "fold_layer_scale": True}, (1, 3, 64, 64), 3),
    ("vit_small_dinov2", "monai-flexible-unet", {"patch_size": 16, "image_size": 64}, (1, 3, 64, 64), 3),
]


@pytest.mark.parametrize(("name", "to", "options", "shape", "lines"), CHANGED)
@torch.no_grad()
def test_changed_files_load_strictly_and_run(
    name: str,
    to: str,
    options: dict[str, Any],
    shape: tuple[int, ...],
    lines: int,
    file_of: Callable,
    tmp_path: Path,
) -> None:
    out = convert_file(file_of(name), to, tmp_path / "out.safetensors", ConvertOptions(**options))
    network = built_by(out)
    given = network(torch.randn(shape))
    assert bool(torch.isfinite(given[0]).all())
    with safe_open(out, "pt") as reader:
        card = EncoderCard.from_json(reader.metadata()["card"], str(out))
        assert reader.metadata()["target"] == to
    assert card.in_channels == shape[1]
    assert card.architecture == ("vit_small" if name == "vit_small_dinov2" else name)
    assert card.image_size == (64 if name == "resnet18" else shape[2])
    assert len(card.method["conversion"]) == lines


def test_changes_are_in_the_card(file_of: Callable, tmp_path: Path) -> None:
    options = ConvertOptions(bgr=True, in_channels=4)
    out = convert_file(file_of("resnet18"), "timm", tmp_path / "out.safetensors", options)
    state, card = read_encoder(out)
    weight = read_encoder(file_of("resnet18"))[0]["conv1.weight"]
    assert torch.allclose(state["conv1.weight"], weight[:, [2, 1, 0, 2]] * 0.75)
    assert card.method["conversion"] == [
        "input channels reversed: BGR instead of RGB",
        "3 input channels to 4: repeated in turn and scaled by 3/4",
        "converted to timm",
    ]
    assert card.mean == (0.3, 0.2, 0.1, 0.3)
    assert card.std == (3.0, 2.0, 1.0, 3.0)
    assert card.channels == ""


def test_the_log_shows_how_to_load(file_of: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        convert_file(file_of("resnet50"), "monai-resnet", tmp_path / "r50.safetensors")
    assert (
        'monai.networks.nets.resnet50(spatial_dims=2, n_input_channels=3, shortcut_type="B", bias_downsample=False, '
        "conv1_t_size=7, conv1_t_stride=2, feed_forward=False)" in caplog.messages[-1]
    )
    assert 'load_file("r50.safetensors")' in caplog.messages[-1]


REFUSED = [
    ("vit_small_dinov2_reg", "monai-vit", {}, "no place for the 4 registers .* convert to timm"),
    ("vit_small_dinov2_reg", "torchvision", {}, "no place for the 4 registers .* convert to timm"),
    ("vit_small_dinov2_reg", "monai-flexible-unet", {}, "no place for the 4 registers .* convert to timm"),
    ("vit_small_dinov2_reg", "timm", {"fold_layer_scale": True}, "leave patch_size and fold_layer_scale out"),
    ("vit_small_dinov2", "torchvision", {}, "give patch_size 16, or convert to monai-vit"),
    ("vit_small_dinov2", "timm", {"patch_size": 16, "image_size": 64}, "fold LayerScale too"),
    ("vit_small_dinov2", "timm", {"patch_size": 16}, "give image_size 64"),
    ("vit_small_dinov2", "monai-flexible-unet", {}, "patch_size 16"),
    ("vit_tiny", "monai-resnet", {}, "vit_tiny is no ResNet: convert to monai-vit"),
    ("vit_tiny", "timm", {"patch_size": 8}, "patches of 8 pixels and no LayerScale"),
    ("vit_tiny", "timm", {"spatial_dims": 3}, "timm has no such network in 3-D"),
    ("vit_tiny", "monai-flexible-unet", {"spatial_dims": 3}, "no 3-D backbone that holds vit_tiny: .* monai-vit"),
    ("resnet18", "monai-flexible-unet", {"spatial_dims": 3}, "no 3-D backbone that holds resnet18: .* monai-resnet"),
    ("resnet18", "monai-vit", {}, "resnet18 is no ViT"),
    ("resnet18", "timm", {"patch_size": 8}, "has no patches: leave patch_size out"),
    ("resnet18", "timm", {"image_size": 96}, "leave image_size out"),
    ("resnet18", "timm", {"fold_layer_scale": True}, "resnet18 has no LayerScale: leave fold_layer_scale out"),
    ("vit_tiny", "monai-vit", {"fold_layer_scale": True}, "vit_tiny has no LayerScale"),
    ("resnet18", "timm", {"in_channels": 0}, "in_channels 0 is no positive whole number"),
    ("resnet18", "timm", {"spatial_dims": 4}, "neither 2 nor 3"),
    ("resnet18", "keras", {}, "choose one of timm, torchvision, monai-resnet, monai-vit, monai-flexible-unet"),
]


@pytest.mark.parametrize(("name", "to", "options", "message"), REFUSED)
def test_what_cannot_be_held_is_refused_and_nothing_written(
    name: str, to: str, options: dict[str, Any], message: str, file_of: Callable, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message) as refusal:
        convert_file(file_of(name), to, tmp_path / "out.safetensors", ConvertOptions(**options))
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_paths_are_checked(file_of: Callable, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"out\.pth does not end in \.safetensors"):
        convert_file(file_of("resnet18"), "timm", tmp_path / "out.pth")
    with pytest.raises(WeightsError, match="write to another one"):
        convert_file(file_of("resnet18").parent, "timm", file_of("resnet18"))
    part = {name: each for name, each in build_encoder("resnet18").state_dict().items() if "layer3.1.bn2" not in name}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"layer3\.1\.bn2\.weight"):
        convert_file(tmp_path / "part.pth", "torchvision", tmp_path / "out.safetensors")


def test_ct_windows_are_not_bgr(tmp_path: Path) -> None:
    card = EncoderCard("resnet18", channels="windows", windows=((40, 400), (0, 100), (50, 50)))
    file = save_encoder(build_encoder("resnet18"), tmp_path, card)
    with pytest.raises(WeightsError, match="windows of CT, not RGB"):
        convert_file(file, "timm", tmp_path / "out.safetensors", ConvertOptions(bgr=True))


def test_files_without_batch_counters_are_completed(tmp_path: Path) -> None:
    """Old files of torchvision."""
    state = {name: each for name, each in build_encoder("resnet18").state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pth")
    network = built_by(convert_file(tmp_path / "old.pth", "monai-resnet", tmp_path / "out.safetensors"))
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build().state_dict().items()}


def test_names_and_shapes_of_vit_base() -> None:
    """The big files, without their values."""
    with torch.device("meta"):
        state = build_encoder("vit_base").state_dict()
    unused = ("heads.", "classification_head.", "decoder_", "mask_token")
    sizes: dict[str, Any] = {"hidden_size": 768, "mlp_dim": 3072, "num_layers": 12, "num_heads": 12, "spatial_dims": 2}
    wanted = [
        (torchvision_vit_names(state), shapes_of(lambda: torchvision.models.vit_b_16())),
        (monai_vit_names(state), shapes_of(lambda: nets.ViT(3, 224, 16, classification=True, qkv_bias=True, **sizes))),
        (monai_mae_names(state), shapes_of(lambda: nets.MaskedAutoEncoderViT(3, 224, 16, qkv_bias=True, **sizes))),
    ]
    for renamed, shapes in wanted:
        encoder = {k: v for k, v in shapes.items() if not k.startswith(unused) and ".norm_cross_attn." not in k}
        assert {name: tensor.shape for name, tensor in renamed.items()} == encoder
        assert len(encoder) == 150


def test_names_are_undone() -> None:
    state = {name: torch.randn(each.shape) for name, each in build_encoder("vit_tiny").state_dict().items()}
    for there, back in (
        (torchvision_vit_names, from_torchvision_vit),
        (monai_vit_names, from_monai_vit),
        (monai_mae_names, from_monai_mae),
    ):
        again = back(there(state))
        assert again.keys() == state.keys()
        for name, tensor in state.items():
            if name not in ("cls_token", "pos_embed") or there is torchvision_vit_names:
                assert torch.equal(again[name], tensor)


def test_unetr_takes_everything_but_the_class_token() -> None:
    sizes: dict[str, Any] = {"hidden_size": 192, "mlp_dim": 768, "num_heads": 3, "qkv_bias": True, "spatial_dims": 2}
    network = nets.UNETR(3, 2, 64, **sizes)
    encoder = build_encoder("vit_tiny", image_size=64)
    nn.init.normal_(encoder.pos_embed)
    result = network.vit.load_state_dict(monai_vit_names(encoder.state_dict(), class_token=False), strict=False)
    assert result.unexpected_keys == []
    assert all(".norm_cross_attn." in name for name in result.missing_keys)
    x = torch.randn(1, 3, 64, 64)
    wanted = encoder.patch_embed.proj(x).flatten(2).transpose(1, 2) + encoder.pos_embed[:, 1:]
    assert torch.allclose(network.vit.patch_embedding(x), wanted, atol=1e-5)


def test_all_targets_are_known() -> None:
    assert TARGETS == ("timm", "torchvision", "monai-resnet", "monai-vit", "monai-flexible-unet")


@pytest.mark.parametrize(("patch", "start"), [(8, ""), (32, "backbone.")])
def test_a_vit_of_other_patches_becomes_one_of_16_as_by_timm(patch: int, start: str, tmp_path: Path) -> None:
    """DINO's ViT-S/8 and timm's ViT-B/32 are of this kind; timm's own loader resamples patches and positions alike."""
    published = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, patch_size=patch).state_dict()
    file = tmp_path / "published.pth"
    torch.save({start + name: tensor for name, tensor in published.items()}, file)
    with pytest.raises(WeightsError, match=rf"patches of {patch} pixels, .*convert --patch_size 16"):
        read_encoder(file)
    out = convert_file(file, "timm", tmp_path / "out.safetensors", ConvertOptions(patch_size=16))
    state, card = read_encoder(out)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64)
    wanted = checkpoint_filter_fn(published, network)
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert card.image_size == 64
    assert card.method["conversion"] == [
        f"patches resampled from {patch} to 16 pixels (FlexiViT)",
        f"position embedding resampled from {64 // patch} x {64 // patch} to 4 x 4 patches",
        "converted to timm",
    ]
    with pytest.raises(WeightsError, match="patches of"):  # what was resampled is not remembered as the file's own
        encoder_facts(file)
    with pytest.raises(WeightsError, match=rf"patches of {patch} pixels"):
        convert_file(file, "timm", tmp_path / "none.safetensors", ConvertOptions(patch_size=12))
