"""MoCo v3: its loss against algorithm 1 of the paper in float64, its schedule, its heads, what a ViT does not train."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_encoder import TinyEncoder, random_views
from torch import nn

from monai_ssl_transfer.methods import MoCoV3, parameter_groups
from monai_ssl_transfer.methods.momentum import cosine_to_one
from monai_ssl_transfer.networks.encoders import mark_loaded


def tiny_vit() -> nn.Module:
    return VisionTransformer(
        img_size=16, patch_size=8, in_chans=1, num_classes=0, embed_dim=16, depth=1, num_heads=2, dynamic_img_size=True
    )


def unit(x: torch.Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def contrast(queries: np.ndarray, keys: np.ndarray, temperature: float) -> float:
    """ctr(q, k) of algorithm 1, over all queries: 2 T times the cross-entropy with the diagonal as labels."""
    total = 0.0
    for i, query in enumerate(queries):
        terms = [math.exp(query @ key / temperature) for key in keys]
        total -= math.log(terms[i] / sum(terms))
    return 2 * temperature * total / len(queries)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("network", [TinyEncoder, tiny_vit])
def test_moco_v3_is_algorithm_1(network: type, temperature: float) -> None:
    torch.manual_seed(0)
    method = MoCoV3(network(), temperature, hidden_dim=32, output_dim=8).eval()
    for parameter in method.momentum_encoder.parameters():
        parameter.data += 0.1  # the keys must come from the momentum encoder
    views = random_views(0)
    q = [unit(method.predictor(method.projection_head(method.encoder(view)))) for view in views]
    k = [unit(method.momentum_projection_head(method.momentum_encoder(view))) for view in views]
    expected = contrast(q[0], k[1], temperature) + contrast(q[1], k[0], temperature)
    assert method(views, 0.0)["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert method.collapsed_loss == pytest.approx(4 * temperature * math.log(6))


def test_batch_norm_sees_one_view_at_a_time() -> None:
    torch.manual_seed(0)
    method = MoCoV3(TinyEncoder(), hidden_dim=32, output_dim=8).train()
    views = random_views(0)
    views[1] = 5 * views[1]
    assert torch.allclose(method(views, 0.0)["embedding"], method.encoder(views[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("progress", "momentum"), [(0.0, 0.99), (1 / 3, 0.9925), (0.5, 0.995), (2 / 3, 0.9975), (1.0, 1.0)]
)
def test_momentum_rises_along_half_a_cosine(progress: float, momentum: float) -> None:
    # 1 - 0.01 (1 + cos(pi p)) / 2 with cos = 1, 1/2, 0, -1/2, -1
    assert cosine_to_one(0.99, progress) == pytest.approx(momentum, abs=1e-12)
    method = MoCoV3(TinyEncoder(), hidden_dim=32, output_dim=8)
    for network, value in ((method.encoder, 1.0), (method.momentum_encoder, 0.0), (method.projection_head, 1.0)):
        for parameter in network.parameters():
            parameter.data.fill_(value)
    for parameter in method.momentum_projection_head.parameters():
        parameter.data.zero_()
    method.after_step(progress)
    moved = [*method.momentum_encoder.parameters(), *method.momentum_projection_head.parameters()]
    assert all(torch.allclose(parameter, torch.tensor(1 - momentum), atol=1e-6) for parameter in moved)


@pytest.mark.parametrize(
    ("network", "layers", "predictor_ends_in_norm"), [(TinyEncoder, 2, False), (tiny_vit, 3, True)]
)
def test_heads_have_the_published_shapes(network: type, layers: int, predictor_ends_in_norm: bool) -> None:
    method = MoCoV3(network())
    widths = [16, *[4096] * (layers - 1), 256]
    for head, sizes in ((method.projection_head, widths), (method.predictor, [256, 4096, 256])):
        linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
        assert [(module.in_features, module.out_features) for module in linear] == list(pairwise(sizes))
        assert all(module.bias is None for module in linear)
    ends = [method.projection_head.layers[-1], method.predictor.layers[-1]]
    assert [isinstance(end, nn.BatchNorm1d) for end in ends] == [True, predictor_ends_in_norm]
    assert all(end.weight is None for end in ends if isinstance(end, nn.BatchNorm1d))
    norms = [module for module in method.projection_head.modules() if isinstance(module, nn.BatchNorm1d)]
    assert [norm.affine for norm in norms] == [True] * (layers - 1) + [False]


def test_vit_trains_neither_patch_projection_nor_positions() -> None:
    torch.manual_seed(0)
    method = MoCoV3(tiny_vit(), hidden_dim=32, output_dim=8).train()
    fixed = {"encoder.pos_embed", "encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"}
    before = {key: value.clone() for key, value in method.state_dict().items()}
    groups = parameter_groups(method, 0.1)
    chosen = {id(parameter) for group in groups for parameter in group["params"]}
    trained = {name for name, parameter in method.named_parameters() if id(parameter) in chosen}
    assert trained == {name for name, _ in method.named_parameters() if not name.startswith("momentum_")} - fixed
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    method(random_views(0), 0.0)["loss"].backward()
    optimizer.step()
    method.after_step(0.0)
    after = method.state_dict()
    assert {name for name in trained if torch.equal(before[name], after[name])} <= {"encoder.cls_token"}
    for name in fixed:
        assert torch.equal(after[name], before[name]), name
        assert torch.allclose(after[f"momentum_{name}"], before[name], atol=1e-6), name
    assert not torch.equal(after["encoder.pos_embed"][:, 1], after["encoder.pos_embed"][:, 2])


def test_a_random_vit_is_drawn_as_in_the_authors_code() -> None:
    torch.manual_seed(0)
    encoder = MoCoV3(tiny_vit(), hidden_dim=32, output_dim=8).encoder
    bounds = {"attn.qkv": (16, 16), "attn.proj": (16, 16), "mlp.fc1": (16, 64), "mlp.fc2": (64, 16)}
    for name, sizes in bounds.items():
        layer, bound = encoder.blocks[0].get_submodule(name), math.sqrt(6 / sum(sizes))
        assert 0.9 * bound < layer.weight.abs().max().item() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not layer.bias.any()
    assert 0 < encoder.cls_token.abs().max().item() < 1e-5


def test_loaded_vit_keeps_its_positions() -> None:
    encoder = tiny_vit()
    mark_loaded(encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    method = MoCoV3(encoder, hidden_dim=32, output_dim=8)
    assert all(torch.equal(before[key], value) for key, value in method.encoder.state_dict().items())
    assert not method.encoder.pos_embed.requires_grad
