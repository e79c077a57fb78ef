"""inference.json of an export against what its run did to images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.configs import merged_inference

POLYPS = Path(__file__).parents[2] / "bundles" / "endoscopy_polyp_segmentation" / "configs"


@pytest.fixture
def run() -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(ConfigParser.load_config_file(POLYPS / "train.json"))
    config["image_size"] = 96
    return config


def test_a_run_of_before_annotators_labels_is_exported(run: dict[str, Any]) -> None:
    steps = run["validate"]["preprocessing"]["transforms"]
    assert steps[0]["_target_"].endswith("AnnotatedCased")
    run["validate"]["preprocessing"]["transforms"] = [step for step in steps[1:] if step["keys"] == "image"]
    assert merged_inference(POLYPS, run)["image_size"] == 96


def test_a_run_that_did_something_else_to_its_images_is_refused(run: dict[str, Any]) -> None:
    run["validate"]["preprocessing"]["transforms"][1]["stretch"] = True
    with pytest.raises(ExportError, match="changed validate#preprocessing"):
        merged_inference(POLYPS, run)
