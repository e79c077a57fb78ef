from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.views import (
    BatchedViews,
    ViewRecipe,
    channel_windows,
    device_executor,
    recipe,
    sample_executor,
)
from monai_ssl_transfer.views.parameters import draw_parameters

CASES = [(m, c) for m in ("simclr", "moco_v2", "dino") for c in ("windows", "single", "neighbours", "rgb")]


def make(method: str, channels: str, seed: int = 0) -> BatchedViews:
    return BatchedViews(recipe(method, "rgb" if channels == "rgb" else "ct", image_size=64), channels, seed)


def batch(views: BatchedViews, count: int, rows: int = 150, columns: int = 130) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    smooth = torch.rand(count, views.in_channels, rows // 5, columns // 5, generator=generator)
    image = torch.nn.functional.interpolate(smooth, (rows, columns), mode="bicubic").clamp(0, 1)
    if views.channels == "rgb":
        return (image * 255).to(torch.uint8)
    return (image * 3000 - 1024).to(torch.int16)


@pytest.mark.parametrize(("method", "channels"), CASES)
def test_output_contract(method: str, channels: str) -> None:
    views = make(method, channels)
    result = views(batch(views, 3), None, torch.arange(3), 0)
    sides = [64, 64] + [32] * 8 if method == "dino" else [64, 64]
    assert [tuple(v.shape) for v in result] == [(3, views.out_channels, s, s) for s in sides]
    assert all(v.dtype == torch.float32 and v.is_contiguous() and torch.isfinite(v).all() for v in result)
    assert not views.state_dict()


@pytest.mark.parametrize(("method", "channels"), CASES)
def test_both_executors_give_the_same_views(method: str, channels: str) -> None:
    views = make(method, channels, seed=4)
    image, sample, size = batch(views, 6), torch.arange(6), torch.tensor([[150, 130], [90, 100], [33, 60]] * 2)
    parameters = draw_parameters(views.recipe, 4, 1, sample, size)
    expected = device_executor.make_views(image, views.recipe, parameters, views.windows)
    result = views(image, size, sample, 1)
    for one, other in zip(result, expected, strict=True):
        difference = (one - other).abs()
        if channels == "rgb":
            # The CPU rounds resized pictures to 8 bits, 0.0175 in normalised units; jitter stretches that, and
            # solarize jumps at its threshold.
            assert difference.mean() < 0.02
            assert (difference > 0.1).float().mean() < 0.01
        else:
            assert difference.max() < 1e-4


@pytest.mark.parametrize(("method", "channels"), [("dino", "windows"), ("simclr", "neighbours"), ("dino", "rgb")])
def test_views_are_bitwise_the_same_in_any_batch(method: str, channels: str) -> None:
    views = make(method, channels, seed=2)
    image, sample = batch(views, 7), torch.tensor([5, 80, 3, 10**7, 2**40, 9, 11])
    size = torch.tensor([[150, 130], [120, 130], [77, 91], [150, 99], [60, 60], [149, 130], [150, 130]])
    whole = views(image, size, sample, 3)
    order = torch.tensor([4, 1, 6])
    part = views(image[order], size[order], sample[order], 3)
    padded = torch.nn.functional.pad(image, (0, 41, 0, 13), value=77)
    wide = views(padded, size, sample, 3)
    last = image[:, :, :, :].to(memory_format=torch.channels_last)
    relaid = views(last, size, sample, 3)
    for v, one in enumerate(whole):
        assert torch.equal(one[order], part[v])
        assert torch.equal(one, wide[v])
        assert torch.equal(one, relaid[v])


def test_views_do_not_depend_on_the_number_of_threads() -> None:
    views = make("simclr", "windows")
    image, sample, before = batch(views, 5), torch.arange(5), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = views(image, None, sample, 0)
        torch.set_num_threads(2)
        two = views(image, None, sample, 0)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_torch_executor_does_not_depend_on_the_batch() -> None:
    views = make("simclr", "windows")
    image, sample, size = batch(views, 6), torch.arange(6), torch.tensor([[150, 130]] * 6)

    def run(index: torch.Tensor) -> list[torch.Tensor]:
        p = draw_parameters(views.recipe, 0, 0, sample[index], size[index])
        return device_executor.make_views(image[index], views.recipe, p, views.windows)

    order = torch.tensor([3, 0])
    for one, other in zip(run(sample), run(order), strict=True):
        torch.testing.assert_close(one[order], other, atol=1e-6, rtol=0)


def test_seed_epoch_sample_and_view_change_the_views() -> None:
    views, other = make("simclr", "single", seed=0), make("simclr", "single", seed=1)
    image = batch(views, 1).expand(2, -1, -1, -1)
    first = views(image, None, torch.tensor([0, 1]), 0)
    assert not torch.equal(first[0][0], first[0][1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], views(image, None, torch.tensor([0, 1]), 1)[0])
    assert not torch.equal(first[0], other(image, None, torch.tensor([0, 1]), 0)[0])
    assert torch.equal(first[0], views(image, None, torch.tensor([0, 1]), 0)[0])


def test_ct_keeps_more_than_256_levels() -> None:
    views = BatchedViews((ViewRecipe(128, (1.0, 1.0), (1.0, 1.0), flip=0.0),), "single")
    image = torch.arange(-1000, 1048, dtype=torch.int16).repeat(8).view(1, 1, 128, 128)
    result = views(image, None, torch.tensor([0]), 0)[0]
    assert len(torch.unique(result)) > 1900
    expected = (image.float() / 2000 + 0.5).clamp(0, 1) * 4 - 2
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tone", [0.6, 0.985, 0.999, 1.0, 1.015, 1.9])
def test_cpu_tone_curve_is_the_definition(tone: float) -> None:
    view = ViewRecipe(64, (1.0, 1.0), (1.0, 1.0), flip=0.0)
    hu = torch.arange(-1024, 3072, dtype=torch.int16).view(1, 1, 64, 64)
    p = draw_parameters((view,), 0, 0, torch.tensor([0]), torch.tensor([[64, 64]]))[0]
    p = replace(p, tone=np.full((1, 3), tone))
    windows = channel_windows("windows")
    one = sample_executor.make_views(hu, [view], [p], windows, 3)[0]
    torch.testing.assert_close(one, device_executor.ct_view(hu, view, p, windows), atol=5e-5, rtol=0)


def test_memory_of_the_batch_is_not_changed() -> None:
    for channels in ("windows", "rgb"):
        views = make("dino", channels)
        image = batch(views, 2)
        copy = image.clone()
        views(image, None, torch.arange(2), 0)
        assert torch.equal(image, copy)


def test_wrong_batches_are_refused() -> None:
    views = make("simclr", "windows")
    image = batch(views, 2)
    with pytest.raises(DataError, match="needs a batch"):
        views(image.float(), None, torch.arange(2), 0)
    with pytest.raises(DataError, match="needs a batch"):
        views(image.expand(-1, 3, -1, -1), None, torch.arange(2), 0)
    with pytest.raises(DataError, match="sample numbers"):
        views(image, None, torch.arange(3), 0)
    with pytest.raises(DataError, match="outside the padded batch"):
        views(image, torch.tensor([[150, 131], [10, 10]]), torch.arange(2), 0)


def test_a_recipe_of_the_other_domain_is_refused() -> None:
    with pytest.raises(TrainingError, match="domain='ct'"):
        BatchedViews(recipe("dino", "rgb"), "windows")
    with pytest.raises(TrainingError, match="domain='rgb'"):
        BatchedViews(recipe("dino", "ct"), "rgb")
    with pytest.raises(TrainingError, match="too large"):
        BatchedViews(recipe("simclr", "ct", image_size=800), "neighbours")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("method", "channels"), CASES)
def test_cuda_gives_the_views_of_the_cpu(method: str, channels: str) -> None:
    views = make(method, channels)
    image = batch(views, 4)
    on_cpu = views(image, None, torch.arange(4), 0)
    on_cuda = views(image.cuda(), None, torch.arange(4), 0)
    for one, other in zip(on_cpu, on_cuda, strict=True):
        assert other.is_cuda
        difference = (one - other.cpu()).abs()
        assert difference.mean() < (0.02 if channels == "rgb" else 1e-5)
        assert (difference > (0.1 if channels == "rgb" else 1e-3)).float().mean() < 0.01
