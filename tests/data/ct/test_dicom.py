"""Reading DICOM CT: order, orientation, HU, clashes, and every reason to refuse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from dicom_phantom import ct_dataset, pattern, save, write_ct, write_enhanced, write_series
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.ct.dicom import read_dicom_series, resolve_clashes
from monai_ssl_transfer.data.ct.dicom_header import read_header
from monai_ssl_transfer.data.ct.dicom_pixels import read_hu
from monai_ssl_transfer.data.ct.dicom_series import group_slices
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError


def test_slices_are_ordered_by_position_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    slices = write_series(tmp_path, 5)
    volume = read_dicom_series(tmp_path.iterdir())
    np.testing.assert_array_equal(volume.hu, np.maximum(np.stack(slices), -1024))
    np.testing.assert_allclose(volume.positions, [0, 2, 4, 6, 8])
    assert volume.spacing == (0.5, 0.75) and volume.slice_spacing == 2.0 and not volume.uneven


def test_affine_maps_stored_indices_to_ras(tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    affine = read_dicom_series(tmp_path.iterdir()).affine
    # IPP (-3, 4, 0) LPS is (3, -4, 0) RAS; rows go to posterior (-y), columns to left (-x)
    np.testing.assert_allclose(affine, [[0, -0.75, 0, 3], [-0.5, 0, 0, -4], [0, 0, 2, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("rows", ["P", "A"])
@pytest.mark.parametrize("columns", ["L", "R"])
@pytest.mark.parametrize("transposed", [False, True])
def test_any_in_plane_orientation_gives_the_same_canonical_pixels(
    tmp_path: Path, rows: str, columns: str, transposed: bool
) -> None:
    truth = pattern(1)
    height, width = truth.shape
    row, column = np.array([0, 0.5 if rows == "P" else -0.5, 0]), np.array([0.75 if columns == "L" else -0.75, 0, 0])
    pixels = truth[:: 1 if rows == "P" else -1, :: 1 if columns == "L" else -1]
    origin = np.array([-3.0, 4.0, 7.0])
    origin = origin - row * (height - 1) * (rows == "A") - column * (width - 1) * (columns == "R")
    spacing = [0.5, 0.75]
    if transposed:
        pixels, row, column, spacing = pixels.T, column, row, [0.75, 0.5]
    cosines = [*(column / np.linalg.norm(column)), *(row / np.linalg.norm(row))]
    file = write_ct(
        tmp_path / "a", pixels, origin.tolist(), ImageOrientationPatient=cosines, PixelSpacing=spacing, SliceThickness=1
    )
    volume = read_dicom_series([file])
    np.testing.assert_array_equal(volume.hu[0], truth)
    np.testing.assert_allclose(volume.affine[:3, 3], [3, -4, 7], atol=1e-6)
    assert volume.spacing == pytest.approx((0.5, 0.75)) and volume.positions[0] == pytest.approx(7)


def test_slope_and_intercept_of_each_slice_and_clamping(tmp_path: Path) -> None:
    pixels = np.array([[-32768, 0, 1, 3], [100, 101, 30000, 32767]], dtype=np.int16)
    a = write_ct(tmp_path / "a", pixels, [0, 0, 0], 1, RescaleSlope=0.5, RescaleIntercept=-10)
    b = write_ct(tmp_path / "b", pixels, [0, 0, 2], 2, RescaleSlope=2, RescaleIntercept=-1)
    volume = read_dicom_series([a, b])
    for hu, slope, intercept in ((volume.hu[0], 0.5, -10), (volume.hu[1], 2, -1)):
        np.testing.assert_array_equal(hu, np.clip(np.rint(pixels.astype(float) * slope + intercept), -1024, 32767))


def test_padding_value_and_range_become_air(tmp_path: Path) -> None:
    pixels = np.array([[-1500, -1400], [-1300, 40]], dtype=np.int16)
    file = write_ct(tmp_path / "a", pixels + 2000, [0, 0, 0], PixelPaddingValue=500, PixelPaddingRangeLimit=600)
    np.testing.assert_array_equal(read_hu(read_header(file)[0][0]), [[-1024, -1024], [700, 2040]])


def test_padding_value_written_as_unsigned(tmp_path: Path) -> None:
    dataset = ct_dataset(np.array([[-1500, 40]], dtype=np.int16), [0, 0, 0])
    dataset.add_new(0x00280120, "US", 65536 - 1500)
    header = read_header(save(dataset, tmp_path / "a"))[0][0]
    np.testing.assert_array_equal(read_hu(header), [[-1024, 40]])


def test_unused_high_bits_do_not_reach_the_values(tmp_path: Path) -> None:
    stored = np.array([[5, -7], [2047, -2048]])
    overlay = ((stored & 0x0FFF) | 0x5000).astype(np.uint16).view(np.int16)
    file = write_ct(tmp_path / "a", overlay, [0, 0, 0], BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_hu(read_header(file)[0][0]), np.maximum(stored, -1024))


def test_uneven_gaps_and_missing_slices_keep_true_positions(tmp_path: Path) -> None:
    for number, z in enumerate([0.0, 1.0, 2.0, 5.0, 6.25]):
        write_ct(tmp_path / f"{number}", pattern(number), [0, 0, z], number)
    volume = read_dicom_series(tmp_path.iterdir())
    np.testing.assert_allclose(volume.positions, [0, 1, 2, 5, 6.25])
    assert volume.uneven and "1.00 to 3.00 mm" in volume.notes[0]


@settings(max_examples=25, deadline=None)
@given(angle=st.floats(-29, 29), gaps=st.lists(st.floats(0.1, 9), min_size=1, max_size=5))
def test_tilted_slices_lie_at_their_distance_along_the_normal(
    tmp_path_factory: pytest.TempPathFactory, angle: float, gaps: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("tilt")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    table = np.concatenate([[0], np.cumsum(gaps)])
    for number, z in enumerate(table):
        orientation = [1, 0, 0, 0, round(cosine, 10), round(sine, 10)]
        write_ct(
            folder / f"{number}", pattern(number), [0, 0, round(z, 9)], number, ImageOrientationPatient=orientation
        )
    volume = read_dicom_series(folder.iterdir())
    np.testing.assert_allclose(np.diff(volume.positions), np.array(gaps) * cosine, atol=1e-6)
    if abs(abs(angle) - 0.5) > 0.01:  # at the threshold itself rounding decides
        assert any("gantry tilt" in note for note in volume.notes) == (abs(angle) > 0.5)
    corner = volume.affine @ [0, 0, len(gaps), 1]
    np.testing.assert_allclose(corner[:3], [0, 0, table[-1]], atol=1e-6)


def test_identical_slice_at_one_position_is_kept_once(tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    write_ct(tmp_path / "again", pattern(1), [-3.0, 4.0, 2.0], 99)
    groups = group_slices(h for file in tmp_path.iterdir() for h in read_header(file)[0])
    parts, refusals = resolve_clashes(groups[0])
    assert [len(part.slices) for part in parts] == [3]
    assert [refusal.code for refusal in refusals] == ["duplicate"]


def test_different_slices_at_one_position_are_split_by_acquisition(tmp_path: Path) -> None:
    for phase in (1, 2):
        for number in range(3):
            write_ct(tmp_path / f"{phase}{number}", pattern(10 * phase + number), [0, 0, number], 10 * phase + number,
                     AcquisitionNumber=phase)  # fmt: skip
    group = group_slices(h for file in tmp_path.iterdir() for h in read_header(file)[0])[0]
    parts, refusals = resolve_clashes(group)
    assert [len(part.slices) for part in parts] == [3, 3] and not refusals
    for phase, part in zip((1, 2), parts, strict=True):
        for number, files in enumerate(part.slices):
            np.testing.assert_array_equal(read_hu(files[0]), np.maximum(pattern(10 * phase + number), -1024))


def test_clash_that_nothing_explains_refuses_only_that_position(tmp_path: Path) -> None:
    write_series(tmp_path, 4)
    write_ct(tmp_path / "other", pattern(50), [-3.0, 4.0, 2.0], 99)
    group = group_slices(h for file in tmp_path.iterdir() for h in read_header(file)[0])[0]
    parts, refusals = resolve_clashes(group)
    assert [len(part.slices) for part in parts] == [3]
    assert sorted(refusal.code for refusal in refusals) == ["position clash"] * 2


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    frames = np.stack([pattern(seed) for seed in range(3)])
    file = write_enhanced(tmp_path / "a", frames, [4.0, 0.0, 2.0], [1.0, 0.5, 2.0])
    volume = read_dicom_series([file])
    np.testing.assert_allclose(volume.positions, [0, 2, 4])
    for place, frame, slope in ((0, 1, 0.5), (1, 2, 2.0), (2, 0, 1.0)):
        np.testing.assert_array_equal(volume.hu[place], np.clip(np.rint(frames[frame] * slope - 10.0), -1024, None))


def test_file_without_preamble_and_meta(tmp_path: Path) -> None:
    file = write_ct(tmp_path / "a", pattern(3), [0, 0, 1])
    data = file.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    (tmp_path / "b").write_bytes(data[start:])
    np.testing.assert_array_equal(read_dicom_series([tmp_path / "b"]).hu, read_dicom_series([file]).hu)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Modality": "MR"}, "modality MR"),
        ({"Modality": "SEG"}, "not an image (SEG)"),
        ({"Modality": "RTSTRUCT"}, "not an image (RTSTRUCT)"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not a CT image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "pixel spacing"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.5, 0]}, "damaged geometry"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour pixels"),
        ({"PixelData": None}, "no pixel data"),
        ({"BitsStored": 12, "HighBit": 15}, "bit depth"),
        ({"RescaleSlope": 0}, "damaged geometry"),
    ],
)
def test_refused_with_a_reason(tmp_path: Path, changes: dict, code: str) -> None:
    file = write_ct(tmp_path / "file", pattern(1), [0, 0, 0], **changes)
    with pytest.raises(RefusedFile) as caught:
        read_header(file)
    assert caught.value.code == code
    assert str(file) in str(caught.value) and str(file) not in caught.value.sentence


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    file = write_ct(tmp_path / "file", pattern(1), [0, 0, 0])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="cut short"):
        read_dicom_series([file])


@pytest.mark.parametrize("keep", [140, 200, 400])
def test_header_cut_anywhere_is_a_user_error(tmp_path: Path, keep: int) -> None:
    file = write_ct(tmp_path / "file", pattern(1), [0, 0, 0])
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError):
        read_dicom_series([file])


def test_two_series_are_not_one_volume(tmp_path: Path) -> None:
    a = write_ct(tmp_path / "a", pattern(1), [0, 0, 0], 1)
    b = write_ct(tmp_path / "b", pattern(2), [0, 0, 2], 2, SeriesInstanceUID="1.2.3.4")
    with pytest.raises(DataError, match="hold 2 volumes"):
        read_dicom_series([a, b])
