"""The overlays of the contrastive methods: whose optimizer, which rates, and that a value of the user wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("simclr", "simclr_v2", "simclr_radnet", "moco_v2", "moco_v3", "barlow_twins")
RESNET = {  # optimizer, rate at a batch of 256, rate at 4096, weight decay, warm-up of 1000 epochs
    "simclr": ("LARS", 0.3, 4.8, 1e-6, 10),
    "simclr_v2": ("LARS", 1.6, 6.4, 1e-4, 40),
    "simclr_radnet": ("LARS", 1.2, 4.8, 1e-6, 0),
    "moco_v2": ("SGD", 0.03, 0.48, 1e-4, 0),
    "moco_v3": ("LARS", 0.6, 9.6, 1e-6, 10),
    "barlow_twins": ("LARS", 0.2, 3.2, 1e-6, 10),
}


def parsed(method: str, encoder: str, **overrides: Any) -> ConfigParser:
    """A training with the overlay, on a network of one layer in place of the method."""
    parser = ConfigParser(
        ConfigParser.load_config_file(str(ROOT / "bundles/endoscopy_ssl_pretraining/configs/train.json"))
    )
    parser.update(ConfigParser.load_config_file(str(ROOT / f"configs/methods/{method}.json")))
    layer = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
    parser.update({"encoder_name": encoder, "method": layer, "device": torch.device("cpu")} | overrides)
    return parser


@pytest.mark.parametrize("method", METHODS)
def test_a_resnet_has_the_published_values(method: str) -> None:
    name, rate, large, decay, warmup = RESNET[method]
    parser = parsed(method, "resnet50")
    optimizer = parser.get_parsed_content("optimizer")
    weights, biases = optimizer.param_groups
    assert type(optimizer).__name__ == name
    assert (weights["lr"], weights["momentum"]) == (rate, 0.9)
    assert (weights["weight_decay"], biases["weight_decay"]) == (decay, 0.0)  # 0: LARS leaves them alone
    ratio = 4096 / parser.get_parsed_content("reference_batch")
    linear = parser.get_parsed_content("learning_rate_rule") == "linear"
    assert rate * (ratio if linear else ratio**0.5) == pytest.approx(large)
    assert parser.get_parsed_content("warmup_epochs") == warmup
    factor = 0.0048 / 0.2 if method == "barlow_twins" else 1.0
    assert biases["lr_factor"] == pytest.approx(factor)
    final = 0.0002 if method == "barlow_twins" else 0.0
    assert parser.get_parsed_content("final_learning_rate") == pytest.approx(final)


@pytest.mark.parametrize("method", METHODS)
def test_a_vit_has_those_of_moco_v3(method: str) -> None:
    parser = parsed(method, "vit_small")
    optimizer = parser.get_parsed_content("optimizer")
    assert type(optimizer).__name__ == "AdamW"
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1.5e-4, 0.1), (1.5e-4, 0.0)]
    assert parser.get_parsed_content("learning_rate_rule") == "linear"
    assert parser.get_parsed_content("bias_learning_rate_factor") == 1.0
    warmup = parser.get_parsed_content("longest_warmup") * 300
    assert (parser.get_parsed_content("warmup_epochs"), warmup) == (40, pytest.approx(40))


@pytest.mark.parametrize("encoder", ["resnet50", "vit_small"])
def test_the_users_learning_rate_wins(encoder: str) -> None:
    parser = parsed("barlow_twins", encoder, learning_rate=0.5)
    assert parser.get_parsed_content("optimizer").param_groups[0]["lr"] == 0.5
    assert parser.get_parsed_content("final_learning_rate") == 0.0005


def test_moco_takes_its_queue_from_the_number_of_images() -> None:
    small = parsed("moco_v2", "resnet50", store=range(2000))
    assert (small.get_parsed_content("queue_size"), small.get_parsed_content("momentum")) == (500, 0.99)
    large = parsed("moco_v2", "resnet50", store=range(1_281_167))
    assert (large.get_parsed_content("queue_size"), large.get_parsed_content("momentum")) == (65536, 0.999)
    chosen = parsed("moco_v2", "resnet50", store=range(2000), queue_size=4096)
    assert chosen.get_parsed_content("queue_size") == 4096
