"""Properties of images that were drawn to have them."""

import numpy as np
import pytest
from skimage.measure import label

from monai_ssl_transfer.evaluation.features.ct_properties import CT_PROPERTIES, body_mask, ct_properties
from monai_ssl_transfer.evaluation.features.photograph_properties import PHOTOGRAPH_PROPERTIES, photograph_properties
from monai_ssl_transfer.evaluation.features.properties import entropy, gradient, mirror_symmetry, noise


def body(rows: int = 60, columns: int = 80) -> np.ndarray:
    """Air, a body of 40 HU, a lung of -800 HU in it, a bone of 700 HU, and a table beside it."""
    plane = np.full((rows, columns), -1000.0)
    plane[10:50, 20:60] = 40
    plane[20:30, 25:35] = -800
    plane[40:44, 30:35] = 700
    plane[55:57, 10:70] = 100
    return plane


def test_a_slice_has_the_area_density_air_and_bone_that_it_was_drawn_with() -> None:
    found = ct_properties(body(), (2.0, 0.5))
    assert found["body_area"] == pytest.approx(1600 * 2.0 * 0.5 / 100)
    assert found["body_share"] == pytest.approx(1600 / 4800)
    assert found["air"] == pytest.approx(100 / 1600)
    assert found["bone"] == pytest.approx(20 / 1600)
    values = np.repeat([40.0, -800, 700], [1480, 100, 20])
    assert found["mean"] == pytest.approx(values.mean()) and found["contrast"] == pytest.approx(values.std())
    assert found["pixel_size"] == pytest.approx(1)
    assert set(found) == {one.name for one in CT_PROPERTIES}


def test_metal_padding_and_unknown_spacing_do_not_decide() -> None:
    plane = body()
    plane[0, 0], plane[12, 22] = -3024, 20000
    usual = body()
    usual[12, 22] = 1000
    assert ct_properties(plane, (0.0, 0.0)) == ct_properties(usual, (1.0, 1.0))


def test_the_body_is_the_largest_part_with_its_holes_and_everything_where_there_is_only_air() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        plane = np.where(generator.random((20, 25)) < 0.55, 0.0, -1000.0)
        parts = label(plane > -500, connectivity=1)
        largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
        around = label(np.pad(~largest, 1, constant_values=True), connectivity=1)
        assert np.array_equal(body_mask(plane), (around != around[0, 0])[1:-1, 1:-1])
    assert body_mask(np.full((5, 6), -1000.0)).all()
    assert ct_properties(np.full((5, 6), -1000), (1.0, 1.0))["air"] == 1


def test_a_photograph_is_measured_without_its_black_border() -> None:
    frame = np.zeros((80, 100, 3), dtype=np.uint8)
    frame[:, 20:] = (200, 100, 100)
    frame[:, 90:] = (250, 240, 235)
    found = photograph_properties(frame)
    assert found["border"] == pytest.approx(0.2)
    assert found["highlights"] == pytest.approx(10 / 80)
    assert found["brightness"] == pytest.approx(0.875 * 129.9 + 0.125 * (250 * 0.299 + 240 * 0.587 + 235 * 0.114))
    assert found["redness"] == pytest.approx((7 * 200 + 250) / (7 * 400 + 725))
    assert found["dark"] == 0 and found["aspect"] == 1.25
    assert set(found) == {one.name for one in PHOTOGRAPH_PROPERTIES}


def test_grey_has_no_colour_and_colour_is_that_of_the_formula() -> None:
    generator = np.random.default_rng(1)
    grey = np.repeat(generator.integers(60, 200, (30, 30, 1)), 3, axis=2).astype(np.uint8)
    assert photograph_properties(grey)["colourfulness"] == pytest.approx(0)
    colours = generator.integers(60, 200, (30, 30, 3)).astype(np.uint8)
    red, green, blue = (colours[..., i].astype(float).ravel() for i in range(3))
    one, other = red - green, (red + green) / 2 - blue
    wanted = np.sqrt(one.var() + other.var()) + 0.3 * np.sqrt(one.mean() ** 2 + other.mean() ** 2)
    assert photograph_properties(colours)["colourfulness"] == pytest.approx(wanted)


def test_entropy_gradient_symmetry_and_noise_by_hand() -> None:
    assert entropy(np.array([0.0, 100, 200, 300]), 0, 64 * 5) == pytest.approx(2)
    assert entropy(np.full(9, 3.0), 0, 10) == 0
    ramp = np.arange(12.0)[None] * np.ones((5, 1)) * 6
    assert np.allclose(gradient(ramp, (1.0, 2.0)), 3)
    assert mirror_symmetry(ramp) == pytest.approx(-1)
    assert mirror_symmetry(np.abs(ramp - ramp.mean())) == pytest.approx(1)
    assert mirror_symmetry(np.ones((3, 3))) == 1
    noisy = ramp[:1] * np.ones((200, 1)) + np.random.default_rng(0).normal(0, 7, (200, 12))
    inside = np.zeros((200, 12), dtype=bool)
    inside[2:-2, 2:-2] = True
    assert noise(noisy, inside) == pytest.approx(7, rel=0.08)
    assert noise(ramp, np.pad(np.ones((3, 10), bool), 1)) == pytest.approx(0, abs=1e-5)
