"""ViTs of Google's JAX programs get timm's names and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer, _load_weights
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import load_encoder_weights
from monai_ssl_transfer.weights.reading.augreg import augreg_to_timm
from monai_ssl_transfer.weights.reading.files import read_file

DEPTH, WIDTH, HEADS, PATCH, SIDE, CLASSES = 2, 12, 3, 4, 8, 5


def jax_arrays(number: str = "1", later: str = "2", mlp: str = "3") -> dict[str, np.ndarray]:
    """A small ViT as the JAX programs store it; the numbers count the layers inside of a block."""
    random = np.random.default_rng(0)
    head = WIDTH // HEADS

    def values(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    arrays = {
        "cls": values(1, 1, WIDTH),
        "embedding/kernel": values(PATCH, PATCH, 3, WIDTH),
        "embedding/bias": values(WIDTH),
        "Transformer/posembed_input/pos_embedding": values(1, 1 + (SIDE // PATCH) ** 2, WIDTH),
        "Transformer/encoder_norm/scale": values(WIDTH),
        "Transformer/encoder_norm/bias": values(WIDTH),
        "head/kernel": values(WIDTH, CLASSES),
        "head/bias": values(CLASSES),
    }
    for block in range(DEPTH):
        start = f"Transformer/encoderblock_{block}/"
        for norm in ("0", later):
            arrays |= {f"{start}LayerNorm_{norm}/{part}": values(WIDTH) for part in ("scale", "bias")}
        attention = f"{start}MultiHeadDotProductAttention_{number}/"
        for name in ("query", "key", "value"):
            arrays |= {f"{attention}{name}/kernel": values(WIDTH, HEADS, head)}
            arrays |= {f"{attention}{name}/bias": values(HEADS, head)}
        arrays |= {f"{attention}out/kernel": values(HEADS, head, WIDTH), f"{attention}out/bias": values(WIDTH)}
        for layer, shape in (("0", (WIDTH, 4 * WIDTH)), ("1", (4 * WIDTH, WIDTH))):
            arrays |= {f"{start}MlpBlock_{mlp}/Dense_{layer}/kernel": values(*shape)}
            arrays |= {f"{start}MlpBlock_{mlp}/Dense_{layer}/bias": values(shape[1])}
    return arrays


def network() -> VisionTransformer:
    return VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=CLASSES
    ).eval()


def read(arrays: dict[str, Any], file: Path) -> dict[str, Any]:
    np.savez(file, **arrays)
    found = read_file(file)
    assert found.format == "AugReg npz"
    return dict(found.content)


def test_timms_own_loader_gives_the_same_tensors(tmp_path: Path) -> None:
    state = read(jax_arrays(), tmp_path / "vit.npz")
    peer = network()
    _load_weights(peer, str(tmp_path / "vit.npz"))
    expected = peer.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    ours = network()
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(ours(x), peer(x))


def jax_forward(arrays: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """The network as JAX computes it, in numpy: image (H, W, 3), logits (classes)."""
    a = {name: array.astype(np.float64) for name, array in arrays.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * a[name + "/scale"] + a[name + "/bias"]

    side = SIDE // PATCH
    patches = image.reshape(side, PATCH, side, PATCH, 3).transpose(0, 2, 1, 3, 4)
    tokens = np.einsum("ijhwc,hwcd->ijd", patches, a["embedding/kernel"]).reshape(-1, WIDTH) + a["embedding/bias"]
    x = np.concatenate([a["cls"][0], tokens]) + a["Transformer/posembed_input/pos_embedding"][0]
    for block in range(DEPTH):
        start = f"Transformer/encoderblock_{block}/"
        attention = start + "MultiHeadDotProductAttention_1/"
        y = norm(x, start + "LayerNorm_0")
        query, key, value = (
            np.einsum("nd,dhk->hnk", y, a[f"{attention}{name}/kernel"]) + a[f"{attention}{name}/bias"][:, None]
            for name in ("query", "key", "value")
        )
        score = np.exp(query @ key.transpose(0, 2, 1) / (WIDTH // HEADS) ** 0.5)
        seen = score / score.sum(-1, keepdims=True) @ value
        x = x + np.einsum("hnk,hkd->nd", seen, a[attention + "out/kernel"]) + a[attention + "out/bias"]
        dense = start + "MlpBlock_3/Dense_"
        hidden = torch.from_numpy(norm(x, start + "LayerNorm_2") @ a[dense + "0/kernel"] + a[dense + "0/bias"])
        x = x + torch.nn.functional.gelu(hidden).numpy() @ a[dense + "1/kernel"] + a[dense + "1/bias"]
    return norm(x, "Transformer/encoder_norm")[0] @ a["head/kernel"] + a["head/bias"]


def test_the_network_computes_what_jax_computes(tmp_path: Path) -> None:
    arrays = jax_arrays()
    ours = network().double()
    ours.load_state_dict({name: tensor.double() for name, tensor in read(arrays, tmp_path / "vit.npz").items()})
    image = np.random.default_rng(1).standard_normal((SIDE, SIDE, 3))
    with torch.no_grad():
        given = ours(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    expected = jax_forward(arrays, image)
    assert np.abs(given - expected).max() / np.abs(expected).max() < 1e-12


def test_a_bundle_takes_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DEPTH": 12, "WIDTH": 192, "HEADS": 3, "PATCH": 16, "SIDE": 32}.items():
        monkeypatch.setitem(globals(), name, value)
    arrays = jax_arrays()
    np.savez(tmp_path / "Ti_16.npz", **arrays)
    encoder = build_encoder("vit_tiny", image_size=32)
    report = load_encoder_weights(encoder, tmp_path / "Ti_16.npz")
    assert report.complete
    assert report.fraction == 1
    found = encoder.state_dict()
    query = arrays["Transformer/encoderblock_11/MultiHeadDotProductAttention_1/query/kernel"]
    assert np.array_equal(found["blocks.11.attn.qkv.weight"][:192].numpy(), query.reshape(192, 192).T)
    assert np.array_equal(found["pos_embed"].numpy(), arrays["Transformer/posembed_input/pos_embedding"])


def test_names_and_shapes_of_the_real_file_fill_timms_vit() -> None:
    model = timm.create_model("vit_small_patch16_224.augreg_in21k", num_classes=3)
    arrays: dict[str, Tensor] = {
        "cls": torch.zeros(1, 1, 384),
        "embedding/kernel": torch.zeros(16, 16, 3, 384),
        "embedding/bias": torch.zeros(384),
        "Transformer/posembed_input/pos_embedding": torch.zeros(1, 197, 384),
        "Transformer/encoder_norm/scale": torch.zeros(384),
        "Transformer/encoder_norm/bias": torch.zeros(384),
        "head/kernel": torch.zeros(384, 3),
        "head/bias": torch.zeros(3),
    }
    small = [name for name in jax_arrays() if "encoderblock_0/" in name]
    shapes: dict[str, tuple[int, ...]] = {
        "out/kernel": (6, 64, 384),
        "Dense_0/kernel": (384, 1536),
        "Dense_0/bias": (1536,),
        "Dense_1/kernel": (1536, 384),
    }
    for name in ("query", "key", "value"):
        shapes |= {f"{name}/kernel": (384, 6, 64), f"{name}/bias": (6, 64)}
    for block in range(12):
        for name in small:
            shape = shapes.get("/".join(name.split("/")[-2:]), (384,))
            arrays[name.replace("encoderblock_0/", f"encoderblock_{block}/")] = torch.zeros(1).expand(shape)
    state = augreg_to_timm(arrays)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_the_classifiers_hidden_layer_and_the_optimizer_are_kept_apart(tmp_path: Path) -> None:
    arrays = jax_arrays()
    hidden = {"pre_logits/kernel": np.ones((WIDTH, 4), np.float32), "pre_logits/bias": np.ones(4, np.float32)}
    state = read(arrays | hidden, tmp_path / "a.npz")
    assert state["pre_logits.fc.weight"].shape == (4, WIDTH)
    training = {f"opt/target/{name}": array for name, array in arrays.items()} | {"opt/state/step": np.array(3)}
    content = read(training, tmp_path / "b.npz")
    assert content["optimizer"]["opt/state/step"] == 3
    plain = read(arrays, tmp_path / "c.npz")
    assert content["model"].keys() == plain.keys()
    assert all(torch.equal(content["model"][name], tensor) for name, tensor in plain.items())


def test_big_vision_counts_layers_otherwise(tmp_path: Path) -> None:
    old = jax_arrays()
    new = jax_arrays("0", "1", "0")
    new["pos_embedding"] = new.pop("Transformer/posembed_input/pos_embedding")
    first = read(old, tmp_path / "old.npz")
    second = read({f"params/{name}": array for name, array in new.items()}, tmp_path / "new.npz")
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_half_precision_of_jax_is_read(tmp_path: Path) -> None:
    exact = {name: torch.from_numpy(array).bfloat16() for name, array in jax_arrays().items()}
    arrays = {name: tensor.view(torch.int16).numpy().view("V2") for name, tensor in exact.items()}
    state = read(arrays, tmp_path / "a.npz")
    assert state["norm.weight"].dtype == torch.float32
    assert torch.equal(state["norm.weight"], exact["Transformer/encoder_norm/scale"].float())


def changed(**more: np.ndarray) -> dict[str, np.ndarray]:
    return jax_arrays() | more


def test_other_numpy_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    lacking = jax_arrays()
    del lacking["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias"]
    cases = [
        ({"features": np.ones(3)}, r"not those of a ViT from AugReg \(its first: features\)"),
        (changed(**{"conv_root/kernel": np.ones((7, 7, 3, 4))}), "no place for its conv_root/kernel"),
        (changed(**{"Transformer/encoderblock_0/Gate_0/scale": np.ones(3)}), "no place for its .*Gate_0/scale"),
        (lacking, "encoderblock_1/MultiHeadDotProductAttention_1/key/bias"),
        ({"embedding/kernel": np.array([{"a": 1}])}, "cannot be read as numpy arrays"),
    ]
    for arrays, reason in cases:
        np.savez(file, **arrays)
        with pytest.raises(WeightsError, match=reason) as caught:
            read_file(file)
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)
    np.savez(file, **jax_arrays())
    whole = file.read_bytes()
    file.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    with pytest.raises(WeightsError, match=r"cannot be read as numpy arrays .*CRC"):
        read_file(file)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="is cut off or damaged"):
        read_file(file)
