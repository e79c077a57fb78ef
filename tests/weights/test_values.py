"""Tensors that no encoder can be made of, and other files that are none, are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_encoder
from monai_ssl_transfer.networks.adapters import LoRA, adapt
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, save_encoder
from monai_ssl_transfer.weights.adapter_file import save_adapter
from monai_ssl_transfer.weights.built import load_encoder
from monai_ssl_transfer.weights.inspecting.inspection import inspect_file

ODD = {
    "int8": lambda tensor: tensor.to(torch.int8),
    "bool": lambda tensor: tensor > 0,
    "complex64": lambda tensor: tensor.to(torch.complex64),
    "float8_e4m3fn": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "meta": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
    "qint8": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
}


def state_of(name: str, image_size: int = 32) -> dict[str, Tensor]:
    return dict(build_encoder(name, image_size=image_size).state_dict())


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize(
    ("encoder", "layer"), [("resnet18", "layer1.0.conv1.weight"), ("vit_small", "pos_embed"), ("vit_tiny", "cls_token")]
)
def test_tensors_of_other_kinds_are_refused(tmp_path: Path, kind: str, encoder: str, layer: str) -> None:
    state, file = state_of(encoder), tmp_path / "odd.pth"
    torch.save(state | {layer: ODD[kind](state[layer])}, file)
    with pytest.raises(WeightsError, match=rf"odd\.pth holds {layer} as a .*{kind}.*\.float\(\)") as refusal:
        load_encoder_weights(build_encoder(encoder, image_size=32), file)
    assert inspect_file(file).refusal == str(refusal.value)


@pytest.mark.parametrize("kind", ["meta", "sparse", "qint8"])
def test_such_tensors_are_named_also_where_a_format_is_put_together(tmp_path: Path, kind: str) -> None:
    state, file = state_of("vit_small_dinov2", 28), tmp_path / "odd.pth"
    state["register_tokens"] = torch.zeros(1, 4, 384)
    torch.save(state | {"cls_token": ODD[kind](state["cls_token"])}, file)
    with pytest.raises(WeightsError, match=rf"holds cls_token as a .*{kind}"):
        load_encoder_weights(build_encoder("vit_small_dinov2_reg", image_size=28), file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_other_precision_are_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: each.to(dtype) if each.is_floating_point() else each for name, each in state_of("resnet18").items()}
    save_file(state, tmp_path / "half.safetensors")
    assert load_encoder_weights(build_encoder("resnet18"), tmp_path / "half.safetensors").complete
    assert inspect_file(tmp_path / "half.safetensors").usable


def test_an_adapter_is_no_encoder(tmp_path: Path) -> None:
    network = adapt(build_classifier("resnet18", classes=2), LoRA(2))
    file = save_adapter(network, tmp_path / "adapter.safetensors")
    with pytest.raises(WeightsError, match=r"is an adapter, not an encoder: give models/model\.pt .*SavedAdaptation"):
        load_encoder_weights(build_encoder("resnet18"), file)
    assert "is an adapter" in inspect_file(file).refusal


def test_arguments_of_another_type_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save_encoder(build_encoder("resnet18"), tmp_path, EncoderCard("resnet18"))
    for wrong in ("3", 2.5, True, 0):
        with pytest.raises(WeightsError, match=rf"in_channels {wrong!r} is no positive whole number"):
            load_encoder(file, in_channels=wrong)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="resnet18 has no tokens to choose from"):
        load_encoder(file, pooling="mean")
    assert load_encoder(file, pooling="token").card.pooling == "token"
    (tmp_path / "empty").mkdir()
    assert main(["weights", "inspect", str(tmp_path / "empty")]) == 2
    assert "empty is a folder in which encoder.safetensors does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["weights", "inspect", str(file), "--names", "-3"])
    assert "-3 is below 0" in capsys.readouterr().err
