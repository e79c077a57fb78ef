"""Files from the world that are no encoder of ours are refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import load_encoder_weights

pytestmark = pytest.mark.real


@pytest.fixture
def checkpoints() -> Path:
    root = Path(os.environ.get("SSL_TRANSFER_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = root / "checkpoints"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def test_cifar_resnet_is_refused_with_the_reason(checkpoints: Path) -> None:
    """ResNet-20 for CIFAR, wrapped in a training checkpoint with `module.` before every name."""
    file = checkpoints / "resnet20-12fca82f.th"
    reason = r"resnet20-12fca82f\.th holds none of our encoders .*conv1\.weight.*CIFAR ResNet .*16, 32, 64, `linear"
    with pytest.raises(WeightsError, match=reason):
        load_encoder_weights(build_encoder("resnet18"), file)
