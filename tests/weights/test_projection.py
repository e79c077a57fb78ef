"""Fine-tuning from a middle layer of the projection head: a classifier begins with what pretraining left."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_ssl_transfer.engines.pretraining.export import EncoderExporter
from monai_ssl_transfer.engines.transfer.fine_tuning import initialise_encoder
from monai_ssl_transfer.engines.transfer.schedules import encoder_parameter_names
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.methods.simclr import SimCLR
from monai_ssl_transfer.networks import build_encoder, build_projected_classifier
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, read_encoder
from monai_ssl_transfer.weights.projection import PROJECTION_NAME

OVERLAYS = Path(__file__).resolve().parents[2] / "configs" / "networks"
IMAGE = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def pretrained(folder: Path, seed: int = 0, layers: int = 3, hidden_dim: int = 24) -> tuple[SimCLR, Path]:
    """A method in which batch norm has seen something, and the encoder that its run left."""
    torch.manual_seed(seed)
    method = SimCLR(build_encoder("resnet18"), hidden_dim=hidden_dim, layers=layers)
    with torch.no_grad():
        method.train().projection_head(method.encoder(IMAGE))
    engine: Any = SimpleNamespace(state=SimpleNamespace(epoch=3, max_epochs=10), continued_from=None)
    EncoderExporter(method, folder, EncoderCard("resnet18", method={"name": "simclr_v2"})).export(engine)
    return method, folder / "encoder.safetensors"


def test_features_are_those_of_the_pretrained_head(tmp_path: Path) -> None:
    method, file = pretrained(tmp_path)
    network = build_projected_classifier("resnet18", classes=5, hidden_dim=24)
    report = load_encoder_weights(network, file)
    assert report.complete
    assert report.notes == ("the first layers of the projection head are filled too (6 tensors)",)
    head = method.projection_head.layers
    with torch.no_grad():
        features = method.eval().encoder(IMAGE)
        wanted = head[2](head[1](head[0](features)))
        assert wanted.std() > 0
        assert torch.equal(network.eval().encoder(IMAGE), wanted)
        logits = network(IMAGE)
        assert torch.equal(logits, network.classification_head(wanted))
        assert torch.equal(torch.jit.script(network)(IMAGE), logits)


def test_gradient_reaches_everything_and_the_head_belongs_to_the_encoder() -> None:
    network = build_projected_classifier("resnet18", classes=5, hidden_dim=24).train()
    network(IMAGE).square().mean().backward()
    names = dict(network.named_parameters())
    assert [name for name, parameter in names.items() if parameter.grad is None] == []
    assert names.keys() - encoder_parameter_names(network) == {
        "classification_head.weight",
        "classification_head.bias",
    }


def test_overlay_takes_the_files_of_a_run(tmp_path: Path) -> None:
    method, file = pretrained(tmp_path, hidden_dim=2048)
    parser = ConfigParser(json.loads((OVERLAYS / "classifier_resnet18_projected.json").read_text()))
    parser.update({"class_names": ["a", "b", "c"], "image_size": 32})
    network = parser.get_parsed_content("network_def")
    for way in (file, tmp_path, tmp_path / "encoder.json", tmp_path / "model.pt"):
        nn.init.zeros_(network.encoder.projection_head[0].weight)
        initialise_encoder(network, str(way))
        assert torch.equal(network.encoder.projection_head[0].weight, method.projection_head.layers[0].weight)
    assert network(IMAGE).shape == (4, 3)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    _, file = pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / PROJECTION_NAME, "pt") as reader:
        card = json.loads(reader.metadata()["card"])
        assert set(reader.keys()) >= {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert card["architecture"] == "resnet18"
    assert card["method"] == {"name": "simclr_v2", "epochs": 3, "of_epochs": 10, "options": "temperature=0.2"}
    assert card["layers"] == ["Linear", "BatchNorm1d", "ReLU"]
    assert card["hidden_dim"] == 24
    assert card["encoder_hash"] == read_encoder(file)[1].weights_hash


def test_two_layers_leave_no_head(tmp_path: Path) -> None:
    _, file = pretrained(tmp_path, layers=2)
    network = build_projected_classifier("resnet18", hidden_dim=24)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"projection_head\.safetensors does not exist .*simclr_v2"):
        load_encoder_weights(network, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_head_of_another_run_width_or_damaged_is_refused(tmp_path: Path) -> None:
    _, file = pretrained(tmp_path / "one")
    pretrained(tmp_path / "two", seed=1)
    with pytest.raises(
        WeightsError, match=r"holds Linear, BatchNorm1d, ReLU of width 24 .*--network_def#hidden_dim 24"
    ):
        load_encoder_weights(build_projected_classifier("resnet18", hidden_dim=32), file)
    head, network = tmp_path / "one" / PROJECTION_NAME, build_projected_classifier("resnet18", hidden_dim=24)
    whole = head.read_bytes()
    for damage in (whole[:-4], whole[:-9] + b"\1" + whole[-8:], whole[:3]):
        head.write_bytes(damage)
        with pytest.raises(WeightsError, match=r"projection_head\.safetensors is damaged"):
            load_encoder_weights(network, file)
    head.write_bytes((tmp_path / "two" / PROJECTION_NAME).read_bytes())
    with pytest.raises(WeightsError, match="belongs to another encoder than the one in"):
        load_encoder_weights(network, file)


def test_card_says_the_pooling_of_what_was_trained(tmp_path: Path) -> None:
    engine: Any = SimpleNamespace(state=SimpleNamespace(epoch=1, max_epochs=1), continued_from=None)
    for pooling in ("mean", "token"):
        method = SimCLR(build_encoder("vit_tiny", image_size=32, pooling=pooling), hidden_dim=8)
        EncoderExporter(method, tmp_path, EncoderCard("vit_tiny", image_size=32)).export(engine)
        assert read_encoder(tmp_path)[1].pooling == pooling
