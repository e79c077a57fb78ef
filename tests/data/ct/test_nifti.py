"""Reading NIfTI CT and label maps: orientation, values, geometry of pairs."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_phantom import pattern, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from monai_ssl_transfer.data.ct.dicom import read_dicom_series
from monai_ssl_transfer.data.ct.nifti import read_nifti_ct, read_nifti_labels
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError

CODES = ["".join(sides[axis] for sides, axis in zip(flip, order, strict=False))
         for order in itertools.permutations(range(3))
         for flip in itertools.product(("RAS", "LPI"), repeat=3)]  # fmt: skip
PLS = np.array([[0, -0.75, 0, 3], [-0.5, 0, 0, -4], [0, 0, 2, 5], [0, 0, 0, 1]])


def write(path: Path, stored: np.ndarray, affine: np.ndarray = PLS) -> Path:
    nib.save(nib.Nifti1Image(stored, affine), path)
    return path


def volume(slices: int = 4) -> np.ndarray:
    """(rows, columns, slices) int16."""
    return np.stack([pattern(seed) for seed in range(slices)], axis=-1)


@settings(max_examples=30, deadline=None)
@given(code=st.sampled_from(CODES))
def test_every_orientation_reads_the_same(tmp_path_factory: pytest.TempPathFactory, code: str) -> None:
    truth = volume()
    change = ornt_transform(io_orientation(PLS), axcodes2ornt(code))
    turned = apply_orientation(truth, change)
    affine = PLS @ inv_ornt_aff(change, truth.shape)
    assert "".join(nib.aff2axcodes(affine)) == code
    read = read_nifti_ct(write(tmp_path_factory.mktemp("nifti") / "ct.nii.gz", turned, affine))
    np.testing.assert_array_equal(read.hu, np.maximum(truth.transpose(2, 0, 1), -1024))
    np.testing.assert_allclose(read.affine, PLS, atol=1e-5)
    np.testing.assert_allclose(read.positions, [5, 7, 9, 11], atol=1e-5)
    assert read.spacing == pytest.approx((0.5, 0.75)) and read.slice_spacing == pytest.approx(2)


def test_nifti_and_dicom_of_one_scan_are_the_same(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom")
    dicom = read_dicom_series((tmp_path / "dicom").iterdir())
    lps_order = dicom.hu.transpose(2, 1, 0)[::-1]  # x to right, as many converters store it
    step = dicom.affine
    affine = np.column_stack([-step[:, 1], step[:, 0], step[:, 2], step[:, 3] + step[:, 1] * (dicom.hu.shape[2] - 1)])
    read = read_nifti_ct(write(tmp_path / "ct.nii", lps_order.astype(np.float32), affine))
    np.testing.assert_array_equal(read.hu, dicom.hu)
    np.testing.assert_allclose(read.affine, dicom.affine, atol=1e-5)
    np.testing.assert_allclose(read.positions, dicom.positions, atol=1e-5)


def test_scaling_floats_clamping_and_one_frame(tmp_path: Path) -> None:
    values = volume().astype(np.float32) + 0.4
    values[0, 0, 0], values[1, 1, 1] = -3024.0, 1e6
    read = read_nifti_ct(write(tmp_path / "float.nii.gz", values[..., None]))
    np.testing.assert_array_equal(read.hu, np.clip(np.rint(values), -1024, 32767).transpose(2, 0, 1))
    image = nib.Nifti1Image(volume(), PLS)
    image.header.set_slope_inter(2.0, -100.0)
    image.to_filename(tmp_path / "scaled.nii")
    stored = np.asanyarray(nib.load(tmp_path / "scaled.nii").dataobj.get_unscaled()).astype(float)
    header = nib.load(tmp_path / "scaled.nii").dataobj
    expected = np.clip(np.rint(stored * header.slope + header.inter), -1024, 32767).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_nifti_ct(tmp_path / "scaled.nii").hu, expected)


@pytest.mark.parametrize(
    ("stored", "affine", "code"),
    [
        ((volume() > 0).astype(np.uint8), PLS, "label, not an image"),
        (np.abs(volume()).astype(np.int16), PLS, "not in HU"),
        (np.full((5, 5, 5), -1024, np.int16), PLS, "empty image"),
        (np.where(volume() > 1400, np.nan, volume()).astype(np.float32), PLS, "not a number"),
        (np.stack([volume()] * 2, axis=-1), PLS, "not three-dimensional"),
        (volume(), np.diag([0.001, 1, 1, 1]), "voxel spacing"),
        (volume()[:, :, 0], PLS, "not three-dimensional"),
        (volume(), np.array([[0.7, 0, 0.7, 0], [0, 1, 0, 0], [-0.7, 0, 0.7, 0], [0, 0, 0, 1]]), "not axial"),
    ],
)
def test_refused_with_a_reason(tmp_path: Path, stored: np.ndarray, affine: np.ndarray, code: str) -> None:
    file = write(tmp_path / "file.nii", stored, affine)
    with pytest.raises(RefusedFile) as caught:
        read_nifti_ct(file)
    assert caught.value.code == code and str(tmp_path) not in caught.value.sentence


def test_label_by_name_with_large_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "segmentation-4.nii.gz", (volume() > 0).astype(np.int16) * 1000)
    with pytest.raises(DataError, match="a label map"):
        read_nifti_ct(file)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("keep", [0, 100, 400, 0.9])
def test_cut_short(tmp_path: Path, name: str, keep: float) -> None:
    file = write(tmp_path / name, volume())
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(RefusedFile, match=r"damaged|cut short") as caught:
        read_nifti_ct(file)
    assert str(tmp_path) not in caught.value.sentence


def test_identity_affine_is_noted(tmp_path: Path) -> None:
    read = read_nifti_ct(write(tmp_path / "ct.nii", volume(), np.eye(4)))
    assert any("identity affine" in note for note in read.notes)
    assert not read_nifti_ct(write(tmp_path / "b.nii", volume())).notes


def test_labels_come_in_the_order_of_the_image(tmp_path: Path) -> None:
    truth = volume()
    image = write(tmp_path / "volume-0.nii", truth)
    change = ornt_transform(io_orientation(PLS), axcodes2ornt("RAS"))
    turned = apply_orientation((truth > 0).astype(np.uint8), change)
    labels = write(tmp_path / "segmentation-0.nii", turned, PLS @ inv_ornt_aff(change, truth.shape))
    read = read_nifti_ct(image)
    np.testing.assert_array_equal(read_nifti_labels(labels, read), (read.hu > 0).astype(np.uint8))
    np.testing.assert_array_equal(read_nifti_labels(labels, image), (read.hu > 0).astype(np.uint8))


def test_labels_of_another_scan_are_refused_and_both_files_named(tmp_path: Path) -> None:
    image = write(tmp_path / "volume-0.nii", volume())
    moved = PLS.copy()
    moved[2, 3] += 2
    shorter = write(tmp_path / "a.nii", (volume(3) > 0).astype(np.uint8))
    shifted = write(tmp_path / "b.nii", (volume() > 0).astype(np.uint8), moved)
    for labels in (shorter, shifted, image):
        with pytest.raises(DataError) as caught:
            read_nifti_labels(labels, image)
        assert str(labels) in str(caught.value) and "volume-0.nii" in str(caught.value)
