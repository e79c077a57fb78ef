from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from monai_ssl_transfer.views.parameters import ViewParameters, draw_parameters
from monai_ssl_transfer.views.recipes import ViewRecipe
from monai_ssl_transfer.views.resampling import axis_taps, crop_resize
from monai_ssl_transfer.views.sample_executor import crop_resize as crop_resize_one
from monai_ssl_transfer.views.sample_executor import crop_resize_rgb

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def torchvision_view(image: torch.Tensor, p: ViewParameters, i: int, size: int, interpolation: str) -> torch.Tensor:
    result = tv.resized_crop(
        image[i].double(), *p.box[i].tolist(), [size, size], interpolation=MODES[interpolation], antialias=True
    )
    result = tv.vflip(result) if p.flip[i, 0] else result
    return tv.hflip(result) if p.flip[i, 1] else result


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [224, 96, 31])
def test_equals_torchvision_with_antialiasing(interpolation: str, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    image = torch.randint(-1024, 3072, (6, 1, 300, 260), dtype=torch.int16, generator=generator)
    view = ViewRecipe(size, (0.02, 1.0), vertical_flip=0.5, interpolation=interpolation)
    p = draw_parameters((view,), 0, 0, torch.arange(6), torch.tensor([[300, 260]] * 6))[0]
    assert 0 < p.flip.mean() < 1
    batched = crop_resize(image, p, size, interpolation)
    for i in range(6):
        expected = torchvision_view(image, p, i, size, interpolation)
        # against float64, on white noise over 4096 HU
        np.testing.assert_allclose(batched[i].numpy(), expected.numpy(), atol=5e-3)
        one = crop_resize_one(image[i, 0].numpy(), view, p, i)
        np.testing.assert_allclose(one, expected[0].numpy(), atol=5e-3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_colour_pictures_equal_torchvision(interpolation: str) -> None:
    coarse = torch.rand(12, 3, 50, 60, generator=torch.Generator().manual_seed(0)) * 255
    image = torch.nn.functional.interpolate(coarse, (200, 240), mode="bilinear").to(torch.uint8)
    view = ViewRecipe(64, vertical_flip=0.5, interpolation=interpolation)
    p = draw_parameters((view,), 0, 0, torch.arange(12), torch.tensor([[200, 240]] * 12))[0]
    assert len(np.unique(p.flip, axis=0)) == 4
    batched = crop_resize(image, p, 64, interpolation)
    for i in range(12):
        expected = torchvision_view(image, p, i, 64, interpolation).numpy()
        np.testing.assert_allclose(batched[i].numpy(), expected, atol=1e-3)
        one = crop_resize_rgb(image[i].permute(1, 2, 0).contiguous().numpy(), view, p, i).transpose(2, 0, 1)
        # rounded (and clamped) after each axis, with 16-bit weights
        assert np.abs(one - np.clip(expected, 0, 255)).max() < 2
        assert np.abs(one - np.clip(expected, 0, 255)).mean() < 0.35


def test_pixels_outside_the_true_size_are_never_read() -> None:
    image = torch.randint(-1024, 3072, (4, 1, 90, 80), dtype=torch.int16)
    padded = torch.full((4, 1, 130, 200), 32767, dtype=torch.int16)
    padded[:, :, :90, :80] = image
    p = draw_parameters((ViewRecipe(48, (0.5, 1.0)),), 0, 0, torch.arange(4), torch.tensor([[90, 80]] * 4))[0]
    assert torch.equal(crop_resize(image, p, 48), crop_resize(padded, p, 48))


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(1, 900),
    size=st.integers(1, 230),
    flip=st.booleans(),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_weights_sum_to_one_inside_the_crop(length: int, size: int, flip: bool, interpolation: str) -> None:
    taps = axis_taps(torch.tensor([length]), size, torch.tensor([flip]), interpolation)
    assert int(taps.index.min()) >= 0
    assert int(taps.index.max()) < length
    np.testing.assert_allclose(taps.weight.sum(-1).numpy(), 1, atol=1e-5)
    # A ramp is kept where the filter is not cut by the edge: the geometry has no shift.
    ramp = ((taps.index + 0.5) * taps.weight).sum(-1)[0].numpy()
    expected = (np.arange(size) + 0.5) * length / size
    expected = expected[::-1] if flip else expected
    reach = 2 * max(length / size, 1) + 1
    inner = (expected > reach) & (expected < length - reach)
    np.testing.assert_allclose(ramp[inner], expected[inner], atol=0.12 * max(length / size, 1))


def test_weights_do_not_depend_on_the_batch() -> None:
    alone = axis_taps(torch.tensor([100]), 64, torch.tensor([False]))
    together = axis_taps(torch.tensor([512, 100]), 64, torch.tensor([True, False]))
    count = alone.weight.shape[-1]
    assert torch.equal(together.weight[1, :, :count], alone.weight[0])
    assert (together.weight[1, :, count:] == 0).all()
