from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as tv

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD
from monai_ssl_transfer.views import colour, sample_colour
from monai_ssl_transfer.views.parameters import ViewParameters, draw_parameters
from monai_ssl_transfer.views.recipes import ColourJitter, ViewRecipe

STRONG = ViewRecipe(40, jitter=ColourJitter(1.0, 0.8, 0.8, 0.8, 0.5))


def draw(view: ViewRecipe, count: int) -> ViewParameters:
    return draw_parameters((view,), 3, 0, torch.arange(count), torch.tensor([[40, 40]] * count))[0]


def pictures(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 8, 8, generator=generator)
    image = torch.nn.functional.interpolate(small, (40, 40), mode="bicubic").clamp(0, 1)
    image[:, :, :4, :4] = image[:, :1, :4, :4]  # grey, white and black pixels have no hue
    image[:, :, :2, :2] = 1.0
    image[:, :, 38:, 38:] = 0.0
    return image


def torchvision_jitter(image: torch.Tensor, p: ViewParameters, i: int) -> torch.Tensor:
    functions = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for operation in p.order[i].tolist():
        image = functions[operation](image, float(p.factors[i, operation]))
    return image


def cpu_pictures(image: torch.Tensor, p: ViewParameters) -> torch.Tensor:
    out = np.empty(image.shape, np.float32)
    for i, one in enumerate(image):
        resized = np.ascontiguousarray(one.permute(1, 2, 0).numpy() * 255)
        sample_colour.finish_rgb(resized, p, i, lambda x: x, out[i])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy(out) * std + mean


def test_jitter_equals_torchvision_in_every_order() -> None:
    image, p = pictures(60), draw(STRONG, 60)
    assert len({tuple(o) for o in p.order.tolist()}) > 15
    batched, one_by_one = colour.jitter_colour(image, p), cpu_pictures(image, p)
    for i in range(60):
        expected = torchvision_jitter(image[i], p, i)
        # torchvision's grey weights are 0.2989, 0.587, 0.114, ours sum to 1: 1e-4 of the mean
        np.testing.assert_allclose(batched[i].numpy(), expected.numpy(), atol=1e-3)
        np.testing.assert_allclose(one_by_one[i].numpy(), expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("operation", range(4))
def test_each_operation_equals_torchvision(operation: int) -> None:
    image, p = pictures(8), draw(STRONG, 8)
    neutral = np.array([[1.0, 1.0, 1.0, 0.0]]).repeat(8, 0)
    neutral[:, operation] = p.factors[:, operation]
    p = replace(p, factors=neutral)
    function = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue][operation]
    expected = torch.stack([function(x, float(f)) for x, f in zip(image, neutral[:, operation], strict=True)])
    assert (expected - image).abs().max() > 0.05
    np.testing.assert_allclose(colour.jitter_colour(image, p).numpy(), expected.numpy(), atol=5e-4)
    np.testing.assert_allclose(cpu_pictures(image, p).numpy(), expected.numpy(), atol=5e-4)


def test_grey_and_solarize_equal_torchvision() -> None:
    view = ViewRecipe(40, grayscale=0.5, solarize=0.5)
    image = (pictures(20) * 255).round() / 255
    p = draw(view, 20)
    assert 0 < p.grayscale.mean() < 1
    assert 0 < p.solarize.mean() < 1
    batched = colour.solarize(colour.make_grey(image, p), p)
    one_by_one = cpu_pictures(image, p)
    for i in range(20):
        expected = tv.rgb_to_grayscale(image[i], 3) if p.grayscale[i] else image[i]
        if p.solarize[i]:
            expected = tv.solarize(expected, 128 / 255)
        # A pixel within rounding of the threshold may fall on either side of it.
        close = (expected - 128 / 255).abs() < 2e-3
        for result in (batched[i], one_by_one[i]):
            assert ((result - expected).abs()[~close] < 1e-3).all()
            assert close.float().mean() < 0.1


def test_samples_that_drew_nothing_are_left_alone() -> None:
    image, p = pictures(30), draw(ViewRecipe(40, jitter=ColourJitter(0.5, 0.8, 0.8, 0.8, 0.2)), 30)
    result = colour.jitter_colour(image, p)
    same = (result == image).flatten(1).all(1).numpy()
    assert np.array_equal(same, ~p.jitter)
