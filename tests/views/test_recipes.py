from __future__ import annotations

import pytest

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.views.recipes import ColourJitter, HUJitter, ViewRecipe, dino_recipe, recipe


def test_simclr_has_the_published_values() -> None:
    first, second = recipe("simclr", "rgb")
    assert first == second
    assert (first.size, first.scale, first.flip, first.grayscale) == (224, (0.08, 1.0), 0.5, 0.2)
    assert first.jitter == ColourJitter(0.8, 0.8, 0.8, 0.8, 0.2)
    assert (first.blur, first.blur_sigma, first.solarize) == (0.5, (0.1, 2.0), 0.0)


def test_moco_v2_has_the_published_values() -> None:
    views = recipe("moco_v2", "rgb")
    assert views == recipe("moco", "rgb")
    assert len(views) == 2
    assert views[0].scale == (0.2, 1.0)
    assert views[0].jitter == ColourJitter(0.8, 0.4, 0.4, 0.4, 0.1)


@pytest.mark.parametrize(("encoder", "middle"), [("vit_small", 0.4), ("resnet50", 0.14)])
def test_dino_has_the_published_values(encoder: str, middle: float) -> None:
    views = recipe("dino", "rgb", encoder=encoder)
    assert [v.size for v in views] == [224] * 2 + [96] * 8
    assert [v.scale for v in views] == [(middle, 1.0)] * 2 + [(0.05, middle)] * 8
    assert [v.blur for v in views] == [1.0, 0.1] + [0.5] * 8
    assert [v.solarize for v in views] == [0.0, 0.2] + [0.0] * 8
    assert {v.jitter for v in views} == {ColourJitter(0.8, 0.4, 0.4, 0.2, 0.1)}
    assert {v.interpolation for v in views} == {"bicubic"}


def test_simclr_v2_has_the_views_of_simclr() -> None:
    assert recipe("simclr_v2", "rgb") == recipe("simclr", "rgb")
    assert recipe("simclr_v2", "ct") == recipe("simclr", "ct")


def test_radnet_has_its_published_values() -> None:
    first, second = recipe("simclr_radnet", "rgb")
    assert first == second
    assert (first.size, first.scale, first.flip, first.grayscale, first.blur) == (256, (0.08, 1.0), 0.5, 0.2, 0.0)
    assert first.jitter == ColourJitter(0.8, 0.8, 0.8, 0.8, 0.2)
    assert recipe("simclr_radnet", "ct", 64)[0].size == 64


@pytest.mark.parametrize(("encoder", "smallest"), [("vit_base", 0.08), ("resnet50", 0.2)])
def test_moco_v3_has_the_published_values(encoder: str, smallest: float) -> None:
    views = recipe("moco_v3", "rgb", encoder=encoder)
    assert [(v.size, v.scale, v.flip, v.grayscale) for v in views] == [(224, (smallest, 1.0), 0.5, 0.2)] * 2
    assert [v.jitter for v in views] == [ColourJitter(0.8, 0.4, 0.4, 0.2, 0.1)] * 2
    assert [(v.blur, v.solarize) for v in views] == [(1.0, 0.0), (0.1, 0.2)]
    assert views[0].blur_sigma == (0.1, 2.0)
    assert views[0].interpolation == "bilinear"


@pytest.mark.parametrize("encoder", ["vit_base", "resnet50"])
def test_barlow_twins_has_the_published_values(encoder: str) -> None:
    views = recipe("barlow_twins", "rgb", encoder=encoder)
    assert [(v.size, v.scale, v.flip, v.interpolation) for v in views] == [(224, (0.08, 1.0), 0.5, "bicubic")] * 2
    assert [v.jitter for v in views] == [ColourJitter(0.8, 0.4, 0.4, 0.2, 0.1)] * 2
    assert [(v.blur, v.solarize, v.grayscale) for v in views] == [(1.0, 0.0, 0.2), (0.1, 0.2, 0.2)]


@pytest.mark.parametrize("domain", ["rgb", "ct"])
def test_mae_crops_and_flips_only(domain: str) -> None:
    (view,) = recipe("mae", domain)
    assert (view.size, view.scale, view.flip) == (224, (0.2, 1.0), 0.5)
    assert view.interpolation == ("bicubic" if domain == "rgb" else "bilinear")
    assert (view.jitter, view.grayscale, view.blur, view.solarize) == (None, 0.0, 0.0, 0.0)


def test_dinov2_has_the_published_values() -> None:
    views = recipe("dinov2", "rgb", encoder="vit_base")
    assert [v.size for v in views] == [224] * 2 + [96] * 8
    assert [v.scale for v in views] == [(0.32, 1.0)] * 2 + [(0.05, 0.32)] * 8
    dino = recipe("dino", "rgb")
    assert [(v.blur, v.solarize, v.jitter, v.grayscale, v.interpolation) for v in views] == [
        (v.blur, v.solarize, v.jitter, v.grayscale, v.interpolation) for v in dino
    ]


@pytest.mark.parametrize(("encoder", "local"), [("vit_small", [96, 224]), ("vit_base_dinov2", [98, 224])])
def test_local_views_are_whole_patches(encoder: str, local: list[int]) -> None:
    for method in ("dino", "dinov2"):
        assert [recipe(method, "rgb", size, encoder)[2].size for size in (224, 518)] == local
        assert recipe(method, "rgb", 16, encoder)[2].size in (14, 16)


NAMES = ("simclr", "simclr_v2", "simclr_radnet", "moco_v2", "moco_v3", "barlow_twins", "dino", "dinov2")


@pytest.mark.parametrize("method", NAMES)
def test_ct_keeps_geometry_and_replaces_colour(method: str) -> None:
    for ct, rgb in zip(recipe(method, "ct"), recipe(method, "rgb"), strict=True):
        assert (ct.size, ct.scale, ct.blur, ct.flip) == (rgb.size, rgb.scale, rgb.blur, rgb.flip)
        assert isinstance(ct.jitter, HUJitter)
        assert ct.grayscale == ct.solarize == 0


def test_sizes_follow_the_image_size() -> None:
    assert [v.size for v in recipe("dino", image_size=112)] == [112] * 2 + [48] * 8
    assert recipe("simclr", image_size=64)[0].size == 64
    assert len(dino_recipe(local_views=6)) == 8


def test_bad_values_are_refused() -> None:
    with pytest.raises(TrainingError, match="no recipe"):
        recipe("byol")
    with pytest.raises(TrainingError, match="no recipe"):
        recipe("dino", "mri")
    with pytest.raises(TrainingError, match="crop scale"):
        ViewRecipe(scale=(0.5, 0.1))
    with pytest.raises(TrainingError, match="interpolation"):
        ViewRecipe(interpolation="lanczos")
    with pytest.raises(TrainingError, match="blur_sigma"):
        ViewRecipe(blur_sigma=(0.0, 1.0))


def test_local_views_are_left_aside_with_a_word_where_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    assert len(recipe("dino", local_views=3)) == 5
    assert recipe("simclr", local_views=None) == recipe("simclr") and not caplog.messages
    assert recipe("simclr", local_views=3) == recipe("simclr")
    assert "simclr have no local ones" in caplog.text
