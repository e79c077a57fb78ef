"""DINOv2's encoders: patches of 14 pixels, learnt gains, registers; which networks take them and which refuse."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from monai_ssl_transfer.networks import (
    build_classifier,
    build_dense,
    build_detector,
    build_encoder,
    build_unet,
    fix_position_embedding,
)
from monai_ssl_transfer.networks.encoders import encoder_spec

RELEASED = {
    "vit_small_dinov2": ("vit_small_patch14_dinov2", 174, 384),
    "vit_base_dinov2": ("vit_base_patch14_dinov2", 174, 768),
    "vit_small_dinov2_reg": ("vit_small_patch14_reg4_dinov2", 175, 384),
    "vit_base_dinov2_reg": ("vit_base_patch14_reg4_dinov2", 175, 768),
}
SMALL = ("vit_small_dinov2", "vit_small_dinov2_reg")
IMAGE = torch.randn(1, 3, 42, 70, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", RELEASED)
def test_encoders_are_timms(name: str) -> None:
    peer, tensors, width = RELEASED[name]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_encoder(name, image_size=518).state_dict().items()}
        assert shapes == {key: value.shape for key, value in timm.create_model(peer).state_dict().items()}
    assert len(shapes) == tensors
    assert shapes["pos_embed"] == (1, 37 * 37 + (0 if name.endswith("reg") else 1), width)


@pytest.mark.parametrize("name", SMALL)
def test_any_multiple_of_the_patch(name: str) -> None:
    token, mean = (build_encoder(name, image_size=28, pooling=pooling).eval() for pooling in ("token", "mean"))
    mean.load_state_dict(token.state_dict())
    with torch.no_grad():
        tokens = token.forward_features(IMAGE)
        prefix = encoder_spec(name).prefix_tokens
        assert tokens.shape == (1, prefix + 3 * 5, 384)
        assert torch.equal(token(IMAGE), tokens[:, 0])
        assert torch.allclose(mean(IMAGE), tokens[:, prefix:].mean(dim=1), atol=1e-6)
    with pytest.raises(ValueError, match=f"image_size 96 of {name} is not a multiple of 14"):
        build_encoder(name, image_size=96)


@pytest.mark.parametrize("name", SMALL)
def test_fixed_positions_leave_registers_alone(name: str) -> None:
    encoder = build_encoder(name, image_size=28)
    fix_position_embedding(encoder)
    assert torch.allclose(encoder.pos_embed[0, -4].detach(), torch.tensor([0.0, 1.0]).repeat_interleave(96).repeat(2))
    assert encoder.pos_embed.shape[1] == 4 + (0 if name.endswith("reg") else 1)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("decoder", ["linear", "dpt"])
def test_dense_networks_see_class_token_and_patches_in_their_places(name: str, decoder: str) -> None:
    network = build_dense(name, decoder, out_channels=2, image_size=28).eval()
    with torch.no_grad():
        if decoder == "linear":
            encoder, got = network.encoder, [network.features(IMAGE)]
        else:
            encoder = network.encoder.encoder
            got = [tokens[:, 1:].transpose(1, 2).unflatten(2, (3, 5)) for tokens in network.encoder(IMAGE)]
            assert torch.equal(network.encoder(IMAGE)[3][:, 0], encoder(IMAGE))
        depths = [11] if decoder == "linear" else [2, 5, 8, 11]
        wanted = encoder.forward_intermediates(IMAGE, indices=depths, intermediates_only=True)
        wanted[-1] = encoder.forward_intermediates(IMAGE, indices=1, norm=True, intermediates_only=True)[0]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(got, wanted, strict=True))
        out = network(IMAGE)
        assert out.shape == (1, 2, 42, 70)
        assert torch.equal(torch.jit.script(network)(IMAGE), out)


@pytest.mark.parametrize("name", SMALL)
def test_classifier_is_a_linear_layer_on_the_class_token(name: str) -> None:
    network = build_classifier(name, classes=5, image_size=28)
    logits = network(IMAGE)
    assert logits.shape == (1, 5)
    logits.sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(IMAGE), network.classification_head(network.encoder(IMAGE)))
        assert torch.equal(torch.jit.script(network)(IMAGE), network(IMAGE))
    assert isinstance(network.classification_head, nn.Linear)


def test_networks_of_strides_4_to_32_refuse_patches_of_14() -> None:
    with pytest.raises(ValueError, match=r'A U-Net needs maps .* patches of 14 .* "linear" or "dpt"'):
        build_unet("vit_small_dinov2")
    with pytest.raises(ValueError, match="A U-Net needs maps"):
        build_dense("vit_base_dinov2_reg", "unet")
    with pytest.raises(ValueError, match=r"A detector needs maps .* another encoder than vit_small_dinov2_reg"):
        build_detector("vit_small_dinov2_reg")
