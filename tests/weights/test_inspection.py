"""What a file is said to be, for people and for programs; the record beside a run; doubts about untrained tensors."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.engines.transfer.fine_tuning import initialise_encoder
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder, build_unet
from monai_ssl_transfer.weights import (
    EncoderCard,
    encoder_facts,
    load_encoder_weights,
    read_encoder,
    save_encoder,
    starting_from,
)
from monai_ssl_transfer.weights import read as reading
from monai_ssl_transfer.weights.inspecting.inspection import inspect_file
from monai_ssl_transfer.weights.inspecting.statistics import doubts, statistics_of
from monai_ssl_transfer.weights.published import files as register
from monai_ssl_transfer.weights.published import published_list


@pytest.fixture
def trained() -> nn.Module:
    """A ResNet-18 none of whose tensors is as it was initialised."""
    torch.manual_seed(0)
    encoder = build_encoder("resnet18")
    for name, tensor in encoder.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if name.endswith("var") else torch.randn_like(tensor) * 0.1)
    return encoder


def dino_file(file: Path, encoder: nn.Module) -> Path:
    state = {f"backbone.{name}": tensor for name, tensor in encoder.state_dict().items()}
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    content = {"teacher": state | head, "epoch": 400, "args": argparse.Namespace(arch="resnet18")}
    torch.save(content, file)
    return file


def test_an_inspection_tells_all_that_matters(tmp_path: Path, trained: nn.Module) -> None:
    file = dino_file(tmp_path / "checkpoint.pth", trained)
    inspection = inspect_file(file)
    assert (inspection.source, inspection.complete, inspection.gaps) == ("DINO training file", True, ())
    assert inspection.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [(group.start, len(group.names)) for group in inspection.used] == [("teacher: backbone.", 120)]
    assert sum(group.numbers for group in inspection.used) == sum(t.numel() for t in trained.state_dict().values())
    assert {group.start: len(group.names) for group in inspection.dropped} == {"head.": 2, "": 2}
    assert inspection.foreign_classes == ("argparse.Namespace",)
    table = inspection.table()
    for part in (inspection.sha256, "dino", "resnet18, 3 input channels", "head for classes", "epoch, args", "layer4"):
        assert part in table
    assert max(map(len, table.splitlines())) <= 120
    values = json.loads(inspection.to_json())
    assert values["card"]["source_hash"] == inspection.sha256
    assert values["card"]["method"] == {"name": "dino"}


def test_what_is_missing_is_named(tmp_path: Path, trained: nn.Module) -> None:
    state = trained.state_dict()
    del state["layer2.0.conv1.weight"]
    state["layer1.0.conv1.weight"] = torch.ones(64, 5, 3, 3)
    torch.save(state | {"gate": torch.ones(1)}, tmp_path / "part.pth")
    inspection = inspect_file(tmp_path / "part.pth")
    assert inspection.gaps == (
        "missing: layer2.0.conv1.weight",
        "not known: gate",
        "of another shape: layer1.0.conv1.weight (64, 5, 3, 3), not (64, 64, 3, 3)",
    )
    assert "NOT COMPLETE" in inspection.table()


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    if how == "missing":
        return {name: tensor for name, tensor in state.items() if not name.startswith("blocks.3.")}
    shapes = {"no square": (1, 201, 192), "no patches": (1, 1, 192), "another width": (1, 5, 96), "flat": (5, 192)}
    if how in shapes:
        return state | {"pos_embed": torch.rand(shapes[how])}
    return state | {"norm.weight": torch.full((192,), float(how))}


@pytest.mark.parametrize(
    ("how", "gap"),
    [
        ("missing", "missing: blocks.3.attn.proj.bias"),
        ("no square", "of another shape: pos_embed (1, 201, 192)"),
        ("no patches", "of another shape: pos_embed (1, 1, 192)"),
        ("another width", "of another shape: pos_embed (1, 5, 96)"),
        ("flat", "of another shape: pos_embed (5, 192)"),
        ("nan", "NaN or infinity in: norm.weight"),
        ("inf", "NaN or infinity in: norm.weight"),
    ],
)
def test_what_load_refuses_is_not_called_whole(
    tmp_path: Path, how: str, gap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vit.pth"
    torch.save(broken(dict(build_encoder("vit_tiny", image_size=32).state_dict()), how), file)
    with pytest.raises(WeightsError):
        load_encoder_weights(build_encoder("vit_tiny", image_size=32), file)
    assert main(["weights", "inspect", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "NOT COMPLETE" in shown or "CANNOT BE USED" in shown
    assert main(["weights", "inspect", str(file), "--json"]) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    values = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert values["refusal"] or any(each.startswith(gap) for each in values["gaps"])


@pytest.mark.parametrize("image_size", [32, 96])
def test_positions_of_another_image_are_whole(tmp_path: Path, image_size: int) -> None:
    torch.save(build_encoder("vit_tiny", image_size=image_size).state_dict(), tmp_path / "vit.pth")
    assert main(["weights", "inspect", str(tmp_path / "vit.pth")]) == 0


def test_a_file_that_is_no_encoder_is_shown_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"module.features.0.weight": torch.ones(64, 3, 3, 3)}}, tmp_path / "vgg.pth")
    assert main(["weights", "inspect", str(tmp_path / "vgg.pth")]) == 1
    shown = capsys.readouterr().out
    assert "CANNOT BE USED" in shown
    assert "this is a VGG" in " ".join(shown.split())
    assert "state_dict: features" in shown


def test_commands(tmp_path: Path, trained: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    file = dino_file(tmp_path / "checkpoint.pth", trained)
    assert main(["weights", "inspect", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "DINO training file"
    assert main(["weights", "inspect", str(file), "--names", "0"]) == 0
    assert "backbone.conv1.weight" not in capsys.readouterr().out
    out = tmp_path / "grey.safetensors"
    assert main(["weights", "convert", str(file), "--to", "timm", "--out", str(out), "--in_channels", "1"]) == 0
    exec(capsys.readouterr().out.partition(" is loaded by\n")[2], scope := {})  # pasted, from any working folder
    assert scope["network"].conv1.in_channels == 1
    assert read_encoder(out)[1].in_channels == 1
    assert main(["weights", "known"]) == 0
    shown = capsys.readouterr().out
    assert "MoCo v3 training file (moco_v3)" in shown
    assert "VITS_GastroNet-5M_DINOv1.pth" in shown
    assert main(["weights", "inspect", str(tmp_path / "gone.pth")]) == 2
    assert "gone.pth" in capsys.readouterr().err


def test_the_licence_of_a_known_file_is_shown_once(
    tmp_path: Path, trained: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(trained.state_dict(), tmp_path / "given.pth")
    sha256 = hashlib.sha256((tmp_path / "given.pth").read_bytes()).hexdigest()
    gastronet = replace(published_list.KNOWN_FILES[0], sha256=sha256)
    monkeypatch.setattr(register, "KNOWN_FILES", (gastronet,))
    monkeypatch.setattr(reading, "_shown", set())
    for _ in range(2):
        _, card = read_encoder(tmp_path / "given.pth")
    assert caplog.text.count("Data Use Agreement") == 1
    assert "acknowledge: Boers et al." in caplog.text
    assert (card.licence, card.method) == (gastronet.licence, {"name": "dino"})
    table = inspect_file(tmp_path / "given.pth").table()
    assert "yes, by its hash: RN50_GastroNet-5M_DINOv1.pth" in table
    assert "handing on: NOT allowed" in table
    assert "acknowledge     Boers" in table


def test_the_record_of_a_start_lies_beside_the_run(tmp_path: Path, trained: nn.Module) -> None:
    file = dino_file(tmp_path / "checkpoint.pth", trained)
    assert initialise_encoder(build_unet("resnet18"), file, tmp_path / "run") == str(file)
    record = json.loads((tmp_path / "run" / "encoder_load.json").read_text())
    assert record["file"] == record["report"]["source"] == "checkpoint.pth"
    assert record["sha256"] == record["card"]["source_hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record["source"], record["report"]["fraction"]) == ("DINO training file", 1.0)
    assert [group["group"] for group in record["report"]["statistics"]] == [
        *("stem", "layer1", "layer2", "layer3", "layer4", "norm")
    ]
    assert "100.00 %" in (tmp_path / "run" / "encoder_load.txt").read_text()
    initialise_encoder(build_unet("resnet18"), None, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "encoder_load.json").read_text()) == {"file": None}
    starting_from(build_encoder("resnet18"), file, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "encoder_load.json").read_text())["file"] == "checkpoint.pth"


def test_statistics_are_those_of_the_tensors(trained: nn.Module) -> None:
    state = trained.state_dict()
    layer4 = torch.cat([t.flatten().double() for n, t in state.items() if n.startswith("layer4") and t.ndim == 4])
    row = next(row for row in statistics_of(state) if row.group == "layer4")
    assert (row.numbers, row.tensors) == (len(layer4), 5)
    assert abs(row.mean - float(layer4.mean())) < 1e-12
    assert abs(row.sd - float(layer4.std(unbiased=False))) < 1e-12
    assert (row.minimum, row.maximum, row.zeros) == (float(layer4.min()), float(layer4.max()), 0.0)


def test_untrained_and_constant_tensors_are_doubted(
    tmp_path: Path, trained: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    assert doubts(trained.state_dict()) == ()
    fresh = " ".join(doubts(build_encoder("resnet18").state_dict()))
    assert "exactly 1 or 0" in fresh
    assert "saw no image" in fresh
    assert "exactly 1 or 0" in " ".join(doubts(build_encoder("vit_tiny", image_size=32).state_dict()))
    trained.layer3[0].conv1.weight.data.zero_()
    torch.save(trained.state_dict(), tmp_path / "part.pth")
    report = load_encoder_weights(build_encoder("resnet18"), tmp_path / "part.pth")
    assert report.warnings == ("layer3.0.conv1.weight is constant: nothing was trained there",)
    assert "WARNING: layer3.0.conv1.weight" in caplog.text
    assert json.loads(report.to_json())["warnings"] == list(report.warnings)


def test_what_is_not_a_number_is_refused(tmp_path: Path, trained: nn.Module) -> None:
    trained.layer3[0].conv1.weight.data[0, 0, 0, 0] = float("nan")
    torch.save(trained.state_dict(), tmp_path / "diverged.pth")
    with pytest.raises(WeightsError, match=r"diverged\.pth holds NaN or infinity in layer3\.0\.conv1\.weight"):
        load_encoder_weights(build_encoder("resnet18"), tmp_path / "diverged.pth")


def test_a_file_is_read_once_and_again_when_it_changed(
    tmp_path: Path, trained: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    card = EncoderCard("resnet18", channels="rgb")
    file = save_encoder(trained, tmp_path, card)
    with caplog.at_level(logging.INFO):
        load_encoder_weights(build_encoder("resnet18"), tmp_path)
        assert encoder_facts(file).card == encoder_facts(tmp_path).card
        assert caplog.text.count("holds a resnet18") == 1
        trained.bn1.weight.data += 1
        save_encoder(trained, tmp_path, card)
        assert encoder_facts(file).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert caplog.text.count("holds a resnet18") == 2


def test_the_card_beside_a_model_counts_if_it_is_of_these_tensors(tmp_path: Path, trained: nn.Module) -> None:
    save_encoder(trained, tmp_path, EncoderCard("resnet18", channels="rgb", licence="of the data"))
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    assert read_encoder(tmp_path / "model.pt")[1].licence == "of the data"
    trained.bn1.weight.data += 1
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    assert read_encoder(tmp_path / "model.pt")[1].licence == ""


def test_a_projection_head_is_no_encoder(tmp_path: Path, trained: nn.Module) -> None:
    from monai_ssl_transfer.weights import save_projection_head

    file = save_encoder(trained, tmp_path, EncoderCard("resnet18"))
    head = nn.Sequential(nn.Linear(512, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU())
    with pytest.raises(WeightsError, match=r"is a projection head, not an encoder: give the encoder\.safetensors"):
        read_encoder(save_projection_head(head, file))
