"""Overlays given one after the other: the last one holds, and none leaves a part of an earlier one behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_ssl_transfer.errors import user_error_of
from monai_ssl_transfer.methods import DINOHeadOptions

ROOT = Path(__file__).resolve().parents[2]
METHODS = sorted(path.stem for path in (ROOT / "configs" / "methods").glob("*.json"))
SETTINGS = (
    "learning_rate", "learning_rate_rule", "reference_batch", "bias_learning_rate_factor", "final_learning_rate",
    "weight_decay", "final_weight_decay", "warmup_epochs", "longest_warmup", "temperature", "recipe_name",
)  # fmt: skip


def parsed(*overlays: str, encoder: str = "resnet50", family: str = "endoscopy", **overrides: Any) -> ConfigParser:
    """A training with overlays, on a network of one layer in place of the method."""
    files = [f"bundles/{family}_ssl_pretraining/configs/train.json", *(f"configs/{one}.json" for one in overlays)]
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in files])
    layer = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
    plain = {"encoder_name": encoder, "method": layer, "device": torch.device("cpu"), "store": range(2000)}
    plain["patch_learning_rate_factor"] = 1.0  # the layer has no patches
    for name, value in (plain | overrides).items():
        parser[name] = value
    return parser


def chosen(parser: ConfigParser) -> dict[str, Any]:
    optimizer = parser.get_parsed_content("optimizer")
    groups = [{key: value for key, value in one.items() if key != "params"} for one in optimizer.param_groups]
    return {name: parser.get_parsed_content(name) for name in SETTINGS} | {
        "optimizer": type(optimizer).__name__,
        "groups": groups,
    }


@pytest.mark.parametrize("family", ["ct", "endoscopy"])
@pytest.mark.parametrize("encoder", ["resnet50", "vit_small"])
def test_without_a_method_a_training_is_that_of_simclr(encoder: str, family: str) -> None:
    alone = chosen(parsed(encoder=encoder, family=family))
    assert alone == chosen(parsed("methods/simclr", encoder=encoder, family=family))
    assert alone["optimizer"] == ("AdamW" if encoder.startswith("vit") else "LARS")


@pytest.mark.parametrize("scale", ["small_store", "few_frames"])
@pytest.mark.parametrize("method", METHODS)
def test_a_scale_holds_when_given_after_a_method(method: str, scale: str) -> None:
    here = chosen(parsed(f"methods/{method}", f"scale/{scale}"))
    assert here["optimizer"] == "AdamW"
    assert (here["learning_rate"], here["learning_rate_rule"], here["reference_batch"]) == (0.004, "linear", 256)
    assert [group["lr_factor"] for group in here["groups"]] == [1.0, 1.0]
    assert (here["weight_decay"], here["final_weight_decay"], here["temperature"]) == (1e-4, 1e-4, 0.2)
    assert here["recipe_name"] == ("moco_v2" if scale == "few_frames" else method)


@pytest.mark.parametrize("encoder", ["resnet50", "vit_small"])
@pytest.mark.parametrize("scale", ["small_store", "few_frames"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_holds_when_given_after_a_scale(method: str, scale: str, encoder: str) -> None:
    after, alone = (
        chosen(parsed(*overlays, f"methods/{method}", encoder=encoder)) for overlays in ((f"scale/{scale}",), ())
    )
    unused = () if method.startswith("simclr") else ("temperature",)
    assert {name: value for name, value in after.items() if name not in unused} == {
        name: value for name, value in alone.items() if name not in unused
    }


def test_every_method_has_an_optimizer_of_its_own() -> None:
    overlay = ConfigParser.load_config_file(str(ROOT / "configs/methods/dinov2.json"))
    assert overlay["patch_learning_rate_factor"] == 0.2 and overlay["centring"] == "centre"
    assert chosen(parsed("methods/dino"))["optimizer"] == chosen(parsed("methods/moco_v2"))["optimizer"] == "SGD"
    betas = {method: chosen(parsed(f"methods/{method}"))["groups"][0]["betas"] for method in ("mae", "dinov2")}
    assert {method: tuple(values) for method, values in betas.items()} == {"mae": (0.9, 0.95), "dinov2": (0.9, 0.999)}
    asked = chosen(parsed("methods/dinov2", optimizer_name="sgd", learning_rate=0.5))
    assert (asked["optimizer"], asked["groups"][0]["lr"]) == ("SGD", 0.5)
    with pytest.raises(RuntimeError) as refused:
        chosen(parsed("methods/dinov2", optimizer_name="adam"))
    assert "choose adamw, lars or sgd" in str(user_error_of(refused.value))


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({}, 8),
        ({"batch_size": 128}, 8),
        ({"batch_size": 64}, 1),
        ({"batch_size": 256, "accumulation": 4}, 4),
        ({"batch_size": 128, "accumulation": 16}, 1),
        ({"encoder_name": "vit_small"}, 1),
        ({"encoder_name": "vit_small", "batch_norm_groups": 2}, 2),
    ],
)
def test_moco_has_groups_of_batch_norm_on_one_device(settings: dict[str, Any], groups: int) -> None:
    assert parsed("methods/moco_v2", **settings).get_parsed_content("batch_norm_groups") == groups


@pytest.mark.parametrize(("settings", "number"), [({}, 10), ({"local_views": 4}, 6), ({"local_views": 0}, 2)])
@pytest.mark.parametrize("method", ["dino", "dinov2"])
def test_the_number_of_local_views_is_a_setting(method: str, settings: dict[str, Any], number: int) -> None:
    assert len(parsed(f"methods/{method}", **settings).get_parsed_content("recipe")) == number


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("method", ["dino", "dinov2"])
def test_batch_norm_in_the_head_is_a_setting(method: str, batch_norm: bool) -> None:
    overlay = ConfigParser.load_config_file(str(ROOT / f"configs/methods/{method}.json"))
    assert overlay["head_batch_norm"] is False
    parser = ConfigParser({"head_batch_norm": batch_norm, "head": overlay["method"]["head"]})
    assert parser.get_parsed_content("head") == DINOHeadOptions(
        batch_norm=batch_norm, learned_lengths=method == "dinov2"
    )
