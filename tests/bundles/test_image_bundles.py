"""The two bundles of images of any kind on generated data in public layouts, as a user runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from monai_ssl_transfer.data.images.chest_xray14 import finding_names
from monai_ssl_transfer.data.phantoms import image_layouts
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle

ROOT = Path(__file__).resolve().parents[2]
CLASSES, MASKS = "image_classification", "image_segmentation"
NETWORKS = {CLASSES: "classifier_resnet18", MASKS: "unet_resnet18"}
TINY = {"num_workers": 0, "device": torch.device("cpu"), "image_size": 32}


@pytest.fixture(autouse=True)
def strict_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    monkeypatch.chdir(ROOT)


def workflow(bundle: str, kind: str, task: str = "", **override: Any) -> ConfigWorkflow:
    names = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}[kind]
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]
    files += [str(ROOT / "configs" / "tasks" / f"{task}.json")] if task else []
    files.append(str(ROOT / "configs" / "networks" / f"{NETWORKS[bundle]}.json"))
    tiny = TINY | ({"batch_size": 8} if bundle == CLASSES or kind == "train" else {})
    tiny |= {"epochs": 1, "val_interval": 1, "learning_rate": 0.01} if kind == "train" else {}
    purpose = "infer" if kind == "inference" else "train"
    return ConfigWorkflow(files, logging_file=False, workflow_type=purpose, **(tiny | override))


def carry_out(run: ConfigWorkflow) -> ConfigParser:
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()
    return run.parser


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_chest_findings_train_evaluate_inference(tmp_path: Path):
    data, run, names = tmp_path / "nih", tmp_path / "run", finding_names()
    image_layouts.write_chest_xray14(data, patients=30, images_per_patient=1, size=24)
    trained = carry_out(workflow(CLASSES, "train", "nih_chest_xray14", dataset_dir=str(data), output_dir=str(run)))
    assert isinstance(trained.get_parsed_content("loss"), torch.nn.BCEWithLogitsLoss)
    recorded = json.loads((run / "frames.json").read_text())
    assert recorded["test"] == (data / "test_list.txt").read_text().split()
    assert json.loads((run / "classes.json").read_text()) == {"class_names": list(names), "multilabel": True}
    model = {"model_file": str(run / "models" / "model.pt")}
    carry_out(workflow(CLASSES, "evaluate", "nih_chest_xray14", dataset_dir=str(data), **model))
    summary = json.loads((run / "eval" / "summary.json").read_text())
    shown = {name for row in table(run / "eval" / "predictions.csv") for name in row["truth"].split("|")}
    assert summary["absent_classes"] == [name for name in names if name not in shown]
    assert summary["n"] == 6
    areas = [float(row["auroc"]) for row in table(run / "eval" / "metrics.csv") if row["auroc"]]
    assert summary["auroc"] == pytest.approx(np.mean(areas))
    out = tmp_path / "predicted"
    carry_out(workflow(CLASSES, "inference", dataset_dir=str(data / "images_001"), output_dir=str(out), **model))
    found = {Path(row["file"]).name: row for row in table(out / "predictions.csv")}
    judged = {Path(row["file"]).name: row for row in table(run / "eval" / "predictions.csv")}
    both = found.keys() & judged.keys()
    assert both
    for name in both:  # neither the classes nor that there are several findings had to be said again
        values = [[float(rows[name][one]) for one in names] for rows in (found, judged)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_class_folders_are_exported_with_their_names(tmp_path: Path):
    data, run = image_layouts.write_image_folder(tmp_path / "data", images_per_class=4, size=24), tmp_path / "run"
    given = {"dataset_dir": str(data), "output_dir": str(run), "in_channels": 1, "network_def#in_channels": 1}
    carry_out(workflow(CLASSES, "train", "image_folder", **given))
    model = {"model_file": str(run / "models" / "model.pt"), "in_channels": 1, "network_def#in_channels": 1}
    carry_out(workflow(CLASSES, "evaluate", "image_folder", dataset_dir=str(data), **model))
    rows = table(run / "eval" / "predictions.csv")
    assert len(rows) == 16
    assert all(row["file"].split("/")[:2] == ["Testing", row["truth"]] for row in rows)
    exported = export_bundle(CLASSES, run, tmp_path / "out", ExportOptions())
    inference = json.loads((exported / "configs" / "inference.json").read_text())
    assert inference["class_names"] == ["glioma", "meningioma", "notumor", "pituitary"]
    assert (inference["multilabel"], inference["in_channels"]) == (False, 1)


def test_patients_of_ct_slices_are_judged_whole(tmp_path: Path):
    data, run = image_layouts.write_sars_cov2_ct(tmp_path / "data", patients=5, slices=2, size=24), tmp_path / "run"
    carry_out(workflow(CLASSES, "train", "sars_cov2_ct", dataset_dir=str(data), output_dir=str(run)))
    model = {"model_file": str(run / "models" / "model.pt")}
    carry_out(workflow(CLASSES, "evaluate", "sars_cov2_ct", dataset_dir=str(data), **model))
    held_out = {str(Path(name).parent) for name in json.loads((run / "frames.json").read_text())["test"]}
    assert {row["file"] for row in table(run / "eval" / "predictions.csv")} == held_out
    assert json.loads((run / "eval" / "summary.json").read_text())["n"] == len(held_out)


def test_lungs_train_evaluate_inference(tmp_path: Path):
    data, run = image_layouts.write_montgomery(tmp_path / "data", 9, size=32), tmp_path / "run"
    carry_out(workflow(MASKS, "train", "montgomery_lungs", dataset_dir=str(data), output_dir=str(run), image_size=64))
    model = {"model_file": str(run / "models" / "model.pt"), "image_size": 64}
    carry_out(workflow(MASKS, "evaluate", "montgomery_lungs", dataset_dir=str(data), **model))
    rows = table(run / "eval" / "metrics.csv")
    assert {row["class"] for row in rows} == {"lung"}
    assert {row["case"] for row in rows} == set(json.loads((run / "frames.json").read_text())["test"])
    carry_out(
        workflow(MASKS, "inference", dataset_dir=str(data / "CXR_png"), output_dir=str(tmp_path / "masks"), **model)
    )
    for row in rows:  # the written mask is what was judged, against both lungs
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{row['case']}_mask.png")) > 0
        lungs = [np.asarray(Image.open(one)) > 0 for one in (data / "ManualMask").rglob(f"{row['case']}.png")]
        truth = lungs[0] | lungs[1]
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-5)


WRITERS = {
    "image_folder": (CLASSES, image_layouts.write_image_folder),
    "imagenet": (CLASSES, lambda out: image_layouts.write_image_folder(out, ("n01", "n02"), 60, ("train", "val"), 8)),
    "nih_chest_xray14": (CLASSES, image_layouts.write_chest_xray14),
    "sars_cov2_ct": (CLASSES, image_layouts.write_sars_cov2_ct),
    "montgomery_lungs": (MASKS, image_layouts.write_montgomery),
    "shenzhen_lungs": (MASKS, image_layouts.write_shenzhen),
}


@pytest.mark.parametrize("task", WRITERS)
def test_every_layout_is_divided_and_loaded(task: str, tmp_path: Path):
    """Whatever a configuration names is built: one batch of training, one image of validation."""
    bundle, write = WRITERS[task]
    write(tmp_path / "data")
    run = workflow(bundle, "train", task, dataset_dir=str(tmp_path / "data"), output_dir=str(tmp_path), cache_rate=0.0)
    parser = run.parser
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape[1:] == (3, 32, 32)
    loss = parser.get_parsed_content("loss")(parser.get_parsed_content("network")(batch["image"]), batch["label"])
    assert torch.isfinite(loss)
    cases = parser.get_parsed_content("cases")
    assert all(cases[part] for part in ("train", "validation", "test"))
    assert len({case["group"] for part in cases.values() for case in part}) == sum(
        len({case["group"] for case in part}) for part in cases.values()
    )
    assert parser.get_parsed_content("validate#dataset")[0]["image"].shape[0] == 3


SHARED = {
    (CLASSES, "endoscopy_finding_classification"): {
        "lr_scheduler", "optimizer", "loss", "training_labels", "network", "model_file", "initialize",
        "train#preprocessing", "train#dataset", "train#sampler", "train#dataloader", "train#inferer", "train#handlers",
        "train#trainer", "validate#preprocessing", "validate#dataset", "validate#sampler", "validate#dataloader",
        "validate#inferer", "validate#postprocessing", "validate#handlers", "validate#evaluator",
    },
    (MASKS, "endoscopy_polyp_segmentation"): {
        "lr_scheduler", "optimizer", "loss", "network", "model_file", "initialize", "run", "train#preprocessing",
        "train#dataset", "train#sampler", "train#dataloader", "train#inferer", "train#handlers", "train#trainer",
        "validate#dataset", "validate#sampler", "validate#dataloader", "validate#postprocessing", "validate#report",
        "validate#key_metric", "validate#handlers", "validate#evaluator",
    },
}  # fmt: skip


@pytest.mark.parametrize(("bundle", "other"), SHARED)
def test_blocks_that_are_shared_with_endoscopy_do_not_drift(bundle: str, other: str):
    def parsed(name: str, file: str) -> ConfigParser:
        return ConfigParser(ConfigParser.load_config_file(str(ROOT / "bundles" / name / "configs" / file)))

    for block in SHARED[bundle, other]:
        assert parsed(bundle, "train.json")[block] == parsed(other, "train.json")[block], block
    for file in ("evaluate.json", "inference.json"):
        ours, theirs = parsed(bundle, file).get(), parsed(other, file).get()
        wanted = {"initialize", "run", "run_dir", "model_file", "evaluator", "dataloader", "validate#handlers"}
        for block in sorted(wanted & theirs.keys()):
            assert ours[block] == theirs[block], (file, block)
    assert parsed(bundle, "multi_gpu_train.json").get() == parsed(other, "multi_gpu_train.json").get()
