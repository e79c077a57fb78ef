"""The ViT-S with 12 heads of MoCo v3's authors has the tensors of the one with 6: only who knows the heads is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from monai_ssl_transfer.engines.checkpoints.fingerprint import method_text
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.methods.simclr import SimCLR
from monai_ssl_transfer.networks import build_classifier, build_encoder
from monai_ssl_transfer.weights import load_encoder, load_encoder_weights, save_encoder
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.converting.convert import convert_file
from monai_ssl_transfer.weights.read import read_encoder

NAME = "vit_small_moco_v3"


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_encoder(NAME, image_size=32).eval()


def test_its_heads_are_seen_in_a_network_and_kept_in_a_file(encoder: torch.nn.Module, tmp_path: Path) -> None:
    file = save_encoder(encoder, tmp_path, EncoderCard(architecture=NAME, image_size=32))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load_encoder(file)(images), encoder(images))
    classifier = build_classifier(NAME, classes=2, image_size=32)
    assert load_encoder_weights(classifier, file).complete
    with pytest.raises(WeightsError, match=f"holds a {NAME} but .* wants vit_small:"):
        load_encoder_weights(build_encoder("vit_small", image_size=32), file)


def test_the_training_file_of_its_authors_is_not_taken_for_six_heads(encoder: torch.nn.Module, tmp_path: Path) -> None:
    both = {f"module.base_encoder.{name}": each for name, each in encoder.state_dict().items()}
    both |= {f"module.momentum_encoder.{name}": each for name, each in encoder.state_dict().items()}
    both["module.predictor.0.weight"] = torch.zeros(4, 4)
    file = tmp_path / "vit-s-300ep.pth.tar"
    torch.save({"epoch": 300, "arch": "vit_small", "state_dict": both, "optimizer": {}, "scaler": {}}, file)
    assert read_encoder(file)[1].architecture == NAME
    images = torch.randn(2, 3, 32, 32)
    converted = convert_file(file, "timm", tmp_path / "timm.safetensors")
    network = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=32, num_heads=12).eval()
    from safetensors.torch import load_file

    network.load_state_dict(load_file(converted))
    torch.testing.assert_close(network(images), encoder(images))


def test_fixed_positions_of_a_bare_vit_are_noted(encoder: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(encoder.state_dict())
    grid = torch.arange(4.0)[:, None] * torch.linspace(0.1, 1, 96)
    half = torch.cat([grid.sin(), grid.cos()], dim=1)
    state["pos_embed"] = torch.cat([torch.zeros(1, 384), torch.cat([half, half.flip(0)], dim=1)])[None]
    torch.save(state, tmp_path / "alone.pth")
    report = load_encoder_weights(build_encoder("vit_small", image_size=32), tmp_path / "alone.pth")
    assert any("12 attention heads" in note for note in report.notes)


def test_a_run_with_another_number_of_heads_is_another_run(encoder: torch.nn.Module) -> None:
    assert method_text(SimCLR(encoder)).endswith("12 attention heads")
    assert "attention heads" not in method_text(SimCLR(build_encoder("vit_small", image_size=32)))
