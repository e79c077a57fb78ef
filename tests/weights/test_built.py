"""An encoder built from its file is whole, in evaluation mode and carries its card."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.networks.encoders import is_loaded
from monai_ssl_transfer.weights import EncoderCard, built, save_encoder
from monai_ssl_transfer.weights.built import load_encoder


def saved(folder: Path, name: str, **card: object) -> tuple[nn.Module, Path]:
    """A random encoder and its file."""
    torch.manual_seed(0)
    encoder = build_encoder(name, image_size=64, pooling=str(card.get("pooling", "token"))).eval()
    return encoder, save_encoder(encoder, folder, EncoderCard(architecture=name, image_size=64, **card))


def test_carries_its_card_and_is_ready(tmp_path: Path) -> None:
    encoder, file = saved(tmp_path, "resnet18", channels="rgb", licence="CC0", mean=(0.1, 0.2, 0.3))
    built_from_folder = load_encoder(tmp_path)
    assert built_from_folder.card.licence == "CC0"
    assert built_from_folder.card.mean == (0.1, 0.2, 0.3)
    assert built_from_folder.card.weights_hash
    assert not built_from_folder.training
    assert is_loaded(built_from_folder)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(load_encoder(file)(x), encoder(x))


def test_pooling_is_the_cards_unless_given(tmp_path: Path) -> None:
    encoder, file = saved(tmp_path, "vit_tiny", pooling="mean")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(load_encoder(file)(x), encoder(x))
    token = load_encoder(file, pooling="token")
    assert torch.equal(token(x), encoder.forward_features(x)[:, 0])
    assert token.card.pooling == "token"
    with pytest.raises(WeightsError, match="Unknown pooling 'max'"):
        load_encoder(file, pooling="max")


def test_other_size_and_channels(tmp_path: Path) -> None:
    encoder, file = saved(tmp_path, "vit_tiny", mean=(0.3, 0.4, 0.5), std=(0.1, 0.2, 0.3))
    other = load_encoder(file, image_size=96, in_channels=1)
    assert other.pos_embed.shape == (1, 37, 192)
    assert (other.card.image_size, other.card.in_channels) == (96, 1)
    assert other.card.mean == pytest.approx((0.4,))
    assert other.card.std == pytest.approx((0.2,))
    assert other.card.method["conversion"] == [
        "3 input channels to 1: their sum",
        "position embedding resampled from 4 x 4 to 6 x 6 patches",
    ]
    grey = torch.randn(1, 1, 96, 96)
    # timm resamples the positions in its forward pass, by the same rule
    assert torch.allclose(other(grey), encoder(grey.expand(-1, 3, -1, -1)), atol=1e-4)
    with pytest.raises(WeightsError, match=r"100 pixels is not a multiple of the patches' 16: give image_size 96"):
        load_encoder(file, image_size=100)
    assert load_encoder(saved(tmp_path, "resnet18")[1], image_size=100).card.image_size == 64


def test_refuses_what_is_not_whole(tmp_path: Path) -> None:
    state = dict(build_encoder("resnet18").state_dict())
    torch.save(state | {"layer2.0.conv1.weight": state["layer2.0.conv1.weight"][:, :5].clone()}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"part\.pth .*layer2\.0\.conv1\.weight"):
        load_encoder(tmp_path / "part.pth")


def test_the_example_runs() -> None:
    tests = doctest.DocTestFinder().find(load_encoder, "load_encoder", module=built)
    assert [len(test.examples) > 3 for test in tests] == [True]
    for test in tests:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
