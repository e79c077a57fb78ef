"""A trained, evaluated and exported run of each kind: liver in CT, and landmarks in endoscopy; stock MONAI networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from monai_ssl_transfer.data.endoscopy.hyperkvasir import class_names
from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions
from monai_ssl_transfer.data.phantoms.ct_writers import write_lits_layout
from monai_ssl_transfer.engines.pretraining.export import LICENCE
from monai_ssl_transfer.engines.records.run_config import config_text
from monai_ssl_transfer.engines.transfer.fine_tuning import save_model
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.views.windows import normalisation
from monai_ssl_transfer.weights import EncoderCard, save_encoder

ROOT = Path(__file__).resolve().parents[2]
LIVER, LANDMARKS = "ct_liver_segmentation", "endoscopy_finding_classification"
ENCODERS = "endoscopy_ssl_pretraining"
NETWORK = {
    LIVER: {"network_def#backbone": "resnet18"},  # stock FlexibleUNet, as in the bundle, with a small encoder
    LANDMARKS: {"overlay": "configs/networks/classifier_resnet18.json", "image_size": 48, "batch_size": 8},
}
TRAINING = {
    LIVER: {"slices_per_epoch": 4, "batch_size": 4, "image_size": 32, "pixel_spacing": 8.0, "val_interval": 1},
    LANDMARKS: {},
}


@dataclass(frozen=True)
class Exported:
    """A run and what was made of it."""

    name: str
    data: Path
    run: Path
    folder: Path


def workflow(bundle: str, kind: str, **override: Any) -> ConfigWorkflow:
    """A workflow of the package's own bundle, tiny."""
    files = [
        str(ROOT / "bundles" / bundle / "configs" / f"{name}.json")
        for name in {"evaluate": ("train", "evaluate")}.get(kind, (kind,))
    ]
    settings = dict(NETWORK[bundle])
    overlays = [settings.pop("overlay")] if "overlay" in settings else []
    files += [str(ROOT / one) for one in (*overlays, *override.pop("overlays", ()))]
    if bundle == LIVER:
        settings["pixel_spacing"] = 8.0
    settings |= {
        "device": torch.device("cpu"),
        **({} if (bundle, kind) == (LIVER, "inference") else {"num_workers": 0}),
    }
    return ConfigWorkflow(
        files, logging_file=False, workflow_type="infer" if kind == "inference" else "train", **settings | override
    )


def carry_out(run: ConfigWorkflow) -> None:
    run.initialize()
    run.run()
    run.finalize()


def finished(bundle: str, data: Path, folder: Path) -> Exported:
    """Train, evaluate, predict, export."""
    run, paths = folder / "run", {"dataset_dir": str(data)}
    carry_out(workflow(bundle, "train", output_dir=str(run), epochs=1, **TRAINING[bundle], **paths))
    model = {"model_file": str(run / "models" / "model.pt"), **paths}
    carry_out(workflow(bundle, "evaluate", output_dir=str(run / "eval"), **model))
    carry_out(workflow(bundle, "inference", output_dir=str(folder / "predicted"), **model))
    return Exported(bundle, data, run, export_bundle(bundle, run, folder / "out", ExportOptions(zip=True)))


@pytest.fixture(scope="session")
def liver(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("liver")
    write_lits_layout(folder / "lits", 3, PhantomOptions(size=48, slices=8, slice_spacing=(12.0, 14.0), tumour_share=1))
    return finished(LIVER, folder / "lits", folder)


@pytest.fixture(scope="session")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, rng = tmp_path_factory.mktemp("landmarks"), np.random.default_rng(0)
    tree = folder / "hyperkvasir" / "labeled-images" / "lower-gi-tract" / "anatomical-landmarks"
    for name in class_names("landmarks"):
        (tree / name).mkdir(parents=True)
        for number in range(6):
            blotches = rng.integers(0, 255, (6, 6, 3), np.uint8).repeat(7, axis=0).repeat(7, axis=1)
            Image.fromarray(blotches).save(tree / name / f"{name}-{number}.png")
    return finished(LANDMARKS, folder / "hyperkvasir", folder)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The folder of a pretraining that stopped after one of two epochs; its weights are random."""
    folder = tmp_path_factory.mktemp("pretrained")
    files = [f"bundles/{ENCODERS}/configs/train.json", "configs/encoders/resnet18.json"]
    parser = ConfigParser(ConfigParser.load_config_files([str(ROOT / file) for file in files]))
    parser.update({"image_size": 32, "dataset_dir": str(folder / "store"), "continued_run": str(folder)})
    parser.resolve_macro_and_relative_ids()
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(config_text(parser))
    encoder = build_encoder("resnet18", in_channels=3, image_size=32)
    save_encoder(encoder, run, tiny_card())
    save_model(encoder, run / "model.pt")
    return Exported(ENCODERS, folder, run, export_bundle(ENCODERS, run, folder / "out", ExportOptions(unmeasured=True)))


def tiny_card(**changed: Any) -> EncoderCard:
    """The card of an encoder of frames."""
    mean, std = normalisation("rgb")
    facts: dict[str, Any] = {
        "channels": "rgb", "mean": mean, "std": std, "image_size": 32, "pooling": "",
        "method": {"name": "simclr", "epochs": 1, "of_epochs": 2, "options": "temperature=0.1"},
        "data": {"modality": "endoscopy", "frames": 123}, "licence": LICENCE,
    }  # fmt: skip
    return EncoderCard("resnet18", **(facts | changed))


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, landmarks: Exported, pretrained: Exported) -> Exported:
    """Landmarks with LoRA around that encoder."""
    folder = tmp_path_factory.mktemp("adapted")
    paths = {"dataset_dir": str(landmarks.data), "encoder_weights": str(pretrained.run / "encoder.safetensors")}
    overlays = ("configs/protocols/lora.json",)
    run = folder / "run"
    carry_out(workflow(LANDMARKS, "train", overlays=overlays, output_dir=str(run), epochs=1, lora_rank=2, **paths))
    made = export_bundle(LANDMARKS, run, folder / "out", ExportOptions(unmeasured=True))
    return Exported(LANDMARKS, landmarks.data, run, made)
