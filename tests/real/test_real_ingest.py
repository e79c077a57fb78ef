"""Ingest and readers on real scans."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from monai_ssl_transfer.data.ct.dicom import read_dicom_series
from monai_ssl_transfer.data.ct.dicom_header import read_header
from monai_ssl_transfer.data.ct.dicom_pixels import read_hu
from monai_ssl_transfer.data.ct.ingest import ingest_ct
from monai_ssl_transfer.data.ct.nifti import read_nifti_ct, read_nifti_labels
from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both CT folders in one go."""
    base = tmp_path_factory.mktemp("ingest")
    source = base / "source"
    source.mkdir()
    for folder in ("ct_dicom", "ct_nifti"):
        for file in (real_data / folder).rglob("*"):
            if file.is_file():
                link = source / folder / file.relative_to(real_data / folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
    ingest_ct(source, base / "store", workers=1, progress=False)
    return base / "store"


def clear_statuses(store: Path) -> dict[str, tuple[str, str, str]]:
    report = json.loads((store / "ingest_report.json").read_text())
    names = map(json.loads, (private_folder(store) / "files.jsonl").read_text().splitlines())
    clear = {name["id"]: str(Path(name["path"]).relative_to(store.parent / "source")) for name in names}
    return {clear[e["id"]]: (e["status"], e.get("code", ""), e.get("series", "")) for e in report["files"]}


def test_every_file_is_accounted_for(store: Path) -> None:
    found = clear_statuses(store)
    source = store.parent / "source"
    assert set(found) == {str(file.relative_to(source)) for file in source.rglob("*") if not file.is_dir()}
    counts = Counter((status, code) for status, code, _ in found.values())
    assert counts == {
        ("kept", ""): 127 + 12,
        ("duplicate", "copy"): 6,
        ("refused", "label, not an image"): 12,
        ("refused", "localizer"): 2,
        ("refused", "not an image (RTSTRUCT)"): 2,
        ("refused", "not an image (SEG)"): 1,
        ("refused", "not an image (SR)"): 1,
        ("refused", "modality MR"): 1,
        ("refused", "modality US"): 1,
        ("refused", "DICOMDIR"): 1,
        ("refused", "other image format"): 1,
        ("refused", "damaged header"): 1,
    }
    slices = SliceStore(store)
    assert len(slices) == 883 and slices.series_count == 25 and slices.verify() == []


def test_no_identifier_of_any_header_is_in_the_store(store: Path, real_data: Path) -> None:
    # without the shards: among megabytes of compressed pixels "123456", a PatientID here, occurs by chance
    files = [file for file in store.iterdir() if not file.name.startswith("shard-")]
    content = b"".join(file.read_bytes() for file in files).lower()
    telling: set[str] = set()
    for file in (real_data / "ct_dicom").rglob("*.dcm"):
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        for keyword in (
            "PatientName",
            "PatientID",
            "StudyDate",
            "SeriesInstanceUID",
            "SOPInstanceUID",
            "StudyInstanceUID",
        ):
            telling.add(str(header.get(keyword, "") or "").lower())
    found = {text for text in telling if len(text) >= 6 and text.encode() in content}
    assert not found


def test_uneven_head_keeps_true_positions(store: Path, real_data: Path) -> None:
    folder = real_data / "ct_dicom" / "ge-head-tilt-uneven-gaps"
    truth = []
    for file in folder.iterdir():
        header = pydicom.dcmread(file, stop_before_pixels=True)
        orientation = np.array(header.ImageOrientationPatient, dtype=float)
        truth.append(
            float(np.cross(orientation[:3], orientation[3:]) @ np.array(header.ImagePositionPatient, dtype=float))
        )
    key = clear_statuses(store)["ct_dicom/ge-head-tilt-uneven-gaps/01.dcm"][2]
    slices = SliceStore(store)
    number = next(n for n in range(slices.series_count) if slices.series(n).series_key == key)
    own = slices.series_range(number)
    np.testing.assert_allclose(slices.index["position"][own.start : own.stop], sorted(truth), atol=1e-3)
    gaps = np.diff(slices.index["position"][own.start : own.stop])
    assert slices.series(number).uneven and gaps.min() < 1.1 and gaps.max() > 6.9
    assert min(int(slices.read(i).min()) for i in own) == -1024  # padding value -1500 is air


def test_nifti_and_dicom_of_the_same_scan_give_the_same_voxels(real_data: Path) -> None:
    dicom = read_dicom_series((real_data / "ct_dicom" / "ibsi-sts002-rtstruct" / "image").iterdir())
    nifti = read_nifti_ct(real_data / "ct_nifti" / "sts-layout" / "volume-3002.nii.gz")
    np.testing.assert_array_equal(dicom.hu, nifti.hu)
    np.testing.assert_allclose(dicom.affine, nifti.affine, atol=2e-2)
    np.testing.assert_allclose(dicom.positions, nifti.positions, atol=2e-2)


def test_seven_transfer_syntaxes_give_the_same_hu(real_data: Path) -> None:
    files = sorted((real_data / "ct_dicom" / "transfer-syntaxes").glob("CTImage*"))
    slices = [read_hu(read_header(file)[0][0]) for file in files]
    assert len(slices) == 7
    reference = pydicom.dcmread(next(file for file in files if "LittleEndianExplicit" in file.name))
    truth = np.frombuffer(reference.PixelData, "<i2").reshape(512, 512).astype(int) - 1024
    for hu in slices:
        np.testing.assert_array_equal(hu, np.maximum(truth, -1024))


def test_jpeg_2000_whose_codestream_contradicts_the_header(real_data: Path) -> None:
    hu = read_hu(read_header(real_data / "ct_dicom" / "pydicom" / "J2K_pixelrep_mismatch.dcm")[0][0])
    assert hu.min() == -1024 and 1500 < hu.max() < 3000 and abs(int(np.median(hu[200:300, 200:300]))) < 100


def test_labels_of_lits_fit_their_volumes(real_data: Path) -> None:
    for case in (0, 1017, 2001, 2002):
        folder = real_data / "ct_nifti" / "lits-layout"
        volume = read_nifti_ct(folder / f"volume-{case}.nii.gz")
        labels = read_nifti_labels(folder / f"segmentation-{case}.nii.gz", volume)
        liver = volume.hu[labels == 1]
        assert 0 < np.median(liver) < 200
        columns = np.nonzero(labels == 1)[2]
        assert np.mean(columns) < volume.hu.shape[2] / 2  # the patient's right is on the image's left
