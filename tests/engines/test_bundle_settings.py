"""Misspelt settings of bundles are noticed; new entries of dictionaries that are there are meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_ssl_transfer.engines.bundle_settings import ids_of, unknown_setting

POLYPS = Path(__file__).parents[2] / "bundles" / "endoscopy_polyp_segmentation" / "configs"


@pytest.fixture(scope="module")
def known() -> set[str]:
    return ids_of([POLYPS / "train.json", POLYPS / "evaluate.json"])


@pytest.mark.parametrize(
    "name", ["image_size", "network_def#dropout", "network_def::dropout", "train#handlers#0#interval", "evaluate_part"]
)
def test_a_setting_that_a_file_has_is_known(known: set[str], name: str) -> None:
    assert unknown_setting({name: 1}, known) is None


@pytest.mark.parametrize(
    ("name", "near"), [("image_sze", "image_size"), ("trian#trainer#x", "train#trainer"), ("zzzzzzzzzzzz", "")]
)
def test_a_setting_that_no_file_has_is_told(known: set[str], name: str, near: str) -> None:
    found = unknown_setting({"image_size": 1, name: 1}, known)
    assert found is not None and found[0] == name
    assert found[1].startswith(near) and (near or not found[1])


def test_an_overlay_adds_its_ids(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"+train#handlers": [{"_target_": "x"}], "extra": {"deep": 1}}))
    assert {"train#handlers", "train#handlers#0", "extra#deep"} <= ids_of([overlay])
