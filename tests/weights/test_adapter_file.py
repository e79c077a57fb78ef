"""An adapter goes back over the encoder that it was trained on, gives the very model of its run, and fits no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from monai_ssl_transfer.engines.transfer.fine_tuning import BestModelSaver, initialise_encoder, load_model
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_dense, build_encoder
from monai_ssl_transfer.networks.adapters import BitFit, LastBlocks, LoRA, NormOnly, adapt, merged_state
from monai_ssl_transfer.weights.adapter_file import SavedAdaptation, load_adapter, save_adapter
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.save import save_encoder

SIDE = 32


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two of each family; the ViT's position embedding is resampled in the networks here."""
    folder, found = tmp_path_factory.mktemp("encoders"), {}
    for name in ("resnet18", "vit_tiny"):
        for number in (0, 1):
            torch.manual_seed(number)
            card = EncoderCard(architecture=name, image_size=64)
            found[f"{name} {number}"] = save_encoder(build_encoder(name, 3, 64), folder / f"{name}{number}", card)
    return found


def network_of(encoder: str, classes: int = 3) -> nn.Module:
    return build_classifier(encoder, classes=classes, image_size=SIDE)


def trained(network: nn.Module, adaptation: Any, encoder: Path, file: Path, steps: int = 2) -> nn.Module:
    """A run: load, adapt, train, keep the best."""
    torch.manual_seed(3)
    initialise_encoder(network, encoder)
    adapt(network, adaptation)
    optimizer = torch.optim.SGD([one for one in network.parameters() if one.requires_grad], lr=0.1)
    for _ in range(steps):
        network.train()
        optimizer.zero_grad()
        network(torch.randn(2, 3, SIDE, SIDE)).square().mean().backward()
        optimizer.step()
    engine = Engine(lambda engine, batch: None)
    engine.state.metrics["score"] = 1.0
    BestModelSaver(network, file, metric="score").attach(engine)
    engine.run([0])
    return network.eval()


@pytest.mark.parametrize(
    ("encoder", "adaptation"),
    [
        ("vit_tiny", LoRA(4, 8.0, ["qkv", "fc1", "fc2", "conv"], 0.1, True)),
        ("resnet18", LoRA(4, 8.0)),
        ("vit_tiny", BitFit()),
        ("resnet18", NormOnly()),
        ("resnet18", LastBlocks()),
    ],
)
def test_an_adapter_over_its_encoder_is_the_model_of_its_run(
    encoder: str, adaptation: Any, encoders: dict[str, Path], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    network = trained(network_of(encoder), adaptation, encoders[f"{encoder} 0"], models / "model.pt")
    assert sorted(path.name for path in models.iterdir()) == ["adapter.safetensors", "model.pt"]
    model = torch.load(models / "model.pt", weights_only=True)
    plain = network_of(encoder)
    assert model.keys() == plain.state_dict().keys()  # the stock network's
    again = load_adapter(network_of(encoder), models / "adapter.safetensors", encoders[f"{encoder} 0"]).eval()
    merged = merged_state(again)
    assert merged.keys() == model.keys()
    assert all(torch.equal(tensor, model[name]) for name, tensor in merged.items())
    load_model(plain, models / "model.pt")
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))
        assert torch.allclose(plain.eval()(x), network(x), atol=1e-5)
    assert {name: one.requires_grad for name, one in again.named_parameters()} == {
        name: one.requires_grad for name, one in network.named_parameters()
    }  # training can go on


def test_an_adapter_is_small_and_says_what_it_is(encoders: dict[str, Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    trained(network_of("vit_tiny"), LoRA(8), encoders["vit_tiny 0"], models / "model.pt", steps=1)
    file = models / "adapter.safetensors"
    assert file.stat().st_size < 0.1 * (models / "model.pt").stat().st_size
    with safe_open(file, framework="pt") as reader:
        about = json.loads(reader.metadata()["adapter"])
        names = set(reader.keys())
    assert (about["adaptation"], about["settings"]["rank"]) == ("LoRA", 8)
    assert len(about["frozen_encoder_hash"]) == 64
    assert {name for name in names if ".lora." not in name} == {
        "classification_head.weight",
        "classification_head.bias",
    }


def test_what_does_not_belong_together_is_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    trained(network_of("vit_tiny"), LoRA(2), encoders["vit_tiny 0"], tmp_path / "model.pt", steps=1)
    with pytest.raises(WeightsError, match="belongs to another encoder"):
        load_adapter(network_of("vit_tiny"), file, encoders["vit_tiny 1"])
    with pytest.raises(WeightsError, match=r"2 tensors are missing.*classification_head"):
        load_adapter(network_of("vit_tiny", classes=4), file, encoders["vit_tiny 0"])
    with pytest.raises(WeightsError, match="build the network of its run"):
        load_adapter(build_dense("vit_tiny", "linear", image_size=SIDE), file, encoders["vit_tiny 0"])
    with pytest.raises(WeightsError, match=r"match|does not fit"):
        load_adapter(network_of("resnet18"), file, encoders["resnet18 0"])


def test_files_that_are_no_adapters_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    network = network_of("vit_tiny")
    with pytest.raises(WeightsError, match="is not adapted"):
        save_adapter(network, tmp_path / "adapter.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        SavedAdaptation(tmp_path / "absent.safetensors").apply(network)
    with pytest.raises(WeightsError, match="is no adapter"):
        SavedAdaptation(encoders["vit_tiny 0"]).apply(network)
    (tmp_path / "cut.safetensors").write_bytes(encoders["vit_tiny 0"].read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged"):
        SavedAdaptation(tmp_path / "cut.safetensors").apply(network)
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"adapter": "not JSON"})
    with pytest.raises(WeightsError, match="is no adapter"):
        SavedAdaptation(tmp_path / "odd.safetensors").apply(network)
