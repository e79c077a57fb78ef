"""Pooling, activation checkpointing, and what is fixed at the entrance of a ViT."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_ssl_transfer.networks import build_encoder, fix_position_embedding, freeze_patch_projection
from monai_ssl_transfer.networks.encoders import pooling_of
from monai_ssl_transfer.weights import starting_from

IMAGE = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_mean_pooling_averages_the_normalised_patch_tokens() -> None:
    token, mean = (build_encoder("vit_tiny", image_size=32, pooling=pooling).eval() for pooling in ("token", "mean"))
    assert mean.state_dict().keys() == token.state_dict().keys()
    mean.load_state_dict(token.state_dict())
    with torch.no_grad():
        features = token.forward_features(IMAGE)
        assert features.shape == (3, 1 + 2 * 3, 192)
        assert torch.equal(token(IMAGE), features[:, 0])
        assert torch.allclose(mean(IMAGE), features[:, 1:].mean(dim=1), atol=1e-6)
        assert torch.equal(torch.jit.script(mean)(IMAGE), mean(IMAGE))
    assert (pooling_of(token), pooling_of(mean)) == ("token", "mean")


def test_resnets_average_whatever_the_pooling_is_called() -> None:
    token, mean = (build_encoder("resnet18", pooling=pooling).eval() for pooling in ("token", "mean"))
    mean.load_state_dict(token.state_dict())
    with torch.no_grad():
        assert torch.equal(mean(IMAGE), token.forward_features(IMAGE).mean(dim=(2, 3)))
    assert pooling_of(mean) == "token"
    with pytest.raises(ValueError, match="Unknown pooling 'max': choose one of token, mean"):
        build_encoder("resnet18", pooling="max")


def trained(encoder: nn.Module, images: Tensor) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """The loss of one step in training mode, its gradients, and the buffers that it leaves behind."""
    torch.manual_seed(5)  # stochastic depth
    loss = encoder.train()(images).square().mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return loss.item(), gradients, dict(encoder.named_buffers())


@pytest.mark.parametrize(("name", "drop_path"), [("vit_tiny", 0.3), ("resnet18", 0.3), ("resnet18", 0.0)])
def test_checkpointing_changes_nothing_but_memory(name: str, drop_path: float) -> None:
    torch.manual_seed(0)
    options = {"image_size": 32, "drop_path": drop_path}
    plain = build_encoder(name, **options).double()
    thrifty = build_encoder(name, **options, activation_checkpointing=True).double()
    thrifty.load_state_dict(plain.state_dict())
    saved = dict.fromkeys(("plain", "thrifty"), 0)
    found = {}
    thrifty = deepcopy(thrifty)  # as momentum encoders are made
    for which, encoder in (("plain", plain), ("thrifty", thrifty)):

        def count(tensor: Tensor, which: str = which) -> Tensor:
            saved[which] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            found[which] = trained(encoder, IMAGE.double())
    assert saved["thrifty"] < saved["plain"]
    (loss, gradients, buffers), (other_loss, other_gradients, other_buffers) = found["plain"], found["thrifty"]
    assert loss == other_loss
    assert all(torch.equal(other_gradients[key], gradient) for key, gradient in gradients.items())
    # timm's checkpointing would have the running statistics of batch norm move twice
    assert other_buffers.keys() == buffers.keys()
    assert all(torch.equal(other_buffers[key], buffer) for key, buffer in buffers.items())
    assert {module.momentum for module in thrifty.modules() if isinstance(module, nn.BatchNorm2d)} <= {0.1}


@pytest.mark.parametrize("name", ["vit_tiny", "resnet18"])
def test_a_checkpointed_encoder_exports(name: str) -> None:
    encoder = build_encoder(name, image_size=32, activation_checkpointing=True).eval()
    scripted = torch.jit.script(encoder)
    with torch.no_grad():
        assert torch.equal(scripted(IMAGE), encoder(IMAGE))


def masked_autoencoders_positions(width: int, side: int) -> np.ndarray:
    """The position embedding of the reference code of MAE, re-expressed: x first, sines before cosines."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    omega = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4.0))
    halves = [np.einsum("m,d->md", place.reshape(-1), omega) for place in (x, y)]
    return np.concatenate([np.concatenate([np.sin(half), np.cos(half)], axis=1) for half in halves], axis=1)


def test_fixed_positions_are_those_of_mae() -> None:
    encoder = build_encoder("vit_tiny", image_size=80)
    fix_position_embedding(encoder)
    assert not encoder.pos_embed.requires_grad
    assert torch.equal(encoder.pos_embed[0, 0], torch.zeros(192))
    assert np.allclose(encoder.pos_embed[0, 1:].detach(), masked_autoencoders_positions(192, 5), atol=1e-7)
    # two by hand: the patch in row 2, column 3 has sin(3) first and sin(2) in the middle
    assert encoder.pos_embed[0, 1 + 2 * 5 + 3, 0].item() == pytest.approx(np.sin(3))
    assert encoder.pos_embed[0, 1 + 2 * 5 + 3, 96].item() == pytest.approx(np.sin(2))


def test_patch_projection_is_frozen_as_moco_v3_draws_it() -> None:
    encoder = build_encoder("vit_tiny", image_size=32)
    freeze_patch_projection(encoder)
    projection = encoder.patch_embed.proj
    assert [name for name, one in encoder.named_parameters() if not one.requires_grad] == [
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    ]
    bound = (6 / (3 * 16 * 16 + 192)) ** 0.5
    assert 0.99 * bound < projection.weight.abs().max() <= bound
    assert not projection.bias.any()


def test_what_was_loaded_is_frozen_as_it_is(tmp_path) -> None:
    source = build_encoder("vit_tiny", image_size=32)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    encoder = starting_from(build_encoder("vit_tiny", image_size=32), tmp_path / "vit.pth")
    fix_position_embedding(encoder)
    freeze_patch_projection(encoder)
    assert torch.equal(encoder.pos_embed, source.pos_embed)
    assert torch.equal(encoder.patch_embed.proj.weight, source.patch_embed.proj.weight)
    assert not (encoder.pos_embed.requires_grad or encoder.patch_embed.proj.weight.requires_grad)


def test_a_resnet_has_neither() -> None:
    for fix in (fix_position_embedding, freeze_patch_projection):
        with pytest.raises(ValueError, match="choose a ViT"):
            fix(build_encoder("resnet18"))
