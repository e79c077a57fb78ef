from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_ssl_transfer.networks import build_last_blocks_classifier
from monai_ssl_transfer.weights.key_maps import encoder_map


@pytest.mark.parametrize(
    ("encoder", "side", "last_blocks", "average"),
    [("vit_tiny", 48, 4, False), ("vit_tiny", 32, 1, True), ("vit_small_dinov2_reg", 28, 2, True)],
)
def test_the_tokens_are_those_of_timm(encoder: str, side: int, last_blocks: int, average: bool) -> None:
    torch.manual_seed(0)
    network: Any = build_last_blocks_classifier(encoder, 3, 5, side, last_blocks, average).eval()
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        taken = network.encoder.forward_intermediates(
            x, indices=last_blocks, norm=True, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
        )
        parts = [prefix[:, 0] for _, prefix in taken]
        if average:
            parts.append(taken[-1][0].mean(dim=1))
        assert torch.allclose(network.features(x), torch.cat(parts, dim=1), atol=1e-6)
        assert network(x).shape == (2, 5)
        assert torch.allclose(torch.jit.script(network)(x), network(x), atol=1e-6)
    found = encoder_map(network)
    assert (found.architecture, found.prefix) == (encoder, "encoder.")


def test_a_resnet_and_too_many_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="choose a ViT"):
        build_last_blocks_classifier("resnet18")
    with pytest.raises(ValueError, match="give 1 to 12"):
        build_last_blocks_classifier("vit_tiny", last_blocks=13)
