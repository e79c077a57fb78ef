"""Exported bundles with small random networks, as somebody serves them unmodified in MONAI Label's own app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_ssl_transfer.engines.records.run_config import config_text
from monai_ssl_transfer.engines.transfer.fine_tuning import save_model
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle

ROOT = Path(__file__).resolve().parents[2]
UNET, CLASSIFIER, DETECTOR = "unet_resnet18", "classifier_resnet18", "detector_resnet18"
OVERLAYS = {
    "ct_body_region_classification": CLASSIFIER,
    "ct_liver_segmentation": None,
    "endoscopy_angiodysplasia_classification": CLASSIFIER,
    "endoscopy_angiodysplasia_segmentation": UNET,
    "endoscopy_depth_estimation": UNET,
    "endoscopy_finding_classification": CLASSIFIER,
    "endoscopy_polyp_detection": DETECTOR,
    "endoscopy_polyp_segmentation": UNET,
    "image_classification": CLASSIFIER,
    "image_segmentation": UNET,
    "volume_segmentation": None,
}
"""Every downstream bundle, with the overlay of a small network; None: the stock FlexibleUNet with a small encoder."""
SMALL = {"image_size": 64, "batch_size": 2, "slices_per_epoch": 4, "pixel_spacing": 6.0, "warmup_epochs": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "image_classification": {"classes": ["adenoma", "normal", "ulcer"]},
    "volume_segmentation": {"class_labels": {"spleen": [1], "kidney": [2]}},
    "endoscopy_polyp_detection": {"network_def#score_threshold": 0.0, "score_threshold": 0.0},
}


def exported(name: str, folder: Path) -> Path:
    """Export a bundle whose network is as it was born.

    Args:
        name: of the bundle.
        folder: gets the run and, below ``model``, the bundle.

    Returns:
        The folder of the exported bundle.
    """
    run, overlay = folder / "runs" / name, OVERLAYS[name]
    files = [str(ROOT / "bundles" / name / "configs" / "train.json")]
    files += [] if overlay is None else [str(ROOT / "configs" / "networks" / f"{overlay}.json")]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    chosen = {one: value for one, value in SMALL.items() if one in parser.get()} | SETTINGS.get(name, {})
    if overlay is None:
        chosen["network_def#backbone"] = "resnet18"
    parser.update({**chosen, "output_dir": str(run), "dataset_dir": "data"})
    parser.resolve_macro_and_relative_ids()
    run.mkdir(parents=True)
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    (run / "config.json").write_text(config_text(parser))
    if name.endswith("_segmentation"):  # maps of several classes, which a network as it was born hardly gives
        head = [one for one in network.modules() if isinstance(one, nn.Conv2d)][-1]
        nn.init.normal_(head.weight)
        nn.init.zeros_(head.bias)
    save_model(network, run / "models" / "model.pt")
    return export_bundle(
        name, run, folder / "model", ExportOptions(unmeasured=True, licence_allows_redistribution=True)
    )
