from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from monai_ssl_transfer.views.parameters import NOISE_BANK, ViewParameters, draw_parameters, normal_bank
from monai_ssl_transfer.views.recipes import ViewRecipe, recipe


def draw(views: tuple[ViewRecipe, ...], count: int, rows: int = 512, columns: int = 512) -> list[ViewParameters]:
    return draw_parameters(views, 1, 2, torch.arange(count), torch.tensor([[rows, columns]] * count))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 700), columns=st.integers(1, 700), low=st.floats(0.01, 1), seed=st.integers(0, 2**63))
def test_crops_lie_inside_the_image(rows: int, columns: int, low: float, seed: int) -> None:
    size = torch.tensor([[rows, columns]] * 8)
    box = draw_parameters((ViewRecipe(scale=(low, 1.0)),), seed, 0, torch.arange(8), size)[0].box
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] >= 1).all()
    assert (box[:, 0] + box[:, 2] <= rows).all()
    assert (box[:, 1] + box[:, 3] <= columns).all()


@pytest.mark.parametrize(("rows", "columns"), [(512, 512), (300, 700)])
def test_crops_are_distributed_as_torchvision_draws_them(rows: int, columns: int) -> None:
    box = draw((ViewRecipe(scale=(0.2, 1.0)),), 3000, rows, columns)[0].box
    picture = torch.zeros(1, rows, columns)
    torch.manual_seed(0)
    other = np.array([RandomResizedCrop.get_params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for column in range(4):
        assert stats.ks_2samp(box[:, column], other[:, column]).pvalue > 1e-4


def test_a_crop_that_cannot_fit_is_the_largest_central_one() -> None:
    box = draw((ViewRecipe(scale=(0.9, 1.0)),), 3, rows=10, columns=1000)[0].box
    assert (box == [0, (1000 - 13) // 2, 10, 13]).all()


def test_shares_are_those_of_the_recipe() -> None:
    views = recipe("dino", "rgb")
    for view, p in zip(views[:3], draw(views, 4000)[:3], strict=True):
        for share, expected in [
            (p.flip[:, 1].mean(), 0.5),
            (p.flip[:, 0].mean(), 0.0),
            (p.jitter.mean(), 0.8),
            (p.grayscale.mean(), 0.2),
            ((p.sigma > 0).mean(), view.blur),
            (p.solarize.mean(), view.solarize),
        ]:
            assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9
    p = draw(views, 4000)[0]
    np.testing.assert_allclose(p.factors.min(axis=0), [0.6, 0.6, 0.8, -0.1], atol=0.002)
    np.testing.assert_allclose(p.factors.max(axis=0), [1.4, 1.4, 1.2, 0.1], atol=0.002)
    assert 0.1 <= p.sigma.min() < p.sigma.max() <= 2.0
    orders = np.unique(p.order, axis=0, return_counts=True)
    assert len(orders[0]) == 24
    assert stats.chisquare(orders[1]).pvalue > 1e-4


def test_ct_parameters_are_those_of_the_recipe() -> None:
    p = draw(recipe("moco_v2", "ct"), 4000)[0]
    jittered = p.jitter
    assert (p.level[~jittered] == 0).all()
    assert (p.width[~jittered] == 1).all()
    assert np.abs(p.level).max() <= 0.15
    assert np.abs(p.level).max() > 0.14
    assert 0.7 <= p.width.min() < 0.71
    toned = p.tone[(p.tone != 1).any(axis=1)]
    assert abs(len(toned) / 4000 - 0.5) < 0.04
    # k of gamma 0.7 and 1.5: 0.5**gamma == 1 / (1 + k)
    assert toned.min() >= 2**0.7 - 1
    assert toned.max() <= 2**1.5 - 1
    noise = p.noise[p.noise > 0]
    assert abs(len(noise) / 4000 - 0.5) < 0.04
    assert 2 <= noise.min() < noise.max() <= 30


def test_the_draw_of_a_sample_does_not_depend_on_the_batch() -> None:
    views = recipe("dino", "ct")
    size = torch.tensor([[512, 400]] * 50)
    whole = draw_parameters(views, 9, 1, torch.arange(50), size)
    part = draw_parameters(views, 9, 1, torch.tensor([31, 4]), size[:2])
    for one, other in zip(whole, part, strict=True):
        for field in fields(ViewParameters):
            assert np.array_equal(getattr(one, field.name)[[31, 4]], getattr(other, field.name)), field.name


def test_a_changed_option_leaves_the_other_draws_alone() -> None:
    view = recipe("simclr", "rgb")[0]
    one, other = draw((view,), 20)[0], draw((replace(view, blur=0.0, grayscale=1.0),), 20)[0]
    assert np.array_equal(one.box, other.box)
    assert np.array_equal(one.factors, other.factors)
    assert other.grayscale.all()


def test_the_noise_bank_is_normal() -> None:
    bank = normal_bank()
    assert bank.shape == (2 * NOISE_BANK,)
    assert np.array_equal(bank[:NOISE_BANK], bank[NOISE_BANK:])
    assert stats.kstest(bank[:100000], "norm").pvalue > 1e-4
    assert abs(np.corrcoef(bank[:NOISE_BANK:2], bank[1:NOISE_BANK:2])[0, 1]) < 0.006
