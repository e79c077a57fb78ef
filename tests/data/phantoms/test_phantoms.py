from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from monai_ssl_transfer.data.ct.body_part import BodyPart, body_part_from_text
from monai_ssl_transfer.data.ct.layouts import check_label_values, liver_cases
from monai_ssl_transfer.data.phantoms.ct_canvas import scanner_noise
from monai_ssl_transfer.data.phantoms.ct_dataset import (
    REGIONS,
    Phantom,
    PhantomOptions,
    make_ct_phantom,
    write_dicom_series,
    write_lits_layout,
    write_nifti,
    write_phantom_dataset,
)
from monai_ssl_transfer.errors import DataError

SMALL = PhantomOptions(size=64, slices=20, slice_spacing=(7.0, 8.0))


@pytest.fixture(scope="module")
def abdomen() -> Phantom:
    return make_ct_phantom(0, PhantomOptions(slices=32, slice_spacing=(5.0, 5.0), tumour_share=1.0))


def test_types_shapes_and_range(abdomen: Phantom) -> None:
    assert abdomen.hu.shape == abdomen.labels.shape == (32, 128, 128)
    assert abdomen.hu.dtype == np.int16
    assert abdomen.labels.dtype == np.uint8
    assert abdomen.hu.min() >= -1024
    assert abdomen.hu.max() <= 3071
    assert set(np.unique(abdomen.labels)) == {0, 1, 2}
    assert abdomen.body_part.shape == (32,)


def test_the_seed_is_everything(abdomen: Phantom) -> None:
    options = PhantomOptions(slices=32, slice_spacing=(5.0, 5.0), tumour_share=1.0)
    again, other = make_ct_phantom(0, options), make_ct_phantom(1, options)
    assert np.array_equal(again.hu, abdomen.hu)
    assert np.array_equal(again.labels, abdomen.labels)
    assert again.affine.tolist() == abdomen.affine.tolist()
    assert not np.array_equal(other.hu, abdomen.hu)


def test_the_patient_lies_as_in_a_canonical_slice(abdomen: Phantom) -> None:
    """Liver on the image's left, spine at the bottom, lungs in the upper slices."""
    _, _, columns = np.nonzero(abdomen.labels)
    assert columns.mean() < 0.42 * 128
    bone_rows = np.nonzero((abdomen.hu > 300)[:, :, 54:74])[1]
    assert np.median(bone_rows) > 64
    lung = [(np.abs(ndimage.uniform_filter(part.astype(float), 3) + 840) < 60).mean() for part in abdomen.hu]
    assert np.mean(lung[-6:]) > 0.05 > np.mean(lung[:6])


@pytest.mark.parametrize("seed", range(4))
def test_liver_in_plausible_size_place_and_density(seed: int) -> None:
    phantom = make_ct_phantom(seed, PhantomOptions(size=96, slices=30, slice_spacing=(6.5, 7.0), tumour_share=1.0))
    voxel = np.prod(phantom.spacing) * phantom.slice_spacing / 1e6
    assert 0.7 < (phantom.labels > 0).sum() * voxel < 3.2  # litres
    liver = phantom.hu[phantom.labels == 1]
    assert 60 < np.median(liver) < 140
    if (phantom.labels == 2).sum() > 100:
        assert np.median(phantom.hu[phantom.labels == 2]) < np.median(liver) - 8
    pieces, count = ndimage.label(phantom.labels > 0)
    assert np.bincount(pieces.ravel())[1:].max() > 0.9 * (phantom.labels > 0).sum(), count


def test_no_threshold_finds_the_liver(abdomen: Phantom) -> None:
    smooth = ndimage.gaussian_filter(abdomen.hu.astype(np.float32), (0, 1, 1))
    truth, best = abdomen.labels > 0, 0.0
    middle = float(np.median(smooth[abdomen.labels == 1]))
    for low in range(5, 60, 5):
        for high in range(5, 60, 5):
            found = (smooth > middle - low) & (smooth < middle + high)
            best = max(best, 2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert best < 0.8


def test_tumour_share() -> None:
    sick = [make_ct_phantom(seed, SMALL).labels.max() for seed in range(12)]
    assert 2 in sick
    well = PhantomOptions(size=64, slices=20, slice_spacing=(7.0, 8.0), tumour_share=0.0)
    assert {int(make_ct_phantom(seed, well).labels.max()) for seed in range(4)} == {1}


@pytest.mark.parametrize(
    ("region", "part"),
    [
        ("thorax", BodyPart.THORAX),
        ("head_neck", BodyPart.HEAD_NECK),
        ("hip_pelvis", BodyPart.HIP_PELVIS),
        ("extremities", BodyPart.EXTREMITIES),
        ("spine", BodyPart.SPINE),
        ("abdomen", BodyPart.ABDOMEN),
    ],
)
def test_regions(region: str, part: BodyPart) -> None:
    for seed in range(2):
        options = PhantomOptions(size=64, slices=16, region=region, slice_spacing=(2.0, 5.0))
        phantom = make_ct_phantom(seed, options)
        assert np.bincount(phantom.body_part).argmax() == part
        assert (phantom.hu > 300).mean(axis=(1, 2)).max() > 0.005  # bone
        tissue = (np.abs(phantom.hu - 40) < 150).mean(axis=(1, 2))
        assert tissue.min() > 0.08  # no slice beside the patient


def test_a_trunk_scan_runs_through_the_regions() -> None:
    phantom = make_ct_phantom(0, PhantomOptions(size=48, slices=100, region="trunk", slice_spacing=(6.0, 6.0)))
    order = [int(part) for part in dict.fromkeys(phantom.body_part.tolist())]
    assert order == [BodyPart.HIP_PELVIS, BodyPart.ABDOMEN, BodyPart.THORAX]
    assert (phantom.labels > 0).any()


def test_geometry_follows_the_field_of_view() -> None:
    coarse, fine = (make_ct_phantom(3, PhantomOptions(size=size, slices=2)) for size in (32, 64))
    assert coarse.spacing[0] * 32 == pytest.approx(fine.spacing[0] * 64, rel=1e-3)
    field = fine.spacing[0] * 64
    assert 0.6 < field / 512 < 1.2  # the spacing that a scanner gives 512 pixels
    directions = nib.orientations.aff2axcodes(fine.affine)
    assert "".join(directions) == "PLS"


def test_noise_is_correlated_as_in_ct() -> None:
    noise = scanner_noise((4, 128, 128), np.random.default_rng(0), 0.25)
    assert noise.std() == pytest.approx(1, abs=0.01)
    neighbours = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    assert 0.2 < neighbours < 0.9
    power = np.abs(np.fft.fft2(noise)).mean(0)
    assert power[1, 1] < power[8:16, 8:16].mean()  # the ramp: little noise at the lowest frequencies


@pytest.mark.parametrize("change", [{"region": "tail"}, {"size": 8}, {"slices": 0}])
def test_impossible_options_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        PhantomOptions(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", ["LAS", "LPS", "RAS", "PLS"])
def test_nifti_keeps_every_voxel_at_its_place(tmp_path: Path, orientation: str) -> None:
    phantom = make_ct_phantom(5, SMALL)
    write_nifti(tmp_path / "a.nii.gz", phantom.hu, phantom, orientation)
    image = nib.load(tmp_path / "a.nii.gz")
    assert "".join(nib.orientations.aff2axcodes(image.affine)) == orientation
    assert image.get_data_dtype() == np.int16
    voxels = np.asarray(image.dataobj)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, phantom.hu.shape, (20, 3)):
        world = phantom.affine @ [place[1], place[2], place[0], 1]
        stored = np.rint(np.linalg.solve(image.affine, world))[:3].astype(int)
        assert voxels[tuple(stored)] == phantom.hu[tuple(place)]


def test_lits_layout(tmp_path: Path) -> None:
    cases = write_lits_layout(tmp_path, 4, SMALL, seed=1)
    assert cases == liver_cases(tmp_path)
    orientations = set()
    for case in cases:
        image, label = nib.load(case["image"]), nib.load(case["label"])
        assert image.shape == label.shape
        assert np.allclose(image.affine, label.affine)
        assert label.get_data_dtype() == np.uint8
        check_label_values(np.asarray(label.dataobj), case["label"])
        assert (np.asarray(label.dataobj) > 0).any()
        orientations.add("".join(nib.orientations.aff2axcodes(image.affine)))
    assert orientations == {"LAS", "LPS", "RAS"}
    sick = [bool((np.asarray(nib.load(case["label"]).dataobj) == 2).any()) for case in cases]
    assert sum(sick) == 3


def test_dicom_series_is_valid_and_keeps_hu_and_place(tmp_path: Path) -> None:
    phantom = make_ct_phantom(2, PhantomOptions(size=48, slices=9, region="thorax"))
    files = write_dicom_series(tmp_path, phantom, patient=3, seed=7)
    headers = [pydicom.dcmread(path) for path in files]
    for number, header in enumerate(headers):
        hu = header.pixel_array.astype(int) * int(header.RescaleSlope) + int(header.RescaleIntercept)
        assert np.array_equal(hu, phantom.hu[number])
        world = phantom.affine @ [0, 0, number, 1]
        assert np.allclose(header.ImagePositionPatient, world[:3] * [-1, -1, 1], atol=1e-3)
        assert np.allclose(header.PixelSpacing, phantom.spacing, atol=1e-5)
        assert header.SOPClassUID == pydicom.uid.CTImageStorage
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert header.SOPInstanceUID.is_valid
        assert body_part_from_text(header.BodyPartExamined) == BodyPart.THORAX
    assert len({header.SOPInstanceUID for header in headers}) == 9
    assert len({(header.SeriesInstanceUID, header.PatientName, header.StudyInstanceUID) for header in headers}) == 1
    assert [path.name for path in files] != sorted(path.name for path in files)


@pytest.mark.parametrize("part", [part for part in BodyPart if part is not BodyPart.UNKNOWN])
def test_every_region_has_words_that_ingest_understands(tmp_path: Path, part: BodyPart) -> None:
    phantom = make_ct_phantom(0, PhantomOptions(size=16, slices=1))
    for series in range(6):
        files = write_dicom_series(tmp_path, phantom, body_part=part, series_number=series)
        assert body_part_from_text(pydicom.dcmread(files[0]).BodyPartExamined) == part
    with pytest.raises(DataError, match="UNKNOWN"):
        write_dicom_series(tmp_path, phantom, body_part=BodyPart.UNKNOWN)


def test_dicom_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    phantom = make_ct_phantom(2, PhantomOptions(size=16, slices=2))
    one = write_dicom_series(tmp_path / "a", phantom, seed=1)
    two = write_dicom_series(tmp_path / "b", phantom, seed=1)
    three = write_dicom_series(tmp_path / "c", phantom, seed=2)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert pydicom.dcmread(one[0]).StudyInstanceUID != pydicom.dcmread(three[0]).StudyInstanceUID


def test_data_set(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "phantoms"
    summary = write_phantom_dataset(out, cases=8, size=32, seed=1)
    assert "4 unlabelled patients" in summary
    assert len(liver_cases(out / "lits")) == 4
    series = {path.parent for path in out.glob("unlabelled/**/*.dcm")}
    assert len(series) == 6
    assert len(list(out.glob("unlabelled/**/*.nii.gz"))) == 2
    assert "unlabelled/" in (out / "README.txt").read_text()
    names = {str(pydicom.dcmread(next(folder.iterdir())).PatientID) for folder in series}
    assert len(names) == 3
    (out / "lits" / "stale.txt").write_text("")
    write_phantom_dataset(out, cases=2, size=32, seed=1)  # its own folder is written anew
    assert len(liver_cases(out / "lits")) == 1
    assert not (out / "lits" / "stale.txt").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "lits" / "volume-0.nii"
    precious.parent.mkdir()
    precious.write_text("precious")
    (tmp_path / "README.txt").write_text("my own data")
    with pytest.raises(DataError, match="holds other files"):
        write_phantom_dataset(tmp_path, cases=2, size=32)
    assert precious.read_text() == "precious"
    with pytest.raises(DataError, match="is a file"):
        write_phantom_dataset(precious, cases=2, size=32)
    with pytest.raises(DataError, match="at least 2"):
        write_phantom_dataset(tmp_path / "new", cases=1)
    assert not (tmp_path / "new").exists()


def test_twelve_patients_give_every_region_three_labelled_patients() -> None:
    from monai_ssl_transfer.data.phantoms.ct_dataset import BODY_REGIONS, scan_plan

    plan = [scan_plan(patient) for patient in range(12)]
    for region in BODY_REGIONS:
        assert sum(region in regions and dicom for regions, dicom in plan) == 3
        assert sum(region in regions for regions, _ in plan) == 4
    assert set(BODY_REGIONS) <= set(REGIONS)


def test_no_heavy_import() -> None:
    modules = "phantoms, monai_ssl_transfer.data.ct.layouts, monai_ssl_transfer.data.splits"
    code = f"import sys, monai_ssl_transfer.data.{modules}; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
