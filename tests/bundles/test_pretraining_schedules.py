"""Length, continuation, frozen stages and mixed stores as `monai.bundle run` does them, by settings and overlays."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from safetensors.torch import load_file

from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import TrainingError, user_error_of

ROOT = Path(__file__).resolve().parents[2]
TINY = json.loads((Path(__file__).parent / "settings" / "ct_ssl_pretraining.json").read_text())["train"]


def pretrain(folder: Path, store: Path, *overlays: str, **override: Any) -> list[dict[str, Any]]:
    """Run the bundle of CT and return its records, one per epoch."""
    files = [str(ROOT / "bundles" / "ct_ssl_pretraining" / "configs" / "train.json")]
    files += [str(ROOT / "configs" / overlay) for overlay in overlays]
    plain = {"num_workers": 0, "device": torch.device("cpu"), "tensorboard": False, "knn_interval": 0}
    settings = TINY | plain | {"dataset_dir": str(store), "output_dir": str(folder)} | override
    run = ConfigWorkflow(files, logging_file=False, workflow_type="train", **settings)
    run.initialize()
    run.run()
    run.finalize()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def first(region_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 32 images: two epochs of two steps of 8, where a pass over the 24 slices has three."""
    folder = tmp_path_factory.mktemp("first")
    records = pretrain(folder, region_store, "methods/moco_v2.json", total_images=32, warmup_images=8)
    assert [record["iteration"] for record in records] == [2, 4]
    return folder


def test_a_finished_run_is_continued_for_longer(first: Path, region_store: Path, tmp_path: Path) -> None:
    overlay = "methods/moco_v2.json"
    records = pretrain(tmp_path / "longer", region_store, overlay, epochs=1, continued_run=str(first))
    (path,) = (tmp_path / "longer" / "checkpoints").glob("*.ckpt")
    content = torch.load(path, weights_only=True)
    assert content["handlers"]["ContinuedRun"]["epoch_offset"] == 2
    made = json.loads((tmp_path / "longer" / "encoder.json").read_text())["method"]
    assert made["earlier_epochs"] == 2 and made["epochs"] == 1
    source = made["continued_from"]
    assert source["file"] == "step_0000000004.ckpt" and source["method"]["name"] == "moco_v2"
    assert source["sha256"] == hashlib.sha256((first / "checkpoints" / source["file"]).read_bytes()).hexdigest()
    assert [record["iteration"] for record in records] == [3]
    with pytest.raises(Exception) as refused:
        pretrain(tmp_path / "other", region_store, epochs=1, continued_run=str(first))
    assert isinstance(error := user_error_of(refused.value), TrainingError) and "--encoder_weights" in str(error)


def test_an_encoder_is_adapted_with_its_stages_frozen_at_first(first: Path, region_store: Path, tmp_path: Path) -> None:
    weights = first / "encoder.safetensors"
    settings: dict[str, Any] = {"encoder_weights": str(weights), "epochs": 1}
    pretrain(tmp_path, region_store, "methods/simclr.json", "pretraining/adapted.json", **settings)
    before, after = load_file(weights), load_file(tmp_path / "encoder.safetensors")
    assert before.keys() == after.keys()
    assert not before["conv1.weight"].equal(after["conv1.weight"])  # frozen in the first of the epoch's three steps
    made = json.loads((tmp_path / "encoder.json").read_text())
    assert made["method"]["started_from"] | {"method": {}} == {
        "file": "encoder.safetensors",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "licence": "weights: as the pretraining data allows; code: Apache-2.0",
        "method": {},
    }
    assert made["method"]["started_from"]["method"]["name"] == "moco_v2" and "start: weights" in made["licence"]
    assert made["method"]["options"] == "temperature=0.1"
    content = torch.load(next((tmp_path / "checkpoints").glob("*.ckpt")), weights_only=True)
    assert "0.09" in content["fingerprint"]["schedule"]  # 0.3 of SimCLR's 0.3


def test_dino_is_continued_for_longer_and_with_another_drop_path(region_store: Path, tmp_path: Path) -> None:
    """Its options hold fractions of the run's epochs, so that those of two runs are never the same text."""
    same: dict[str, Any] = {"encoder_name": "vit_tiny", "batch_size": 12}
    dino = "methods/dino.json"
    pretrain(tmp_path / "first", region_store, dino, epochs=1, **same)
    changes = {"epochs": 2, "drop_path": 0.3, "teacher_temperature": 0.03, "continued_run": str(tmp_path / "first")}
    records = pretrain(tmp_path / "longer", region_store, dino, **same, **changes)
    assert [record["iteration"] for record in records] == [2, 4]
    card = json.loads((tmp_path / "longer" / "encoder.json").read_text())
    assert card["method"]["earlier_epochs"] == 1 and "teacher_temperature=0.03" in card["method"]["options"]


def test_what_changes_the_result_is_refused_when_a_run_goes_on(
    first: Path, region_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And what the messages of a broken run advise is not; the run is finished, so that nothing is computed."""
    overlay, length = "methods/moco_v2.json", {"total_images": 32, "warmup_images": 8}
    changes = (
        {"momentum": 0.9},
        {"queue_size": 5},
        {"adam_betas": [0.8, 0.9], "optimizer_name": "adamw"},
        {"clip_norm": 1.0},
        {"weight_decay": 0.5},
    )
    for change in changes:
        with pytest.raises(Exception) as refused:
            pretrain(first, region_store, overlay, **length, **change)
        assert "belongs to a run with other settings" in str(user_error_of(refused.value)), change
    caplog.set_level("INFO")
    free = {"accumulation": 2, "on_nonfinite": "skip", "activation_checkpointing": True}
    pretrain(first, region_store, overlay, **length, **free)
    assert "this run is finished" in caplog.text and "going on with accumulation 2, which was 1 before" in caplog.text


def test_adapting_needs_an_encoder(region_store: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception) as refused:
        pretrain(tmp_path, region_store, "pretraining/adapted.json", epochs=1)
    assert "--encoder_weights" in str(user_error_of(refused.value))


@pytest.fixture(scope="module")
def frame_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for number in range(6):
        (folder / "in" / f"p{number}").mkdir(parents=True)
        noise = rng.integers(0, 255, (9, 12, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((64, 48)).save(folder / "in" / f"p{number}" / "0.png")
    assert ingest_frames(folder / "in", folder / "store", workers=1, progress=False).frames == 6
    return folder / "store"


def test_slices_and_frames_share_every_batch(region_store: Path, frame_store: Path, tmp_path: Path) -> None:
    settings = {"second_dataset_dir": str(frame_store), "second_share": 0.25, "second_channels": "rgb"}
    pretraining = ("methods/mae.json", "pretraining/two_stores.json")
    records = pretrain(
        tmp_path, region_store, *pretraining, epochs=2, knn_interval=1, encoder_name="vit_tiny", **settings
    )
    assert [record["iteration"] for record in records] == [4, 8]  # 24 slices at 6 per batch
    assert all(np.isfinite(record["loss"]) and 0 <= record["knn_accuracy"] <= 1 for record in records)
    card = json.loads((tmp_path / "encoder.json").read_text())
    assert card["channels"] == "windows" and card["data"]["modality"] == "mixed"
    assert [part.get("slices", part.get("frames")) for part in card["data"]["stores"]] == [24, 6]
    hashes = {SliceStore(one).content_hash for one in (region_store, frame_store)}
    assert card["source_hash"] not in hashes
