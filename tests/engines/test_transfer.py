from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.networks.nets import FlexibleUNet
from torch import nn

from monai_ssl_transfer.engines.transfer.fine_tuning import BestModelSaver, initialise_encoder, load_model, save_model
from monai_ssl_transfer.engines.transfer.schedules import (
    DatasetEpoch,
    DecoderFirst,
    transfer_parameter_groups,
    transfer_schedule,
)
from monai_ssl_transfer.errors import TrainingError, WeightsError
from monai_ssl_transfer.networks.classification import build_classifier
from monai_ssl_transfer.networks.parts import encoder_modules, encoder_parameter_names
from monai_ssl_transfer.networks.segmentation import build_unet


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        (FlexibleUNet(3, 3, "resnet10", spatial_dims=2), "encoder.conv1.weight", "segmentation_head.0.weight"),
        (build_unet("resnet18"), "encoder.encoder.conv1.weight", "segmentation_head.0.weight"),
        (build_classifier("resnet18", classes=4), "layer4.0.conv1.weight", "fc.weight"),
        (build_classifier("vit_tiny", classes=4, image_size=32), "cls_token", "classification_head.weight"),
    ],
    ids=["stock U-Net", "registered backbone", "ResNet", "ViT"],
)
def test_encoder_and_head_are_told_apart(network: nn.Module, inside: str, outside: str):
    names = encoder_parameter_names(network)
    everything = dict(network.named_parameters())
    assert inside in names
    assert outside in everything
    assert outside not in names
    groups = transfer_parameter_groups(network, 1e-3, 0.1, weight_decay=0.05)
    counted = [id(p) for group in groups for p in group["params"]]
    assert sorted(counted) == sorted(id(p) for p in everything.values() if p.requires_grad)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(everything[inside])] == pytest.approx(1e-4)
    assert rate[id(everything[outside])] == pytest.approx(1e-3)
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_pyramid_of_a_vit_unet_is_new_and_not_frozen():
    network = build_unet("vit_tiny")
    names = encoder_parameter_names(network)
    beside = [n for n, _ in network.named_parameters() if n.startswith("encoder.") and n not in names]
    assert beside
    assert all(name.startswith("encoder.encoder.") for name in names)


def test_schedule_warms_up_and_follows_the_cosine_for_every_group():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = transfer_schedule(optimizer, steps=10, warmup_steps=2)
    rates = []
    for _ in range(10):
        rates.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert [r[0] for r in rates] == pytest.approx(expected)
    assert [r[1] for r in rates] == pytest.approx([0.1 * e for e in expected])
    with pytest.raises(TrainingError, match="warm-up"):
        transfer_schedule(optimizer, steps=2, warmup_steps=2)


def train(network: nn.Module, handler: DecoderFirst, epochs: int) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step(engine: Engine, x: torch.Tensor) -> None:
        network.train()
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    engine = Engine(step)
    handler.attach(engine)
    engine.run([torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(i)) + 2 for i in range(2)], epochs)


def test_decoder_first_keeps_weights_and_statistics_then_lets_go():
    torch.manual_seed(0)
    network = build_unet("resnet18")
    names = {f"{n}.{k}" for n, m in encoder_modules(network).items() for k in m.state_dict()}
    before = {k: v.clone() for k, v in network.state_dict().items()}
    handler = DecoderFirst(network, epochs=1)
    train(network, handler, epochs=1)
    after = network.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in names)  # running mean and variance as well
    assert not torch.equal(before["segmentation_head.0.weight"], after["segmentation_head.0.weight"])
    train(network, DecoderFirst(network, epochs=0), epochs=1)
    handler._release()
    train(network, DecoderFirst(network, epochs=1), epochs=2)
    changed = [n for n in names if not torch.equal(before[n], network.state_dict()[n])]
    assert any("running_mean" in n for n in changed)
    assert "encoder.encoder.conv1.weight" in changed
    assert all(p.requires_grad for p in network.parameters())


def test_no_weights_are_announced_and_missing_weights_are_refused(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    assert initialise_encoder(build_unet("resnet18"), None) == "scratch"
    assert "FROM SCRATCH" in caplog.text
    with pytest.raises(WeightsError):
        initialise_encoder(build_unet("resnet18"), tmp_path / "absent.safetensors")


def test_the_best_model_is_kept(tmp_path: Path):
    network, file = nn.Linear(1, 1, bias=False), tmp_path / "models" / "model.pt"
    saver = BestModelSaver(network, file, metric="dice")
    for value, score in ((1.0, 0.3), (2.0, 0.9), (3.0, 0.5)):
        engine = Engine(lambda engine, batch: None)
        saver.attach(engine)
        nn.init.constant_(network.weight, value)
        engine.state.metrics["dice"] = score
        engine.run([0])
    assert float(torch.load(file, weights_only=True)["weight"]) == 2.0
    assert [path.name for path in file.parent.iterdir()] == ["model.pt"]
    other = nn.Linear(1, 1, bias=False)
    load_model(other, file)
    assert float(other.weight.detach()) == 2.0


def test_a_model_that_does_not_fit_or_is_absent_is_refused(tmp_path: Path):
    save_model(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(TrainingError, match="does not fit"):
        load_model(nn.Linear(3, 2), tmp_path / "model.pt")
    with pytest.raises(TrainingError, match="no model"):
        load_model(nn.Linear(3, 2), tmp_path / "other.pt")


def test_a_folder_that_cannot_be_written_leaves_the_old_model(tmp_path: Path):
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match="could not be written"):
        save_model(nn.Linear(2, 2), tmp_path / "models" / "model.pt")


def test_the_dataset_learns_the_epoch():
    class Drawn:
        epochs: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    engine = Engine(lambda engine, batch: None)
    DatasetEpoch(Drawn()).attach(engine)
    engine.run([0], 3)
    assert Drawn.epochs == [1, 2, 3]
