"""Corruptions: reproducible, same shape and type, growing with severity, and physically what they say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions, make_ct_phantom
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.corruptions import CORRUPTIONS, SEVERITIES, corrupt_ct, corrupt_mr, corrupt_photograph
from monai_ssl_transfer.views.corruptions.ct_noise import noise_level, quantum_noise
from monai_ssl_transfer.views.corruptions.ct_resolution import _box
from monai_ssl_transfer.views.corruptions.fields import lit_part, random_stream
from monai_ssl_transfer.views.corruptions.severities import CT, MR, PHOTOGRAPH, Corruption, corruption, markdown_table
from monai_ssl_transfer.views.corruptions.sheet import generated_photograph

PHOTOGRAPHS, SCANS = list(CORRUPTIONS[PHOTOGRAPH]), list(CORRUPTIONS[CT])
TWO_WAYS = ("brightness", "gamma", "white_balance", "saturation")
NOT_DRAWN = ("gaussian_blur", "defocus_blur", "contrast", "jpeg", "down_sampling", "vignette")
SPACING = (5.0, 2.4, 2.4)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return generated_photograph(3, 144)


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return make_ct_phantom(4, PhantomOptions(size=160, slices=2, noise=(6.0, 9.0))).hu


def lost(clean: np.ndarray, changed: np.ndarray) -> float:
    return float(np.mean((changed.astype(np.float64) - clean) ** 2))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_keeps_shape_type_and_border_and_loses_more_with_severity(frame: np.ndarray, name: str) -> None:
    found = [corrupt_photograph(frame, name, severity, "a") for severity in SEVERITIES]
    assert all(one.shape == frame.shape and one.dtype == np.uint8 for one in found)
    losses = [lost(frame, one) for one in found]
    assert losses[0] > 0
    assert (np.diff(losses) > 0).all()
    border = lit_part(frame.astype(np.float32) / 255) == 0
    assert border.mean() > 0.05
    if name not in ("jpeg", "down_sampling", "rician_noise"):
        assert (found[-1][border] == frame[border]).all()


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_keeps_shape_type_and_padding_and_loses_more_with_severity(volume: np.ndarray, name: str) -> None:
    padded = volume.repeat(3, 1).repeat(3, 2) if name == "blur" else volume.copy()  # 0.7 px at 512 are none at 160
    padded[:, :4, :4] = -3024
    found = [corrupt_ct(padded, name, severity, "a", SPACING) for severity in SEVERITIES]
    assert all(one.shape == padded.shape and one.dtype == np.int16 for one in found)
    assert all((one[:, :4, :4] == -3024).all() for one in found)
    rest = padded > -3024
    assert all(one[rest].min() >= -1024 and one[rest].max() <= 3071 for one in found)
    losses = [lost(padded, one) for one in found]
    assert losses[0] > 0
    assert (np.diff(losses) > 0).all()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_decided_by_its_name_alone(frame: np.ndarray, name: str) -> None:
    first = corrupt_photograph(frame, name, 4, "case 1")
    assert (corrupt_photograph(frame, name, 4, "case 1") == first).all()
    if name not in TWO_WAYS:  # of those only the way is drawn
        others = corrupt_photograph(frame, name, 4, "case 2"), corrupt_photograph(frame, name, 4, "case 1", seed=1)
        assert all((one != first).any() == (name not in NOT_DRAWN) for one in others)


def test_random_numbers_do_not_change_between_versions() -> None:
    numbers = random_stream(0, "ring", "volume-0").random(4)
    assert hashlib.sha256(numbers.tobytes()).hexdigest()[:16] == "18c8f563b1ded317"


@pytest.mark.parametrize("name", TWO_WAYS)
def test_what_can_go_two_ways_does(frame: np.ndarray, name: str) -> None:
    assert len({corrupt_photograph(frame, name, 3, f"case {i}").tobytes() for i in range(12)}) == 2


def test_severity_zero_is_the_image_itself(frame: np.ndarray, volume: np.ndarray) -> None:
    assert all(corrupt_photograph(frame, name, 0, "a") is frame for name in PHOTOGRAPHS)
    assert all(corrupt_ct(volume, name, 0, "a") is volume for name in SCANS)


def test_floating_point_and_bytes_agree(frame: np.ndarray) -> None:
    as_float = corrupt_photograph((frame / 255).astype(np.float32), "smoke", 3, "a")
    assert as_float.dtype == np.float32
    assert np.abs(as_float * 255 - corrupt_photograph(frame, "smoke", 3, "a")).max() <= 0.51


@given(severity=st.sampled_from(SEVERITIES), identity=st.text(max_size=8))
@settings(max_examples=15, deadline=None)
def test_hu_shift_is_exact(severity: int, identity: str) -> None:
    inside = np.linspace(-900, 2900, 48).reshape(3, 4, 4).astype(np.int16)
    moved = corrupt_ct(inside, "hu_shift", severity, identity) - inside
    assert np.unique(moved).size == 1
    assert abs(float(moved[0, 0, 0])) == corruption(CT, "hu_shift").at(severity)[0]


def test_rician_noise_is_that_of_a_magnitude_picture() -> None:
    dark, bright = np.zeros((512, 512, 3), np.float32), np.full((512, 512, 3), 0.6, np.float32)
    sigma = corruption(PHOTOGRAPH, "rician_noise").at(3)[0]
    air, tissue = (corrupt_photograph(one, "rician_noise", 3, "a") for one in (dark, bright))
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.02)
    assert tissue.mean() == pytest.approx(0.6 + sigma**2 / 1.2, abs=0.001)
    assert tissue.std() == pytest.approx(sigma, rel=0.02)
    assert (tissue == tissue[..., :1]).all()


@pytest.mark.parametrize("name", list(CORRUPTIONS[MR]))
def test_an_mr_volume_keeps_shape_type_and_zeros_and_loses_more_with_severity(name: str) -> None:
    scan = np.random.default_rng(0).integers(1, 900, (6, 40, 36)).astype(np.int16)
    scan[:, :, 20:] += 900
    scan = scan.repeat(8, 1).repeat(8, 2) if name == "blur" else scan  # 0.7 px at 512 are none at 40
    scan[:, :9] = 0
    found = [corrupt_mr(scan, name, severity, "a", SPACING) for severity in (*SEVERITIES, 5)]
    assert all(one.shape == scan.shape and one.dtype == np.int16 and not one[:, :9].any() for one in found)
    losses = [lost(scan, one) for one in found]
    assert losses[0] > 0 and (np.diff(losses[:5]) > 0).all()
    assert (found[4] == found[5]).all()
    assert corrupt_mr(scan, name, 0, "a") is scan
    alike = corrupt_mr((scan * np.float32(0.01)), name, 3, "a", SPACING)  # magnitudes have no unit
    assert np.allclose(alike * 100, corrupt_mr(scan.astype(np.float32), name, 3, "a", SPACING), rtol=1e-3, atol=0.1)


def test_rician_noise_of_a_volume_follows_its_distribution() -> None:
    scan = np.full((4, 100, 100), 1000, np.float32)
    scan[:2] = 0.001
    scan[0, 0, 0] = 0
    found = corrupt_mr(scan, "rician_noise", 3, "a")
    sigma = 1000 * corruption(MR, "rician_noise").at(3)[0]
    assert found[0, 0, 0] == 0
    assert found[:2].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert found[2:].std() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("side", [64, 65])
def test_rings_are_symmetric_and_the_same_in_every_slice(side: int) -> None:
    clean = np.zeros((3, side, side), np.float32)
    rings = corrupt_ct(clean, "ring", 5, "a")
    assert np.abs(rings).max() > 30
    assert all(np.allclose(np.rot90(rings, turn, (1, 2)), rings, atol=1e-3) for turn in (1, 2, 3))
    assert np.allclose(rings, rings[:1])


def cylinder(diameter: float, side: int = 128, pixel: float = 4.0) -> np.ndarray:
    axis = (np.arange(side) - (side - 1) / 2) * pixel
    return np.where(np.hypot(axis[:, None], axis) <= diameter / 2, 0.0, -1000.0).astype(np.float32)


def test_quantum_noise_has_its_level_in_30_cm_of_water_and_grows_with_attenuation() -> None:
    levels = {d: noise_level(cylinder(d), (4.0, 4.0)) for d in (150, 300, 400)}
    assert levels[300][64, 64] == pytest.approx(1.0, rel=0.06)
    assert levels[150][64, 64] < 0.6 < 1.4 < levels[400][64, 64]
    assert levels[300][64, 64] > 1.2 * levels[300][64, 30]
    noise = quantum_noise(cylinder(300)[None], np.random.default_rng(0), (0.0, 4.0, 4.0), 20.0)[0] - cylinder(300)
    assert noise[58:70, 58:70].std() == pytest.approx(20, rel=0.25)
    low = np.abs(np.fft.fft2(noise))[:3, :3].mean()
    assert low < 0.5 * np.abs(np.fft.fft2(noise))[20:40, 20:40].mean()  # a kernel's texture, not white


def test_a_thicker_slice_averages_its_neighbours_and_keeps_what_is_linear() -> None:
    step = np.zeros((9, 2, 2), np.float32)
    step[5:] = 100
    found = corrupt_ct(step, "slice_thickness", 5, "a", (5.0, 1.0, 1.0))[:, 0, 0]
    assert 0 < found[4] < found[5] < 100
    assert all(_box(width).sum() == pytest.approx(1) for width in (0.3, 1.0, 2.5, 4.0))
    assert _box(1.0)[len(_box(1.0)) // 2] == pytest.approx(0.75)
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32)[:, None, None] * 10, (30, 2, 2))
    assert np.allclose(corrupt_ct(ramp, "slice_thickness", 5, "a", (5.0, 1.0, 1.0))[5:25], ramp[5:25], atol=1e-3)
    with pytest.raises(DataError, match="neighbouring slices"):
        corrupt_ct(step[:1], "slice_thickness", 1, "a", (5.0, 1.0, 1.0))


@pytest.mark.parametrize("name", [one for one in SCANS if one not in ("window_error", "slice_thickness")])
def test_edges_stay_where_they_are(name: str) -> None:
    """The middle of a square's edges, by centre of gravity, moves by less than half a pixel: its label stays valid."""
    scene = np.full((1, 96, 96), -900, np.float32)
    scene[:, 30:60, 20:50] = 100
    found = corrupt_ct(scene, name, 3, "a", (0.0, 1.0, 1.0))[0]
    mass = np.clip((found + 900) / 1000, 0, 1) * (found > -600)
    rows, columns = np.indices(mass.shape)
    assert (rows * mass).sum() / mass.sum() == pytest.approx(44.5, abs=0.5)
    assert (columns * mass).sum() / mass.sum() == pytest.approx(34.5, abs=0.5)


def test_wrong_requests_end_in_one_sentence(frame: np.ndarray) -> None:
    with pytest.raises(DataError, match="has no corruption 'fog'"):
        corrupt_photograph(frame, "fog", 1, "a")
    with pytest.raises(DataError, match="no severity 6"):
        corrupt_photograph(frame, "smoke", 6, "a")
    with pytest.raises(DataError, match="rows, columns, 3"):
        corrupt_photograph(frame[..., 0], "smoke", 1, "a")
    with pytest.raises(DataError, match="no corruptions of 'pet'"):
        markdown_table("pet")


def test_the_table_is_whole() -> None:
    rows: list[Corruption] = [row for rows in CORRUPTIONS.values() for row in rows.values()]
    assert all(len(row.values) == 5 and len(row.parameters) == len(row.values[0]) for row in rows)
    for row in rows:  # every number goes one way only
        for numbers in zip(*row.values, strict=True):
            assert (np.diff(numbers) > 0).all() or (np.diff(numbers) < 0).all()
