"""Settings that nothing uses are refused with what was meant; the overlays of this project are not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_ssl_transfer.engines.records.unused_settings import (
    refuse_unused_settings,
    settings_without_effect,
    typed_settings,
    unused_settings,
)
from monai_ssl_transfer.errors import TrainingError, user_error_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = "bundles/ct_ssl_pretraining/configs"
METHODS = sorted(path.stem for path in (ROOT / "configs" / "methods").glob("*.json"))
OTHERS = [
    *(f"{CONFIGS}/{name}.json" for name in ("multi_gpu_train", "evaluate")),
    *(f"configs/scale/{name}.json" for name in ("small_store", "few_frames", "one_gpu_bf16")),
    *(
        str(path.relative_to(ROOT))
        for folder in ("encoders", "pretraining")
        for path in (ROOT / "configs" / folder).iterdir()
    ),
]


def files(*overlays: str) -> list[str]:
    return [str(ROOT / file) for file in (f"{CONFIGS}/train.json", *overlays)]


def initialized(*overlays: str, **settings: Any) -> str | None:
    """What a bundle says before it trains."""
    run = ConfigWorkflow(files(*overlays), logging_file=False, workflow_type="train", **settings)
    try:
        run.initialize()
    except RuntimeError as error:
        assert isinstance(user_error_of(error), TrainingError), error
        return str(user_error_of(error))
    return None


def test_overlays_use_all_that_they_set() -> None:
    for method in METHODS:
        for other in OTHERS:
            parser = ConfigParser()
            parser.read_config(files(f"configs/methods/{method}.json", other))
            assert unused_settings(parser.get(), set()) == [], (method, other)


@pytest.mark.parametrize(
    ("method", "setting", "remedy"),
    [
        ("moco_v2", "batch_norm_grups", "batch_norm_grups (did you mean batch_norm_groups?)"),
        ("mae", "momentum", "method mae) uses momentum (leave it out)"),
        ("mae", "decoder", "decoder (choose --method#decoder)"),
        ("simclr", "epoch", "epoch (did you mean epochs?)"),
        ("dinov2", "schedules", "schedules (did you mean schedule?)"),
    ],
)
def test_a_setting_that_nothing_uses_is_refused(method: str, setting: str, remedy: str) -> None:
    assert remedy in str(initialized(f"configs/methods/{method}.json", **{setting: 4}))


def test_temperature_is_refused_where_it_was_typed_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = "configs/methods/barlow_twins.json"
    assert initialized(overlay, temperature=0.3) is None  # as an overlay of a scale sets it
    monkeypatch.setattr(sys, "argv", ["run", "--config_file", "x", "--temperature", "0.3"])
    assert "(method barlow_twins) uses temperature (leave it out)" in str(initialized(overlay, temperature=0.3))
    for name in ("simclr", "moco_v2", "moco_v3"):
        assert initialized(f"configs/methods/{name}.json", temperature=0.3) is None


@pytest.mark.parametrize(
    ("overlay", "settings", "reason"),
    [
        ("simclr", {"adam_betas": [0.9, 0.95]}, "adam_betas (only the optimizer adamw has them)"),
        ("mae", {"adam_betas": [0.9, 0.95]}, ""),
        ("simclr", {"pooling": "mean"}, "pooling (only a ViT has tokens to choose from)"),
        ("simclr", {"local_views": 4}, "local_views (only dino and dinov2 have such views)"),
        ("dino", {"local_views": 4}, ""),
        ("simclr", {"frozen_epochs": 5}, "frozen_epochs (give --frozen_stages too)"),
        ("simclr", {"frozen_stages": 2, "frozen_epochs": 5}, ""),
        ("simclr", {"epochs": 5, "total_images": 1000}, "epochs (total_images says how long the run is)"),
        ("simclr", {"method_name": "moco_v2"}, "method_name (the overlays of configs/methods choose a method)"),
    ],
)
def test_what_another_setting_makes_idle_is_refused(
    overlay: str, settings: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *(f"--{name}=x" for name in settings)])
    assert reason in (initialized(f"configs/methods/{overlay}.json", **settings) or "")


def test_nothing_is_computed_that_waits_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--frozen_stages=2"])
    overlays = (f"{CONFIGS}/multi_gpu_train.json", "configs/pretraining/frozen_stages.json")
    parser = ConfigParser()
    parser.read_config(files(*overlays))
    assert settings_without_effect(parser, {"frozen_stages", "frozen_epochs"}) == []
    assert not {"rank", "world_size", "store"} & parser.ref_resolver.resolved_content.keys()


def test_names_of_a_command_line() -> None:
    words = ["run", "--epochs", "3", "--seed=4", "--train#trainer#max_epochs", "5", "-m"]
    assert typed_settings(words) == {"epochs", "seed", "train"}


def test_settings_of_monai_are_no_ones_business() -> None:
    assert initialized(tracking_uri="x", workflow_name="train") is None
    refuse_unused_settings()  # outside of a configuration there is nothing to look at
