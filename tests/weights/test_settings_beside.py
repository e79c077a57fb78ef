"""A network whose settings lie beside its weights and that computes something else than its tensors show is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks import nets

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier
from monai_ssl_transfer.weights.read import encoder_facts, read_encoder

RESNET = {"_target_": "monai.networks.nets.resnet18", "spatial_dims": 2, "n_input_channels": 3}
RIGHT = {"conv1_t_size": 7, "conv1_t_stride": 2, "bias_downsample": False}


def written(folder: Path, network: torch.nn.Module, config: dict[str, Any], place: str) -> Path:
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(json.dumps(config))
    return folder / "models" / "model.pt"


@pytest.mark.parametrize("place", ["config.json", "configs/train.json"])
@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"conv1_t_stride": 1}, "conv1_t_stride 1, not 2"),
        ({"conv1_t_stride": "@stride"}, "conv1_t_stride 1, not 2"),
        ({"no_max_pool": True}, "no_max_pool True, not False"),
    ],
)
def test_strides_and_pooling_of_a_monai_resnet(place: str, more: dict[str, Any], problem: str, tmp_path: Path) -> None:
    network = nets.resnet18(spatial_dims=2, n_input_channels=3, **RIGHT)
    config = {"stride": 1, "network_def": RESNET | RIGHT | more}
    file = written(tmp_path, network, config, place)
    with pytest.raises(WeightsError, match=rf"model\.pt .*{Path(place).name} beside it says \({problem}\)"):
        read_encoder(file)
    (tmp_path / place).write_text(json.dumps({"network_def": RESNET | RIGHT}))
    assert read_encoder(file)[1].architecture == "resnet18"
    assert encoder_facts(file).notes == ()
    (tmp_path / place).unlink()
    file.touch()
    file.rename(alone := file.with_name("alone.pt"))
    assert any("no tensor shows the strides" in note for note in encoder_facts(alone).notes)


def test_heads_of_a_monai_vit(tmp_path: Path) -> None:
    network = build_classifier("vit_tiny", image_size=32)
    entry = {"_target_": "monai.networks.nets.ViT", "hidden_size": 192, "num_heads": 12}
    file = written(tmp_path, network, {"network_def": entry}, "config.json")
    with pytest.raises(WeightsError, match=r"num_heads 12, not 3"):
        read_encoder(file)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"_target_": "torchvision.models.resnet18", "replace_stride_with_dilation": [False, True, True]},
            "dilation True",
        ),
        ({"_target_": "torchvision.models.segmentation.fcn_resnet50"}, "dilation True"),
        ({"_target_": "timm.create_model", "model_name": "resnetblur18"}, "blurred strides True"),
        ({"_target_": "timm.create_model", "model_name": "resnet18", "output_stride": 8}, "output_stride 8, not 32"),
    ],
)
def test_dilated_and_blurred_resnets(entry: dict[str, Any], problem: str, tmp_path: Path) -> None:
    network = nets.resnet18(spatial_dims=2, n_input_channels=3, **RIGHT)
    file = written(tmp_path, network, {"network_def": entry}, "config.json")
    with pytest.raises(WeightsError, match=problem):
        read_encoder(file)
