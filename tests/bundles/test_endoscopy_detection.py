"""The polyp detection bundle on tiny photographs in Kvasir-SEG's layout: train, evaluate, predict, export."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import DataLoader
from PIL import Image
from safetensors.torch import save_file

from monai_ssl_transfer.evaluation.detection import DetectedImage, compute_detection_metrics
from monai_ssl_transfer.networks.encoders import build_encoder

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundles" / "endoscopy_polyp_detection" / "configs"
NETWORKS = ROOT / "configs" / "networks"
TINY = {"num_workers": 0, "device": torch.device("cpu"), "image_size": 32}


@pytest.fixture(autouse=True)
def strict_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def kvasir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs, nine with a bright polyp, one without any: `images/` and `kavsir_bboxes.json`."""
    folder = tmp_path_factory.mktemp("detection") / "kvasir-seg"
    (folder / "images").mkdir(parents=True)
    entries: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    for number in range(10):
        rows, columns = (72, 96) if number % 2 else (90, 80)
        photograph = np.full((rows, columns, 3), (120, 40, 30)) + rng.normal(0, 25, (rows, columns, 3))
        x0, y0 = rng.integers(4, 30, 2).tolist()
        x1, y1 = x0 + int(rng.integers(20, 40)), y0 + int(rng.integers(20, 36))
        boxes = [{"label": "polyp", "xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}] if number else []
        if number:
            photograph[y0:y1, x0:x1] += (90, 80, 60)
        Image.fromarray(photograph.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"p{number}.jpg")
        entries[f"p{number}"] = {"height": rows, "width": columns, "bbox": boxes}
    (folder / "kavsir_bboxes.json").write_text(json.dumps(entries))
    return folder


def workflow(kind: str, network: str = "detector_resnet18", **override: Any) -> ConfigWorkflow:
    """A workflow as `python -m monai.bundle run` makes it, tiny."""
    names = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}[kind]
    files = [str(CONFIGS / f"{name}.json") for name in names] + [str(NETWORKS / f"{network}.json")]
    of = "infer" if kind == "inference" else "train"
    return ConfigWorkflow(files, logging_file=False, workflow_type=of, **(TINY | override))


def carry_out(run: ConfigWorkflow) -> None:
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


@pytest.fixture(scope="module")
def trained(kvasir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    run = tmp_path_factory.mktemp("detection") / "run"
    settings = {"epochs": 1, "val_interval": 1, "batch_size": 3, "duplicate_threshold": None}
    carry_out(workflow("train", dataset_dir=str(kvasir), output_dir=str(run), **settings))
    return run


def test_training_keeps_the_best_model_and_its_record(trained: Path):
    assert {path.name for path in (trained / "models").iterdir()} == {"model.pt"}
    record = json.loads((trained / "validation.jsonl").read_text().splitlines()[0])
    assert {"map", "map_50", "map_75", "epoch"} <= record.keys()
    assert 0 <= record["map"] <= record["map_50"] <= 1
    frames = json.loads((trained / "frames.json").read_text())
    assert sorted(frames["train"] + frames["validation"] + frames["test"]) == [f"p{n}" for n in range(10)]


def test_evaluation_and_inference_tell_the_same(trained: Path, kvasir: Path, tmp_path: Path):
    model = str(trained / "models" / "model.pt")
    carry_out(workflow("evaluate", dataset_dir=str(kvasir), model_file=model, output_dir=str(tmp_path / "eval")))
    held_out = json.loads((trained / "frames.json").read_text())["test"]
    rows = list(csv.DictReader((tmp_path / "eval" / "metrics.csv").open()))
    assert [row["name"] for row in rows] == held_out
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["photographs"] == len(held_out)
    settings = {"model_file": model, "output_dir": str(tmp_path / "out"), "score_threshold": 0.0}
    carry_out(workflow("inference", dataset_dir=str(kvasir / "images"), **settings))
    found = json.loads((tmp_path / "out" / "boxes.json").read_text())["photographs"]
    assert list(found) == [f"p{n}.jpg" for n in range(10)]
    truth = json.loads((kvasir / "kavsir_bboxes.json").read_text())
    images = []
    for name in held_out:
        one = found[f"{name}.jpg"]
        assert (one["height"], one["width"]) == (truth[name]["height"], truth[name]["width"])
        true = [[box[edge] for edge in ("xmin", "ymin", "xmax", "ymax")] for box in truth[name]["bbox"]]
        boxes, scores = np.array(one["boxes"], dtype=float).reshape(-1, 4), np.array(one["scores"], dtype=float)
        ones = np.ones(len(boxes), dtype=int), np.ones(len(true), dtype=int)
        images.append(DetectedImage(name, boxes, scores, ones[0], np.array(true).reshape(-1, 4), ones[1]))
    assert compute_detection_metrics(images).map == pytest.approx(summary["map"], abs=0.02)  # rounded for the file


def test_a_photograph_of_any_mode_and_orientation(trained: Path, tmp_path: Path):
    folder = tmp_path / "strange"
    (folder / "inside").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.full((40, 20), 9000, np.uint16)).save(folder / "inside" / "grey16.png")
    Image.fromarray(np.full((300, 20, 4), 90, np.uint8)).save(folder / "alpha.png")
    model = str(trained / "models" / "model.pt")
    carry_out(workflow("inference", dataset_dir=str(folder), model_file=model, output_dir=str(tmp_path / "out")))
    found = json.loads((tmp_path / "out" / "boxes.json").read_text())["photographs"]
    sizes = {name: (one["height"], one["width"]) for name, one in found.items()}
    assert sizes == {"alpha.png": (300, 20), "inside/grey16.png": (40, 20), "turned.jpg": (50, 30)}
    assert (tmp_path / "out" / "boxes.csv").is_file()


def test_a_pretrained_encoder_is_taken_whole_and_frozen_on_demand(kvasir: Path, tmp_path: Path):
    encoder = build_encoder("resnet18")
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    run = workflow(
        "train",
        dataset_dir=str(kvasir),
        output_dir=str(tmp_path / "run"),
        encoder_weights=str(tmp_path / "encoder.safetensors"),
        epochs=1,
        batch_size=3,
        val_interval=2,
        decoder_first_epochs=1,
        duplicate_threshold=None,
    )
    run.initialize()
    body = run.network_def.backbone.body
    assert torch.equal(body.conv1.weight, encoder.conv1.weight)
    head = run.network_def.roi_heads.box_predictor.cls_score.weight.detach().clone()
    run.run()
    assert all(torch.equal(body.state_dict()[name], value) for name, value in encoder.state_dict().items())
    assert not torch.equal(head, run.network_def.roi_heads.box_predictor.cls_score.weight)


def test_workers_draw_differently_and_boxes_move_with_the_photograph(kvasir: Path, tmp_path: Path):
    run = workflow("train", dataset_dir=str(kvasir), output_dir=str(tmp_path), duplicate_threshold=None)
    dataset = run.parser.get_parsed_content("train#dataset")
    collate = run.parser.get_parsed_content("train#dataloader").collate_fn
    copies = torch.utils.data.Subset(dataset, [1] * 8)
    batches = list(DataLoader(copies, batch_size=1, num_workers=2, collate_fn=collate))
    drawn = {tuple(batch["boxes"][0].flatten().tolist()) for batch in batches}
    assert len(drawn) > 4  # eight draws of one photograph; workers with one seed would give each draw twice
    for batch in batches:
        for x0, y0, x1, y1 in batch["boxes"][0].round().int().tolist():
            inside = batch["image"][0][:, y0:y1, x0:x1].float().mean()
            assert inside > batch["image"][0].float().mean()


@pytest.mark.parametrize("network", sorted(path.stem for path in NETWORKS.glob("detector_*.json")))
def test_every_detector_takes_lists_and_gives_boxes(network: str):
    parser = ConfigParser(ConfigParser.load_config_file(str(CONFIGS / "train.json")))
    parser.update(ConfigParser.load_config_file(str(NETWORKS / f"{network}.json")))
    parser.update({"image_size": 64})
    detector = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        found = detector([torch.rand(3, 64, 40), torch.rand(3, 30, 64)])
    assert [one.keys() for one in found] == [{"boxes", "labels", "scores"}] * 2
    assert all(one["boxes"].shape == (len(one["scores"]), 4) for one in found)


def test_torchscript_gives_the_same_boxes(trained: Path, tmp_path: Path):
    parser = ConfigParser(ConfigParser.load_config_file(str(CONFIGS / "inference.json")))
    parser.update(ConfigParser.load_config_file(str(NETWORKS / "detector_resnet18.json")))
    parser.update({"image_size": 64})
    detector = parser.get_parsed_content("network_def").eval()
    detector.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    torch.jit.script(detector).save(str(tmp_path / "model.ts"))
    photographs = [torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        expected = detector(photographs)[0]
        losses, found = torch.jit.load(str(tmp_path / "model.ts"))(photographs)
    assert losses == {}
    for name, value in expected.items():
        assert torch.allclose(found[0][name], value, atol=1e-4), name
