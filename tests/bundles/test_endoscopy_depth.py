"""The depth bundle on tiny videos in C3VD's layout: train, evaluate, predict."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.depth import compute_depth_metrics

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundles" / "endoscopy_depth_estimation" / "configs"
NETWORK = ROOT / "configs" / "networks" / "unet_resnet18.json"
TINY = {"num_workers": 0, "device": torch.device("cpu"), "image_size": 64}
VIDEOS = ("cecum_t1_a", "cecum_t4_b", "trans_t2_b", "trans_t4_a")


@pytest.fixture(autouse=True)
def strict_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def c3vd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of three frames, numbers 8 to 10 (whose names sort otherwise), brightness that falls with depth."""
    folder = tmp_path_factory.mktemp("depth") / "c3vd"
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:54, 0:67]
    for video in VIDEOS:
        (folder / video).mkdir(parents=True)
        for number in (8, 9, 10):
            centre = rng.uniform(15, 50, 2)
            depth = 12 + 1.2 * np.hypot(y - centre[0], x - centre[1])
            grey = (255 * np.exp(-depth / 40))[..., None] * (1, 0.6, 0.5) + rng.normal(0, 3, (*depth.shape, 3))
            depth[:6, :6] = 0  # the corner of the lens
            Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / video / f"{number}_color.png")
            stored = (depth / 100 * 65535).astype(np.uint16)
            Image.fromarray(stored).save(folder / video / f"{number:04d}_depth.tiff")
    return folder


def workflow(kind: str, **override: Any) -> ConfigWorkflow:
    """A workflow as `python -m monai.bundle run` makes it, tiny."""
    names = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}[kind]
    files = [*(str(CONFIGS / f"{name}.json") for name in names), str(NETWORK)]
    of = "infer" if kind == "inference" else "train"
    return ConfigWorkflow(files, logging_file=False, workflow_type=of, **(TINY | override))


def carry_out(run: ConfigWorkflow) -> None:
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


@pytest.fixture(scope="module")
def trained(c3vd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on two videos; the test video is SSL4GIE's."""
    run = tmp_path_factory.mktemp("depth") / "run"
    settings = {"epochs": 2, "val_interval": 1, "batch_size": 3, "test_groups": ["trans_t2_b"]}
    carry_out(workflow("train", dataset_dir=str(c3vd), output_dir=str(run), **settings))
    return run


def test_videos_are_on_one_side_only(trained: Path):
    frames = json.loads((trained / "frames.json").read_text())
    videos = {part: {name[:-5] for name in frames[part]} for part in ("train", "validation", "test")}
    assert videos["test"] == {"trans_t2_b"}
    assert sum(len(found) for found in videos.values()) == len(set().union(*videos.values())) == 4
    records = [json.loads(line) for line in (trained / "validation.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert all(record["negative_rmse_mm"] == -record["rmse_mm"] < 0 for record in records)
    assert {path.name for path in (trained / "models").iterdir()} == {"model.pt"}


def test_what_is_written_is_what_was_judged(trained: Path, c3vd: Path, tmp_path: Path):
    model = str(trained / "models" / "model.pt")
    carry_out(workflow("evaluate", dataset_dir=str(c3vd), model_file=model, output_dir=str(tmp_path / "eval")))
    rows = list(csv.DictReader((tmp_path / "eval" / "metrics.csv").open()))
    assert [row["name"] for row in rows] == [f"trans_t2_b-{number:04d}" for number in (8, 9, 10)]
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["errors"]["rmse_mm"]["mean"] == pytest.approx(
        np.mean([float(row["rmse_mm"]) for row in rows]), rel=1e-4
    )
    out = tmp_path / "out"
    carry_out(workflow("inference", dataset_dir=str(c3vd / "trans_t2_b"), model_file=model, output_dir=str(out)))
    for row, number in zip(rows, (8, 9, 10), strict=True):
        relative = np.asarray(Image.open(out / f"{number}_color_depth.png"))
        truth = np.asarray(Image.open(c3vd / "trans_t2_b" / f"{number:04d}_depth.tiff")) / 65535 * 100
        assert relative.dtype == np.uint16
        assert (relative.min(), relative.max()) == (0, 65535)
        found = compute_depth_metrics(relative.astype(float), truth)  # alignment undoes the stretching
        assert found.rmse_mm == pytest.approx(float(row["rmse_mm"]), rel=1e-3)
        assert found.valid_pixels == int(row["valid_pixels"]) == truth.size - 36


def test_a_photograph_of_any_mode_and_orientation(trained: Path, tmp_path: Path):
    folder = tmp_path / "strange"
    (folder / "inside").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.full((40, 20), 9000, np.uint16)).save(folder / "inside" / "grey16.png")
    model = str(trained / "models" / "model.pt")
    carry_out(workflow("inference", dataset_dir=str(folder), model_file=model, output_dir=str(tmp_path / "out")))
    for name, size in (("turned", (50, 30)), ("inside/grey16", (20, 40))):
        with Image.open(tmp_path / "out" / f"{name}_depth.png") as image:
            assert image.size == size  # as stored, like the photograph's file


def test_a_depth_map_never_replaces_a_photograph(tmp_path: Path):
    for name in ("a.png", "a_depth.png"):
        Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / name)
    run = workflow("inference", dataset_dir=str(tmp_path), output_dir=str(tmp_path))
    with pytest.raises(RuntimeError) as error:
        run.parser.get_parsed_content("dataset#data")
    assert isinstance(error.value.__cause__, DataError)
    assert "name another output_dir" in str(error.value.__cause__)


def test_training_data_are_squares_with_unknown_borders(c3vd: Path, tmp_path: Path):
    run = workflow("train", dataset_dir=str(c3vd), output_dir=str(tmp_path), batch_size=2)
    batch = next(iter(run.parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["label"].shape == (2, 1, 64, 64)
    assert batch["label"].dtype == torch.float32
    known = batch["label"] > 0
    assert not known[:, :, 0].any()  # the letterbox
    assert batch["label"][known].min() > 0.119  # no depth is mixed with the unknown
    assert batch["label"].max() < 1
