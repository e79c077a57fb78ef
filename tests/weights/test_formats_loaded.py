"""Published checkpoints as they are wrapped fill our encoders, completely or not at all, and compute the same."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_dense, build_encoder
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, read_encoder, save_encoder, starting_from

State = dict[str, Tensor]
SIDE = 56


def randomised(state: State) -> State:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5 if tensor.ndim else tensor
        for name, tensor in state.items()
    }


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def official_dinov2(registers: bool) -> State:
    """Names and shapes of Meta's `dinov2_vits14(_reg4)_pretrain.pth`: positions of 37 x 37 patches and of the token."""
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518)
    state = dict(model.state_dict()) | {"mask_token": torch.empty(1, 384)}
    return randomised(state | ({"register_tokens": torch.empty(1, 4, 384)} if registers else {}))


def chunked(state: State) -> State:
    """Blocks in four groups, as in training checkpoints with FSDP."""
    named = {}
    for name, tensor in state.items():
        parts = name.split(".")
        chunk = [str(int(parts[1]) // 3)] if parts[0] == "blocks" else []
        named[".".join([parts[0], *chunk, *parts[1:]])] = tensor
    return named


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("form", ["backbone", "training"])
def test_dinov2_is_what_timm_makes_of_it(tmp_path: Path, registers: bool, form: str) -> None:
    official = official_dinov2(registers)
    file = tmp_path / "dinov2.pth"
    if form == "backbone":
        torch.save(official, file)
    else:
        heads = {f"{head}.last_layer.weight_v": torch.ones(3, 2) for head in ("dino_head", "ibot_head")}
        torch.save({"teacher": prefixed("backbone.", chunked(official)) | heads}, file)
    name = "vit_small_dinov2_reg" if registers else "vit_small_dinov2"
    encoder = build_encoder(name, image_size=SIDE).eval()
    report = load_encoder_weights(encoder, file)
    assert report.complete
    assert len(report.matched) == (175 if registers else 174)
    assert report.notes[-1] == "position embedding resampled from 37 x 37 to 4 x 4 patches"
    peer_name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    peer = timm.create_model(peer_name, num_classes=0, img_size=SIDE, dynamic_img_size=True).eval()
    peer.load_state_dict(checkpoint_filter_fn(dict(official), peer))
    for size in (SIDE, 42):
        x = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert torch.equal(encoder(x), peer(x))
    assert read_encoder(file)[1].image_size == 518


def test_dinov2_goes_out_and_into_every_network_that_takes_it(tmp_path: Path) -> None:
    encoder = build_encoder("vit_small_dinov2_reg", image_size=28).eval()
    encoder.load_state_dict(randomised(encoder.state_dict()))
    card = EncoderCard("vit_small_dinov2_reg", image_size=28)
    file = save_encoder(encoder, tmp_path / "a", card)
    networks = [build_dense("vit_small_dinov2_reg", kind, image_size=28) for kind in ("linear", "dpt")]
    x = torch.randn(1, 3, 28, 28)
    for number, network in enumerate([*networks, build_classifier("vit_small_dinov2_reg", image_size=28)]):
        assert load_encoder_weights(network.eval(), file).complete
        inside = network.encoder.encoder if hasattr(network.encoder, "encoder") else network.encoder
        with torch.no_grad():
            assert torch.equal(inside(x), encoder(x))
        state, _ = read_encoder(save_encoder(network, tmp_path / str(number), card))
        assert all(torch.equal(state[key], value) for key, value in encoder.state_dict().items())


def test_registers_are_never_dropped(tmp_path: Path) -> None:
    torch.save(official_dinov2(registers=True), tmp_path / "dinov2.pth")
    with pytest.raises(WeightsError, match=r"holds a vit_small_dinov2_reg but .* wants vit_small_dinov2:"):
        load_encoder_weights(build_encoder("vit_small_dinov2", image_size=28), tmp_path / "dinov2.pth")


def dino(state: State) -> dict[str, Any]:
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    return {
        "student": prefixed("module.", prefixed("backbone.", {k: v + 1 for k, v in state.items()}) | head),
        "teacher": prefixed("backbone.", state) | head,
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 400,
        "args": argparse.Namespace(arch="vit_tiny", output_dir="."),
        "fp16_scaler": None,
        "dino_loss": {"center": torch.zeros(1, 5)},
    }


def moco_v2(state: State) -> dict[str, Any]:
    head = {"fc.0.weight": torch.ones(2, 2), "fc.2.bias": torch.ones(2)}
    both = prefixed("encoder_q.", state | head) | prefixed("encoder_k.", {k: v + 1 for k, v in state.items()} | head)
    queue = {"queue": torch.zeros(4, 8), "queue_ptr": torch.zeros(1)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": prefixed("module.", both | queue), "optimizer": {}}


def moco_v3(state: State) -> dict[str, Any]:
    head = {"head.0.weight": torch.ones(2, 2), "head.1.running_mean": torch.ones(2)}
    other = prefixed("momentum_encoder.", {k: v + 1 for k, v in state.items()} | head)
    other |= {"predictor.0.weight": torch.ones(2, 2)}
    return {"epoch": 300, "state_dict": prefixed("module.", prefixed("base_encoder.", state | head) | other)}


def mae(state: State) -> dict[str, Any]:
    decoder = {"decoder_embed.weight": torch.ones(2, 2), "decoder_blocks.0.norm1.bias": torch.ones(2)}
    positions = {"decoder_pos_embed": torch.ones(1, 2, 2), "mask_token": torch.zeros(1, 1, 2)}
    return {"model": state | decoder | positions, "args": argparse.Namespace(mask_ratio=0.75)}


def barlow_twins(state: State) -> dict[str, Any]:
    other = {"projector.0.weight": torch.ones(2, 2), "bn.running_mean": torch.ones(2)}
    return {"epoch": 1000, "model": prefixed("module.", prefixed("backbone.", state) | other), "optimizer": {}}


def radnet(state: State) -> dict[str, Any]:
    return prefixed("encoder.", state) | {"projector.0.weight": torch.ones(2, 2), "ntxent.mask": torch.ones(2, 2)}


def torchvision(state: State) -> dict[str, Any]:
    return state | {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}


WRAPPED: list[tuple[Callable[[State], dict[str, Any]], str]] = [
    (dino, "vit_tiny"),
    (dino, "resnet18"),
    (moco_v2, "resnet18"),
    (moco_v3, "vit_tiny"),
    (mae, "vit_tiny"),
    (barlow_twins, "resnet18"),
    (radnet, "resnet18"),
    (torchvision, "resnet18"),
]


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    return {name: randomised(build_encoder(name, image_size=32).state_dict()) for name in ("vit_tiny", "resnet18")}


@pytest.mark.parametrize(("source", "name"), WRAPPED)
def test_wrapped_encoders_are_found(
    tmp_path: Path, source: Callable[[State], dict[str, Any]], name: str, states: dict[str, State]
) -> None:
    torch.save(source(states[name]), tmp_path / "checkpoint.pth.tar")
    encoder = starting_from(build_encoder(name, image_size=32), tmp_path / "checkpoint.pth.tar")
    assert all(torch.equal(encoder.state_dict()[key], value) for key, value in states[name].items())


def test_timms_safetensors_without_a_card(tmp_path: Path, states: dict[str, State]) -> None:
    save_file(torchvision(states["resnet18"]), tmp_path / "model.safetensors")
    assert load_encoder_weights(build_encoder("resnet18"), tmp_path / "model.safetensors").complete


def test_part_of_an_encoder_is_refused_however_it_is_wrapped(tmp_path: Path, states: dict[str, State]) -> None:
    part = {key: value for key, value in states["vit_tiny"].items() if key != "blocks.4.mlp.fc1.weight"}
    torch.save(dino(part), tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(blocks\.4\.mlp\.fc1\.weight\)"):
        starting_from(build_encoder("vit_tiny", image_size=32), tmp_path / "part.pth")
    torch.save(mae(states["vit_tiny"] | {"blocks.4.mlp.gate": torch.ones(1)}), tmp_path / "more.pth")
    more = r"more\.pth \(MAE file with decoder\) holds all .* and 1 unexpected \(blocks\.4\.mlp\.gate\), which"
    with pytest.raises(WeightsError, match=more) as refused:
        starting_from(build_encoder("vit_tiny", image_size=32), tmp_path / "more.pth")
    assert "100.00 %" not in str(refused.value)


def test_an_embedding_of_another_pooling_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = EncoderCard("vit_tiny", image_size=32, pooling="mean")
    file = save_encoder(build_encoder("vit_tiny", image_size=32, pooling="mean"), tmp_path, card)
    with pytest.raises(WeightsError, match=r"mean of its tokens as embedding .* gives token: run with --pooling mean"):
        load_encoder_weights(build_encoder("vit_tiny", image_size=32), file)
    assert load_encoder_weights(build_encoder("vit_tiny", image_size=32, pooling="mean"), file).complete
    # a start of another training, and networks that have a pooling of their own, may take it
    assert isinstance(starting_from(build_encoder("vit_tiny", image_size=32), file), nn.Module)
    assert load_encoder_weights(build_classifier("vit_tiny", image_size=32), file).complete
    # what a foreign file was pooled by is not known
    torch.save(build_encoder("vit_tiny", image_size=32).state_dict(), tmp_path / "plain.pth")
    with caplog.at_level(logging.INFO):
        assert load_encoder_weights(build_encoder("vit_tiny", image_size=32, pooling="mean"), tmp_path / "plain.pth")
    assert "plain.pth holds a vit_tiny (150 tensors)" in caplog.text
