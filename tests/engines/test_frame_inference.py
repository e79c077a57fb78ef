from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from PIL import Image
from torch import Tensor, nn

from monai_ssl_transfer.engines.transfer.frame_inference import FrameInferer
from monai_ssl_transfer.errors import DataError, TrainingError

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Seen(nn.Module):
    """Keeps its input and returns its channels as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.x = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return x[:, :2] * self.weight


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([32, 64]))
def test_logits_have_exactly_the_size_of_the_photograph(rows: int, columns: int, size: int):
    network = Seen()
    with torch.no_grad():
        logits = FrameInferer(size)(torch.full((1, 3, rows, columns), 128, dtype=torch.uint8), network)
    assert network.x.shape == (1, 3, size, size)
    assert logits.shape == (1, 2, rows, columns)
    expected = ((128 / 255 - MEAN) / DEVIATION)[:2]
    assert torch.allclose(logits, expected[None, :, None, None].expand_as(logits), atol=1e-5)


def test_network_sees_the_photograph_as_pillow_resizes_it_with_black_borders():
    rng = np.random.default_rng(0)
    photograph = np.asarray(Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((240, 180)))
    network = Seen()
    FrameInferer(64)(torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None], network)
    seen = (network.x[0] * DEVIATION[:, None, None] + MEAN[:, None, None]) * 255
    small = np.asarray(Image.fromarray(photograph).resize((64, 48), Image.Resampling.BILINEAR))
    assert np.abs(seen.detach().permute(1, 2, 0).numpy()[8:56] - small).max() < 1.5
    assert seen[:, :8].abs().max() < 1e-3
    assert seen[:, 56:].abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(60, 96), (96, 60), (480, 300)])
def test_a_mask_comes_back_to_where_it_was(shape: tuple[int, int]):
    rows, columns = np.indices(shape)
    disc = np.hypot(rows - shape[0] * 0.4, columns - shape[1] * 0.6) < min(shape) / 4
    photograph = torch.from_numpy(disc.astype(np.uint8) * 255)[None, None].expand(1, 3, -1, -1)
    with torch.no_grad():
        logits = FrameInferer(96)(photograph, Seen())
    found = (logits[0, 0] > (0.5 - MEAN[0]) / DEVIATION[0]).numpy()
    assert 2 * (found & disc).sum() / (found.sum() + disc.sum()) > 0.97


def test_bytes_floats_and_meta_tensors_give_the_same_and_bf16_nearly():
    photograph = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = nn.Conv2d(3, 2, 3, padding=1)
    with torch.no_grad():
        one = FrameInferer(64)(photograph, network)
        assert torch.equal(FrameInferer(64)(MetaTensor(photograph), network), one)
        assert torch.allclose(FrameInferer(64)(photograph.float(), network), one, atol=0.05)
        half = FrameInferer(64, "bf16")(photograph, network)
    assert half.dtype == one.dtype == torch.float32
    assert not torch.equal(half, one)
    assert torch.allclose(half, one, atol=0.1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="batch_size 1"):
        FrameInferer(64)(torch.zeros(2, 3, 8, 8), Seen())
    with pytest.raises(DataError, match="batch_size 1"):
        FrameInferer(64)(torch.zeros(1, 1, 8, 8), Seen())
    with pytest.raises(DataError, match="keeps the size"):
        FrameInferer(64)(torch.zeros(1, 3, 8, 8), nn.Conv2d(3, 2, 2, stride=2))
    with pytest.raises(TrainingError, match="unknown precision"):
        FrameInferer(64, "fp8")
