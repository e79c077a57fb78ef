"""Hugging Face's ViT and DINOv2 fill our encoders and compute the same, judged by a forward pass under their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import load_encoder_weights
from monai_ssl_transfer.weights.built import load_encoder
from monai_ssl_transfer.weights.reading.files import read_file
from monai_ssl_transfer.weights.reading.formats import find_encoder

State = dict[str, Tensor]


def names(width: int, patch: int, side: int, dinov2: bool, registers: int = 0) -> State:
    """Random tensors under the names of transformers' ViTModel, Dinov2Model and Dinov2WithRegistersModel."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, side**2 + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
    }
    if dinov2:
        shapes["embeddings.mask_token"] = (1, width)
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, width)
    linear = {f"attention.attention.{part}": (width, width) for part in ("query", "key", "value")}
    linear["attention.output.dense"] = (width, width)
    linear["mlp.fc1" if dinov2 else "intermediate.dense"] = (4 * width, width)
    linear["mlp.fc2" if dinov2 else "output.dense"] = (width, 4 * width)
    for block in range(12):
        start = f"encoder.layer.{block}."
        for norm in ("norm1", "norm2") if dinov2 else ("layernorm_before", "layernorm_after"):
            shapes |= {f"{start}{norm}.weight": (width,), f"{start}{norm}.bias": (width,)}
        for name, shape in linear.items():
            shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
        if dinov2:
            shapes |= {f"{start}layer_scale{number}.lambda1": (width,) for number in (1, 2)}
    shapes |= {"layernorm.weight": (width,), "layernorm.bias": (width,)}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def hugging_face(images: Tensor, state: State, heads: int, eps: float) -> Tensor:
    """The class token after the last norm, as transformers' modeling_vit and modeling_dinov2 compute it."""
    projection = "embeddings.patch_embeddings.projection."
    weight = state[projection + "weight"]
    patches = F.conv2d(images, weight, state[projection + "bias"], stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches], dim=1)
    x = x + state["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in state:
        registers = state["embeddings.register_tokens"].expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    dinov2 = "encoder.layer.0.norm1.weight" in state
    for block in range(12):
        start = f"encoder.layer.{block}."
        normed = layer_norm(x, state, start + ("norm1" if dinov2 else "layernorm_before"), eps)
        query, key, value = (
            linear(normed, state, f"{start}attention.attention.{part}").unflatten(2, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        shares = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        out = linear((shares @ value).transpose(1, 2).flatten(2), state, start + "attention.output.dense")
        x = x + out * state.get(f"{start}layer_scale1.lambda1", torch.ones(()))
        normed = layer_norm(x, state, start + ("norm2" if dinov2 else "layernorm_after"), eps)
        hidden = F.gelu(linear(normed, state, start + ("mlp.fc1" if dinov2 else "intermediate.dense")))
        out = linear(hidden, state, start + ("mlp.fc2" if dinov2 else "output.dense"))
        x = x + out * state.get(f"{start}layer_scale2.lambda1", torch.ones(()))
    return layer_norm(x, state, "layernorm", eps)[:, 0]


def with_head(state: State, start: str) -> State:
    return {start + name: each for name, each in state.items()} | {"classifier.weight": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("architecture", "width", "heads", "patch", "registers", "start"),
    [
        ("vit_tiny", 192, 3, 16, 0, "vit."),
        ("vit_small_dinov2", 384, 6, 14, 0, "dinov2."),
        ("vit_small_dinov2_reg", 384, 6, 14, 4, ""),
    ],
)
def test_it_computes_the_same(
    architecture: str, width: int, heads: int, patch: int, registers: int, start: str, tmp_path: Path
) -> None:
    dinov2, file = patch == 14, tmp_path / "pytorch_model.bin"
    state = names(width, patch, 3, dinov2, registers)
    pooler = {} if dinov2 else {"pooler.dense.weight": torch.ones(2, 2)}
    torch.save(with_head(state | pooler, start) if start else state, file)
    encoder = load_encoder(file)
    assert encoder.card.architecture == architecture
    images = torch.randn(2, 3, 3 * patch, 3 * patch)
    with torch.no_grad():
        got = encoder(images)
        torch.testing.assert_close(got, hugging_face(images, state, heads, 1e-6), rtol=1e-4, atol=1e-4)
        # eps 1e-12 is what transformers' ViT has by default
        torch.testing.assert_close(got, hugging_face(images, state, heads, 1e-12), rtol=1e-2, atol=1e-2)
    target = build_encoder(architecture, image_size=3 * patch)
    report = load_encoder_weights(target, file)
    assert report.complete
    assert any("eps 1e-12" in note for note in report.notes) != dinov2
    found = find_encoder(read_file(file))
    assert found.source.startswith("Hugging Face's DINOv2" if dinov2 else "Hugging Face's ViT")
    fused = f"{start}encoder.layer.3.attention.attention.{{query,key,value}}.bias"
    assert found.names["blocks.3.attn.qkv.bias"] == fused
    unused = {start + "embeddings.mask_token"} if dinov2 else {start + "pooler.dense.weight"}
    assert set(found.dropped) == unused | ({"classifier.weight"} if start else set())


def test_what_is_built_otherwise_is_refused(tmp_path: Path) -> None:
    state = names(192, 16, 3, dinov2=False)
    for name, what in {
        "embeddings.distillation_token": "a distilled DeiT",
        "encoder.layer.2.lambda_1": "a BEiT",
        "embeddings.detection_tokens": "a YOLOS",
    }.items():
        torch.save(state | {name: torch.zeros(1)}, tmp_path / "other.bin")
        with pytest.raises(WeightsError, match=what):
            load_encoder(tmp_path / "other.bin")
    for kind in ("weight", "bias"):
        gone = f"encoder.layer.4.attention.attention.key.{kind}"
        torch.save({name: each for name, each in state.items() if name != gone}, tmp_path / "part.bin")
        with pytest.raises(WeightsError, match=rf"part\.bin .*blocks\.4\.attn\.qkv\.{kind}"):
            load_encoder(tmp_path / "part.bin")
    large = {"embeddings.patch_embeddings.projection.weight": torch.zeros(()).expand(1024, 3, 16, 16)}
    torch.save(state | large, tmp_path / "large.bin")
    with pytest.raises(WeightsError, match="ViT of width 1024, 12 blocks and patches of 16 pixels"):
        load_encoder(tmp_path / "large.bin")


def test_its_config_says_what_no_tensor_shows(tmp_path: Path) -> None:
    torch.save(names(384, 16, 2, dinov2=False), tmp_path / "pytorch_model.bin")
    config = {"num_attention_heads": 12, "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_encoder(tmp_path / "pytorch_model.bin").card.architecture == "vit_small_moco_v3"
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "quick_gelu"}))
    with pytest.raises(WeightsError, match=r"config\.json beside it says \(hidden_act quick_gelu, not gelu\)"):
        load_encoder(tmp_path / "pytorch_model.bin")
