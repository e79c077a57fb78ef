"""The endoscopy pretraining bundle from an ingested folder to an encoder that loads, as `monai.bundle run` does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from safetensors import safe_open

from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.engines.embedding.embed import WholeSliceDataset, read_embeddings
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.weights import load_encoder_weights

ROOT = Path(__file__).resolve().parents[2]
TINY = json.loads((Path(__file__).parent / "settings" / "endoscopy_ssl_pretraining.json").read_text())


def carry_out(kind: str, *names: str, **override: Any) -> None:
    files = [str(ROOT / "bundles" / "endoscopy_ssl_pretraining" / "configs" / name) for name in names]
    override = {"num_workers": 0, "device": torch.device("cpu")} | TINY[kind] | override
    workflow = "infer" if kind == "inference" else "train"
    run = ConfigWorkflow(files, logging_file=False, workflow_type=workflow, **override)
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


@pytest.fixture(scope="module")
def frame_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with four photographs each; reddish ones are of class mucosa, greenish ones of class bile."""
    folder = tmp_path_factory.mktemp("endoscopy")
    rng, rows = np.random.default_rng(0), ["file,label"]
    for number in range(24):
        patient, bile = number // 4, number % 2
        noise = rng.integers(0, 60, (9, 12, 3))
        frame = np.asarray([[[170, 60, 50], [120, 130, 40]][bile]], np.uint8) + noise
        path = folder / "frames" / f"p{patient}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame.astype(np.uint8)).resize((64, 48)).save(path)
        rows.append(f"{path.relative_to(folder / 'frames')},{['mucosa', 'bile'][bile]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    table = folder / "labels.csv"
    report = ingest_frames(folder / "frames", folder / "store", workers=1, labels_csv=table, progress=False)
    assert (report.frames, report.groups, report.labelled) == (24, 6, 24)
    return folder / "store"


@pytest.fixture(scope="module")
def run(frame_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    carry_out("train", "train.json", dataset_dir=str(frame_store), output_dir=str(folder), epochs=2)
    return folder


def test_train_evaluate_inference(frame_store: Path, run: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(0 <= line["knn_accuracy"] <= 1 and np.isfinite(line["loss"]) for line in lines)
    carry_out("evaluate", "train.json", "evaluate.json", dataset_dir=str(frame_store), output_dir=str(run))
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["queries"] == 24 and scores["knn_accuracy"] > 0.9  # colour tells the classes, trained or not
    out = {"dataset_dir": str(frame_store), "output_dir": str(tmp_path / "out")}
    carry_out("inference", "inference.json", encoder_weights=str(run / "encoder.safetensors"), **out)
    embeddings = read_embeddings(tmp_path / "out")
    encoder = build_encoder("resnet18", in_channels=3)
    report = load_encoder_weights(encoder, run / "encoder.safetensors")
    assert "100" in report.table()
    frames = WholeSliceDataset(frame_store, "rgb", 32)
    with torch.no_grad():
        expected = encoder.eval()(torch.stack([frames[i]["image"] for i in range(24)])).numpy()
    np.testing.assert_allclose(embeddings.vectors, expected, atol=1e-4)
    assert embeddings.ids["store_row"].to_pylist() == list(range(24))
    assert set(embeddings.ids["label"].to_pylist()) == {"mucosa", "bile"}
    assert embeddings.card is not None and embeddings.card.channels == "rgb"


def test_the_card_says_how_to_feed_the_encoder(frame_store: Path, run: Path) -> None:
    card = json.loads((run / "encoder.json").read_text())
    assert (card["channels"], card["in_channels"], card["windows"]) == ("rgb", 3, [])
    assert (card["mean"], card["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert card["data"] == {"modality": "endoscopy", "frames": 24, "groups": 6, "labelled": 24}
    assert card["source_hash"] == SliceStore(frame_store).content_hash
    with safe_open(run / "encoder.safetensors", "pt") as file:
        assert file.metadata()
    with pytest.raises(WeightsError):
        load_encoder_weights(build_encoder("resnet18", in_channels=1), run / "encoder.safetensors")
