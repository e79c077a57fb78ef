"""Groups of parameters: rates that fall layer by layer and for the patch projection, against DINOv2's rule by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_encoder import TinyEncoder, tiny_vit

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import DINOHeadOptions, DINOv2, MoCoV3, SimCLR, parameter_groups


def dinov2() -> DINOv2:
    return DINOv2(tiny_vit(depth=2), 24, head=DINOHeadOptions(16, 8, learned_lengths=True))


def factors(method: torch.nn.Module, **options: float) -> dict[str, float]:
    """Multiple of the rate by name of parameter."""
    groups = parameter_groups(method, 0.04, **options)
    by_identity = {id(one): group["lr_factor"] for group in groups for one in group["params"]}
    assert [group["weight_decay"] > 0 for group in groups] == [one["params"][0].ndim > 1 for one in groups]
    found = {name: by_identity.pop(id(one)) for name, one in method.named_parameters() if one.requires_grad}
    assert not by_identity
    return found


def test_layers_and_patches_have_the_rates_of_dinov2() -> None:
    found = factors(dinov2(), layer_decay=0.9, patch_factor=0.2)
    assert found["encoder.patch_embed.proj.weight"] == pytest.approx(0.2 * 0.9**3)
    assert found["encoder.patch_embed.proj.bias"] == pytest.approx(0.2 * 0.9**3)
    assert found["encoder.pos_embed"] == found["encoder.cls_token"] == pytest.approx(0.9**3)
    assert found["encoder.blocks.0.mlp.fc1.weight"] == pytest.approx(0.9**2)
    assert found["encoder.blocks.1.norm1.bias"] == pytest.approx(0.9)
    whole = {name for name, factor in found.items() if factor == 1}
    assert {"encoder.norm.weight", "mask_token"} <= whole
    assert {name for name in found if name.startswith("projection_head")} < whole


def test_the_first_group_has_the_whole_rate_and_biases_their_own() -> None:
    plain = parameter_groups(dinov2(), 0.04)
    assert [(group["lr_factor"], group["weight_decay"]) for group in plain] == [(1.0, 0.04), (1.0, 0.0)]
    groups = parameter_groups(dinov2(), 0.04, bias_factor=0.5, patch_factor=0.2)
    assert [group["lr_factor"] for group in groups] == pytest.approx([1.0, 0.5, 0.2, 0.1])


def test_what_has_no_such_part_is_refused() -> None:
    with pytest.raises(TrainingError, match="needs a ViT whose patch projection learns, which SimCLR does not have"):
        parameter_groups(SimCLR(TinyEncoder()), 0.1, patch_factor=0.2)
    with pytest.raises(TrainingError, match="patch projection learns"):
        parameter_groups(MoCoV3(tiny_vit()), 0.1, patch_factor=0.2)  # frozen there
    with pytest.raises(TrainingError, match="neither a ViT's blocks nor"):
        parameter_groups(SimCLR(TinyEncoder()), 0.1, layer_decay=0.9)
    with pytest.raises(TrainingError, match="above 0 and at most 1"):
        parameter_groups(dinov2(), 0.1, layer_decay=1.5)
