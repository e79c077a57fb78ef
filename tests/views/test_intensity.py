from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_ssl_transfer.views import intensity, sample_executor
from monai_ssl_transfer.views.parameters import ViewParameters, draw_parameters
from monai_ssl_transfer.views.recipes import HUJitter, ViewRecipe
from monai_ssl_transfer.views.windows import BONE, LUNG, SOFT_TISSUE, hu_to_channels

CT = ViewRecipe(64, jitter=HUJitter())


def draw(count: int, view: ViewRecipe = CT) -> ViewParameters:
    return draw_parameters((view,), 3, 0, torch.arange(count), torch.tensor([[64, 64]] * count))[0]


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.3, 2.0])
def test_blur_equals_scipy(sigma: float) -> None:
    image = torch.rand(2, 3, 40, 40) * 2000 - 1000
    radius = int(np.ceil(3 * sigma))
    expected = ndimage.gaussian_filter(
        image.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, radius, radius)
    )
    np.testing.assert_allclose(intensity.blur(image, np.array([sigma] * 2)).numpy(), expected, atol=1e-2)
    np.testing.assert_allclose(sample_executor.blur(image[0, 0].numpy(), sigma), expected[0, 0], atol=1e-2)


def test_each_sample_is_blurred_with_its_own_sigma() -> None:
    image = torch.rand(3, 1, 16, 16)
    result = intensity.blur(image, np.array([0.0, 2.0, 0.7]))
    assert torch.equal(result[0], image[0])
    assert torch.allclose(result[1:2], intensity.blur(image[1:2], np.array([2.0])), atol=1e-6)
    assert torch.equal(intensity.blur(image, np.zeros(3)), image)


def test_a_view_smaller_than_the_kernel_is_mirrored() -> None:
    image = torch.rand(1, 1, 4, 4)
    expected = ndimage.gaussian_filter(image.numpy(), (0, 0, 2, 2), mode="mirror", radius=(0, 0, 6, 6))
    np.testing.assert_allclose(intensity.blur(image, np.array([2.0])).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(sample_executor.blur(image[0, 0].numpy(), 2.0), expected[0, 0], atol=1e-5)


def test_noise_has_the_drawn_deviation() -> None:
    p = replace(draw(4), noise=np.array([0.0, 5.0, 10.0, 20.0]))
    result = intensity.add_noise(torch.zeros(4, 1, 64, 64), p)
    assert (result[0] == 0).all()
    np.testing.assert_allclose(result.std(dim=(1, 2, 3)).numpy(), p.noise, rtol=0.05)
    assert abs(np.corrcoef(result[1].flatten(), result[2].flatten())[0, 1]) < 0.08


def test_window_without_jitter_is_the_plain_window() -> None:
    hu = torch.randint(-1100, 3000, (5, 1, 64, 64)).float()
    p = draw(5, ViewRecipe(64))
    windows = (SOFT_TISSUE, LUNG, BONE)
    result = intensity.window_and_normalise(hu, windows, p)
    np.testing.assert_allclose(result.numpy(), hu_to_channels(hu, windows).numpy(), atol=1e-5)


def test_window_jitter_follows_its_formula() -> None:
    hu = torch.randint(-1100, 3000, (30, 1, 8, 8)).float()
    p = draw(30)
    result = intensity.window_and_normalise(hu, (SOFT_TISSUE, LUNG, BONE), p).numpy()
    for channel, window in enumerate((SOFT_TISSUE, LUNG, BONE)):
        level = (window.level + p.level[:, channel] * window.width)[:, None, None]
        width = (window.width * p.width[:, channel])[:, None, None]
        k = p.tone[:, channel][:, None, None]
        shown = np.clip((hu[:, 0].numpy().astype(np.float64) - level) / width + 0.5, 0, 1)
        shown = shown / (shown + (1 - shown) * k)
        np.testing.assert_allclose(result[:, channel], (shown - 0.5) / 0.25, atol=2e-5)


def test_tone_meets_the_power_law_at_its_ends_and_middle() -> None:
    hu = torch.tensor([-160.0, 40.0, 240.0]).view(1, 1, 1, 3)
    for gamma in (0.7, 1.5):
        p = replace(draw(1, ViewRecipe(64)), tone=np.full((1, 3), 2**gamma - 1))
        result = intensity.window_and_normalise(hu, (SOFT_TISSUE,), p).flatten() * 0.25 + 0.5
        np.testing.assert_allclose(result.numpy(), [0, 0.5**gamma, 1], atol=1e-6)
