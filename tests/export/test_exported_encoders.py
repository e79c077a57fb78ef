"""Exports of an encoder and of a run with adapters, and the chain of licences behind them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.bundle import load
from tiny_exports import ENCODERS, Exported, tiny_card

from monai_ssl_transfer.engines.pretraining.export import FURTHER, LICENCE, EncoderExporter
from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle
from monai_ssl_transfer.methods.simclr import SimCLR
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.weights import load_encoder, read_encoder, save_encoder

START = {"file": "start.pth", "sha256": "0" * 64, "licence": "CC BY-NC 4.0"}
EARLIER = {
    "file": "step_16.ckpt",
    "sha256": "1" * 64,
    "licence": f"{LICENCE}{FURTHER}CC BY-NC 4.0",
    "method": {"name": "simclr", "started_from": START},
}


def content(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_an_encoder_bundle_says_what_the_card_says(pretrained: Exported, monkeypatch: pytest.MonkeyPatch):
    folder, readme = pretrained.folder, (pretrained.folder / "docs" / "README.md").read_text()
    for said in ("1 of 2 epochs", "512 numbers", "frames: 123", "not on PyPI", "embeddings_refused.csv", "3 x 32 x 32"):
        assert said in readme, said
    assert "keep a table of files with patients' names private" in " ".join(readme.split())
    for unsaid in ("ships no weights", "in `scripts`", "lightly==", "224 x 224", "ResNet-50", "| @"):
        assert unsaid not in readme, unsaid
    metadata = content(folder, "configs/metadata.json")
    assert metadata["pred_classes"] == "embedding of 512 numbers"
    assert "lightly" not in metadata["required_packages_version"]
    assert content(folder, "configs/train.json")["continued_run"] is None
    assert content(folder, "encoder/encoder.json")["weights_hash"] == read_encoder(folder / "encoder")[1].weights_hash
    monkeypatch.chdir(folder.parent)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = load(ENCODERS, bundle_dir=folder.parent, workflow_type="inference", device="cpu").eval()
    with torch.no_grad():
        assert torch.equal(found(x), load_encoder(folder / "encoder")(x))


def test_an_adapted_run_is_handed_out_merged(adapted: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    train = content(adapted.folder, "configs/train.json")
    assert train["adaptation"] is None
    assert not [name for name in train if name.startswith("lora")]
    assert "LoRA" not in str(train["_desc_"])
    readme = (adapted.folder / "docs" / "README.md").read_text()
    assert "LoRA (rank 2" in readme
    assert "@lora" not in readme
    assert "--encoder_weights FILE" in readme
    state = torch.load(adapted.folder / "models" / "model.pt", weights_only=True)
    for kind in ("train", "inference"):
        network = load(adapted.name, bundle_dir=adapted.folder.parent, workflow_type=kind, device="cpu")
        found = network.state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_what_a_continued_run_began_with_is_followed(pretrained: Exported, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "model.pt"):
        (run / name).write_bytes((pretrained.run / name).read_bytes())
    encoder = load_encoder(pretrained.run)
    method = {"name": "simclr", "continued_from": {**EARLIER, "licence": ""}}
    save_encoder(encoder, run, tiny_card(method=method))
    (run / "encoder.json").write_text(tiny_card().to_json())  # a loose card does not count
    with pytest.raises(ExportError, match=r"start\.pth.*CC BY-NC 4\.0"):
        export_bundle(ENCODERS, run, tmp_path / "out", ExportOptions(unmeasured=True))
    stated = ExportOptions(unmeasured=True, licence_allows_redistribution=True)
    chain = content(export_bundle(ENCODERS, run, tmp_path / "out", stated), "docs/provenance.json")
    assert [one["file"] for one in chain["sources"]] == ["step_16.ckpt", "start.pth"]


def test_the_card_of_a_continued_run_keeps_the_licence(tmp_path: Path):
    method = SimCLR(build_encoder("resnet18", in_channels=3, image_size=32))
    exporter = EncoderExporter(method, tmp_path, replace(tiny_card(), method={"name": "simclr"}))
    state = SimpleNamespace(epoch=1, max_epochs=1)
    for _ in range(2):  # after every epoch the same
        exporter.export(SimpleNamespace(state=state, continued_from=EARLIER, epoch_offset=1))  # type: ignore[arg-type]
        assert read_encoder(tmp_path)[1].licence == f"{LICENCE}{FURTHER}{EARLIER['licence']}"
