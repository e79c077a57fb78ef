"""Fixtures of the exports; what they are made of is in ``tiny_exports``, which tests import by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from tiny_exports import ROOT, adapted, landmarks, liver, pretrained

from monai_ssl_transfer.export.vendored import without_package, write_scripts

__all__ = ["adapted", "landmarks", "liver", "pretrained"]


@pytest.fixture(scope="session")
def metadata_schema() -> dict[str, Any]:
    tensor = {"required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]}
    tensors = {"type": "object", "minProperties": 1, "additionalProperties": tensor}
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    wanted = ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"]
    wanted += ["task", "description", "authors", "copyright", "network_data_format", "eval_metrics", "intended_use"]
    return {
        "type": "object",
        "required": wanted,
        "properties": {
            "version": {"type": "string", "pattern": r"^\d\.\d\.\d$"},
            "changelog": texts,
            "required_packages_version": texts,
            "eval_metrics": {"type": "object", "additionalProperties": {"type": "number"}},
            "network_data_format": {"required": ["inputs", "outputs"], "additionalProperties": tensors},
        },
    }


@pytest.fixture(scope="session")
def other_scripts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The code of the inference of the six other task bundles, as an export writes it."""
    folders = []
    for bundle in sorted((ROOT / "bundles").iterdir()):
        if bundle.name in ("ct_liver_segmentation", "endoscopy_finding_classification"):
            continue
        if bundle.name.endswith("ssl_pretraining") or not (bundle / "configs").is_dir():
            continue
        _, closure = without_package(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
        folder = tmp_path_factory.mktemp(bundle.name)
        write_scripts(closure, Path(folder))
        folders.append(str(folder))
    return folders
