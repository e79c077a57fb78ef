"""The bundle of volumes: it shares its blocks with that of the liver, and trains, judges and writes on phantoms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_ssl_transfer.data.phantoms.volume_layouts import write_brats_layout, write_msd_layout
from monai_ssl_transfer.engines.records.run_config import config_text
from monai_ssl_transfer.errors import UserError, WeightsError, user_error_of
from monai_ssl_transfer.evaluation.robustness_grid import GridOptions, run_grid
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder

ROOT = Path(__file__).resolve().parents[2]
VOLUMES, LIVER = "volume_segmentation", "ct_liver_segmentation"
TINY = {"epochs": 1, "val_interval": 1, "slices_per_epoch": 4, "batch_size": 4, "image_size": 32, "num_workers": 0}
OWN = {
    "train.json": {
        "_desc_", "imports", "bundle_root", "dataset_dir", "out_channels", "class_labels", "class_weights", "loss",
        "cases", "initialize",
    },
    "evaluate.json": {"cases"},
    "inference.json": {
        "_desc_", "imports", "bundle_root", "dataset_dir", "out_channels", "preprocessing", "dataset", "inferer",
    },
    "multi_gpu_train.json": {"initialize"},
}  # fmt: skip
"""What differs from the liver's configurations; below, `network_def`, `train` and `validate` are compared by parts."""
OWN_PARTS = {
    "train": {"deterministic_transforms", "final_transforms", "random_transforms", "dataset"},
    "validate": {"preprocessing", "inferer"},
    "network_def": {"in_channels"},
}


def content(bundle: str, name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(str(ROOT / "bundles" / bundle / "configs" / name))


@pytest.mark.parametrize("name", OWN)
def test_shared_blocks_do_not_drift(name: str) -> None:
    own, liver = content(VOLUMES, name), content(LIVER, name)
    assert liver.keys() <= own.keys()
    for key, value in liver.items():
        if key in OWN_PARTS and isinstance(value, dict):
            assert value.keys() == own[key].keys(), key
            for part in value.keys() - OWN_PARTS[key]:
                assert own[key][part] == value[part], f"{key}#{part}"
        elif key not in OWN[name]:
            assert own[key] == value, key
        else:
            assert own[key] != value, key


def test_shared_transforms_do_not_drift() -> None:
    """The same steps in the same order, but for those that the liver has of its own."""
    own, liver = (content(bundle, "train.json")["train"] for bundle in (VOLUMES, LIVER))
    for part in ("deterministic_transforms", "random_transforms", "final_transforms"):
        plain = [
            [{key: value for key, value in step.items() if key not in ("_desc_", "offset")} for step in one[part]]
            for one in (own, liver)
        ]
        left = [step for step in plain[1] if step not in plain[0]]
        added = [step for step in plain[0] if step not in plain[1]]
        names = [{step["_target_"].rpartition(".")[2] for step in steps} for steps in (left, added)]
        assert (
            names
            == {
                "deterministic_transforms": [{"KnownLabelsd"}, set()],
                "random_transforms": [set(), set()],
                "final_transforms": [{"HUToChannelsd"}, {"VolumeToChannelsd", "TargetMasksd"}],
            }[part]
        )
        common = [step for step in plain[0] if step in plain[1]]
        assert common == [step for step in plain[1] if step in plain[0]]


def workflow(kind: str, overlay: str, **override: Any) -> ConfigWorkflow:
    names = {"evaluate": ("train", "evaluate")}.get(kind, (kind,))
    files = [f"bundles/{VOLUMES}/configs/{name}.json" for name in names]
    files += [f"configs/networks/{override.pop('network')}.json"] if "network" in override else []
    files.append(f"configs/tasks/{overlay}.json")
    small = {} if len(files) > len(names) + 1 else {"network_def#backbone": "resnet18"}  # else MONAI's own network
    settings = {**small, "pixel_spacing": 6.0, "device": torch.device("cpu"), **override}
    return ConfigWorkflow(
        [str(ROOT / file) for file in files],
        logging_file=False,
        workflow_type="infer" if kind == "inference" else "train",
        **settings,
    )


def carry_out(run: ConfigWorkflow) -> None:
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


@pytest.mark.parametrize("task", ["msd", "brats"])
def test_train_evaluate_inference(task: str, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    if task == "msd":
        write_msd_layout(data, 3, ("T1w", "T2w", "PET"), ("kidney", "spleen"))
        names, inputs, values = ["kidney", "spleen"], 2, {0, 1, 2}
        chosen: dict[str, Any] = {"modalities": ["T2w", 0]}
    else:
        write_brats_layout(data, 3)
        names, inputs, values = ["whole tumour", "tumour core", "enhancing tumour"], 4, {0, 1, 2, 4}
        chosen = {}
    carry_out(workflow("train", task, dataset_dir=str(data), output_dir=str(run), **TINY, **chosen))
    kept = json.loads((run / "config.json").read_text())
    outputs = ["background", *names] if task == "msd" else names
    assert (kept["in_channels"], kept["class_names"], kept["volumes"]) == (
        inputs, outputs, [1, 0] if task == "msd" else None,
    )  # fmt: skip
    model = {"model_file": str(run / "models" / "model.pt"), **chosen}
    judging = {"output_dir": str(run / "eval"), "num_workers": 0, "overlay_pictures": True}
    carry_out(workflow("evaluate", task, dataset_dir=str(data), **judging, **model))
    rows = list(csv.DictReader((run / "eval" / "metrics.csv").open()))
    recorded = json.loads((run / "cases.json").read_text())
    judged = recorded["test"]
    assert len(judged) == len(recorded["validation"]) == 1
    assert [(row["case"], row["class"]) for row in rows] == [(case, name) for case in judged for name in names]
    assert list(json.loads((run / "eval" / "overlays" / "cases.json").read_text())) == judged
    assert f"<b>{judged[0]}</b><br>slice" in (run / "eval" / "overlays.html").read_text()
    # without dataset.json, from what the run kept
    images = data / "imagesTr" if task == "msd" else data
    carry_out(workflow("inference", task, dataset_dir=str(images), output_dir=str(tmp_path / "masks"), **model))
    masks = sorted((tmp_path / "masks").rglob("*.nii.gz"))
    assert len(masks) == 3
    for file in masks:
        first = next(images.rglob(file.name.replace("_seg.nii", ".nii")))
        mask, image = nibabel.load(file), nibabel.load(first)
        assert mask.shape == image.shape[:3] and np.array_equal(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8 and set(np.unique(mask.dataobj)) <= values
    case = judged[0]
    label = data / "labelsTr" / f"{case}.nii.gz" if task == "msd" else data / case / f"{case}_seg.nii.gz"
    truth = np.asarray(nibabel.load(label).dataobj)
    written = np.asarray(nibabel.load(next(file for file in masks if file.name.startswith(case))).dataobj)
    for row, one in zip(rows, kept["class_labels"].values(), strict=False):
        a, b = np.isin(written, one), np.isin(truth, one)
        expected = 2 * (a & b).sum() / (a.sum() + b.sum())  # the written mask is what was judged
        assert float(row["dice"]) == pytest.approx(expected, abs=1e-5)
    folder = export_bundle(VOLUMES, run, tmp_path / "out", ExportOptions())
    exported = json.loads((folder / "configs" / "inference.json").read_text())
    assert exported["class_labels"] == kept["class_labels"] and exported["out_channels"] == len(outputs)
    grid = run_grid(GridOptions(VOLUMES, run, (data,), tmp_path / "grid", ("rician_noise",), (5,)))
    assert {(one.corruption, one.severity) for one in grid.cells} == {("rician_noise", 5)}
    assert grid.clean.value == pytest.approx(np.mean([float(row["dice"]) for row in rows]), abs=1e-5)


def test_encoder_of_hu_windows_is_refused_for_mr(tmp_path: Path) -> None:
    data = write_msd_layout(tmp_path / "data", 2, ("MRI",), ("heart",), size=24)
    save_encoder(build_encoder("resnet18", in_channels=3), tmp_path, EncoderCard("resnet18", 3, "windows"))
    weights = {"encoder_weights": str(tmp_path / "encoder.safetensors"), "dataset_dir": str(data), **TINY}
    weights["network"] = "unet_resnet18"
    run = workflow("train", "msd", output_dir=str(tmp_path / "run"), **weights)
    with pytest.raises(Exception) as refused:
        run.initialize()
    cause = user_error_of(refused.value)
    assert isinstance(cause, WeightsError) and "--other_images True" in str(cause)
    run = workflow("train", "msd", output_dir=str(tmp_path / "run"), other_images=True, **weights)
    run.initialize()
    loaded = json.loads((tmp_path / "run" / "encoder_load.json").read_text())
    assert "z_score" in json.dumps(loaded)


def test_network_overlay_after_that_of_the_task_is_named(tmp_path: Path) -> None:
    data = write_brats_layout(tmp_path / "data", 1)
    run = workflow("train", "brats", dataset_dir=str(data), output_dir=str(tmp_path), **{"network_def#in_channels": 3})
    with pytest.raises(Exception) as refused:
        run.initialize()
    cause = user_error_of(refused.value)
    assert isinstance(cause, UserError) and "takes 3 channels but the task gives 4" in str(cause)


def test_only_settled_settings_are_kept_as_computed() -> None:
    parser = ConfigParser({"settled": ["a", "c"], "a": "$1 + 1", "b": "$1 + 2", "c": "$1 + 3"})
    assert (parser.get_parsed_content("a"), parser.get_parsed_content("b")) == (2, 3)
    kept = json.loads(config_text(parser))
    assert (kept["a"], kept["b"], kept["c"]) == (2, "$1 + 2", "$1 + 3")
