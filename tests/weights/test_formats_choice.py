"""Of several encoders in a file the one that is meant is used or refused, never replaced; others are named rightly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.reading.files import Checkpoint
from monai_ssl_transfer.weights.reading.formats import FoundEncoder, find_encoder

State = dict[str, Tensor]


def found_in(content: Mapping[str, Any]) -> FoundEncoder:
    return find_encoder(Checkpoint(Path("some.pth"), "torch", content))


def starting(start: str, state: Mapping[str, Any]) -> State:
    return {start + name: tensor for name, tensor in state.items()}


def without(state: State, start: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(start)}


@pytest.fixture(scope="module")
def vit() -> State:
    with torch.device("meta"):
        network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("gone", ["blocks.11.", "patch_embed.proj."])
def test_a_damaged_teacher_is_not_replaced_by_its_student(vit: State, gone: str) -> None:
    student = starting("module.backbone.", vit)
    content = {"student": student, "teacher": starting("backbone.", without(vit, gone))}
    with pytest.raises(WeightsError, match=r"some\.pth .*teacher.*save the one you want alone"):
        found_in(content)
    assert found_in({"student": student}).source == "DINO student alone"


@pytest.mark.parametrize("gone", ["blocks.11.", "patch_embed.proj."])
@pytest.mark.parametrize(
    ("meant", "other"), [("base_encoder.", "momentum_encoder."), ("teacher_backbone.", "student_backbone.")]
)
def test_a_damaged_encoder_is_not_replaced_by_the_other_one(vit: State, meant: str, other: str, gone: str) -> None:
    state = starting(f"module.{meant}", without(vit, gone)) | starting(f"module.{other}", vit)
    with pytest.raises(WeightsError, match=rf"some\.pth .*{meant.removesuffix('.')}.*save the one you want alone"):
        found_in({"state_dict": state})


@pytest.mark.parametrize("names", [("query_encoder", "key_encoder"), ("epoch_1", "epoch_2")])
def test_two_entries_of_which_none_is_known_to_be_meant(vit: State, names: tuple[str, str]) -> None:
    for first, second in (names, names[::-1]):
        with pytest.raises(WeightsError, match=rf"holds 2 encoders \(under {first}, {second}\) and does not say"):
            found_in({first: vit, second: vit})


@pytest.mark.parametrize(
    ("used", "other", "why"),
    [
        ("encoder", "momentum_encoder", "momentum encoder"),
        ("state_dict", "state_dict_ema", "moving average"),
        ("model", "model_ema", "moving average"),
        ("model", "ema", "moving average"),
        ("model", "teacher", "other tensors; those in model are used"),
        ("teacher", "student", "its moving average, the teacher"),
    ],
)
def test_an_entry_beside_has_its_true_reason(vit: State, used: str, other: str, why: str) -> None:
    for names in ((used, other), (other, used)):
        found = found_in(dict.fromkeys(names, vit) | {"epoch": 3})
        assert found.holder == used
        assert why in found.dropped[other]
        assert found.dropped["epoch"] == "counters and settings of the training"
    assert found_in({other: vit}).holder == other


def fixed(width: int) -> Tensor:
    grid = torch.arange(4.0)[:, None] * torch.linspace(0.1, 1, width // 4)
    half = torch.cat([grid.sin(), grid.cos()], dim=1)
    return torch.cat([torch.zeros(1, width), torch.cat([half, half.flip(0)], dim=1)])[None]


def test_moco_v3s_linear_file_of_a_vit_s_has_twelve_heads() -> None:
    with torch.device("meta"):
        network = timm.create_model("vit_small_patch16_224")
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in network.state_dict().items()}
    content = {"epoch": 90, "arch": "vit_small", "best_acc1": 73.2, "optimizer": {}}
    found = found_in(content | {"state_dict": starting("module.", state | {"pos_embed": fixed(384)})})
    assert (found.source, found.method) == ("MoCo v3 linear evaluation file", "moco_v3")
    assert found.architecture == "vit_small_moco_v3"
    assert not any("6 are assumed" in note for note in found.notes)
    learnt = found_in(content | {"state_dict": starting("module.", state)})
    assert (learnt.architecture, learnt.method) == ("vit_small", "")
