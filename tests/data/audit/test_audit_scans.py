"""Each check on scans finds the one fault that is planted, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import audit_sets as sets
import nibabel as nib
import numpy as np
import pytest

from monai_ssl_transfer.data.audit.audit import audit_data
from monai_ssl_transfer.data.audit.report import AuditReport
from monai_ssl_transfer.data.phantoms.ct_dataset import PhantomOptions, make_ct_phantom, write_dicom_series


def audited(folder: Path, **options: object) -> AuditReport:
    return audit_data(folder, progress=False, **options)  # type: ignore[arg-type]


def found(report: AuditReport) -> set[tuple[str, str]]:
    return {(one.severity, one.code) for one in report.findings}


def _image(folder: Path, voxels: np.ndarray, where: np.ndarray | None = None) -> None:
    sets.write(folder / "volume-1.nii", voxels, where)
    sets.write(folder / "segmentation-1.nii", sets.label(voxels.shape), where)  # type: ignore[arg-type]


def _mask(folder: Path, voxels: np.ndarray, where: np.ndarray | None = None) -> None:
    sets.write(folder / "segmentation-1.nii", voxels, where)


def _damaged(folder: Path) -> None:
    file = folder / "volume-1.nii"
    file.write_bytes(file.read_bytes()[:5000])


def _companion(folder: Path) -> None:
    (folder / "._volume-1.nii").write_bytes(b"\0\5\26\7")


def _with_blank(folder: Path) -> None:
    voxels = sets.scan(1)
    voxels[..., 5] = -1024
    _image(folder, voxels)


def _with_double(folder: Path) -> None:
    voxels = sets.scan(1)
    voxels[..., 5] = voxels[..., 4]
    _image(folder, voxels)


def _padded(folder: Path) -> None:
    voxels = sets.scan(1)
    voxels[:4] = -3024
    _image(folder, voxels)


def _metal(folder: Path) -> None:
    voxels = sets.scan(1)
    voxels[20, 20, 5] = 9000
    _image(folder, voxels)


def _foreign_label(folder: Path) -> None:
    voxels = sets.label()
    voxels[20, 20, 5] = 7
    _mask(folder, voxels)


def _turned_label(folder: Path) -> None:
    turned = sets.affine(signs=(1, 1, 1))
    extent = (np.array(sets.SHAPE) - 1) * (0.8, 0.8, 2.5)
    turned[:2, 3] -= extent[:2]
    _mask(folder, sets.label()[::-1, ::-1], turned)


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "label lost": (lambda f: (f / "segmentation-1.nii").unlink(), "error", "missing-partner"),
    "volume lost": (lambda f: (f / "volume-1.nii").unlink(), "error", "missing-partner"),
    "two claim one": (lambda f: sets.write(f / "b" / "volume-1.nii", sets.scan(9)), "error", "doubled-name"),
    "macOS": (_companion, "note", "system-file"),
    "truncated": (_damaged, "error", "damaged"),
    "one value": (lambda f: _image(f, np.full(sets.SHAPE, -1024, np.int16)), "error", "damaged"),
    "empty mask": (lambda f: _mask(f, sets.label() * 0), "warning", "empty-mask"),
    "inverted mask": (lambda f: _mask(f, np.ones(sets.SHAPE, np.uint8)), "warning", "full-mask"),
    "foreign label": (_foreign_label, "error", "unknown-label"),
    "interpolated": (lambda f: _mask(f, (sets.label() * 0.7).astype(np.float32)), "error", "mask-values"),
    "negative label": (lambda f: _mask(f, -sets.label().astype(np.int16)), "error", "mask-values"),
    "other size": (lambda f: _mask(f, sets.label()[:, :, :-1]), "error", "shape-mismatch"),
    "other spacing": (lambda f: _mask(f, sets.label(), sets.affine((0.8, 0.8, 2.6))), "error", "spacing-mismatch"),
    "elsewhere": (lambda f: _mask(f, sets.label(), sets.affine(shift=3)), "error", "position-mismatch"),
    "mirrored": (lambda f: _mask(f, sets.label(), sets.affine(signs=(1, -1, 1))), "error", "position-mismatch"),
    "stored otherwise": (_turned_label, "warning", "orientation-mismatch"),
    "8 bits": (lambda f: _image(f, ((sets.scan(1) + 1100) // 8).clip(0, 255)), "error", "eight-bit"),
    "unsigned": (lambda f: _image(f, sets.scan(1) + 1100), "error", "no-intercept"),
    "windowed": (lambda f: _image(f, sets.scan(1).clip(-160, 60)), "warning", "clipped"),
    "inside the body": (lambda f: _image(f, sets.scan(1).clip(-150, None)), "note", "no-air"),
    "padding": (_padded, "note", "padding"),
    "metal": (_metal, "note", "overshoot"),
    "identity": (lambda f: _image(f, sets.scan(1), np.eye(4)), "warning", "identity-affine"),
    "signed identity": (lambda f: _image(f, sets.scan(1), np.diag([-1.0, -1, 1, 1])), "warning", "identity-affine"),
    "fine pixels": (lambda f: _image(f, sets.scan(1), sets.affine((0.05, 0.05, 2.5))), "warning", "spacing"),
    "far slices": (lambda f: _image(f, sets.scan(1), sets.affine((0.8, 0.8, 25))), "warning", "spacing"),
    "double slice": (_with_double, "warning", "doubled-slices"),
    "blank slice": (_with_blank, "warning", "blank-slices"),
    "few slices": (lambda f: _image(f, sets.scan(1, (40, 44, 4))), "note", "few-slices"),
    "mixed": (lambda f: _image(f, sets.scan(1), sets.affine(signs=(1, -1, 1))), "note", "mixed-orientations"),
    "copy": (lambda f: _image(f, sets.scan(0)), "warning", "same-scan"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    folder = sets.lits(tmp_path / "lits")
    plant, severity, code = FAULTS[name]
    plant(folder)
    report = audited(folder)
    # an identity affine is another orientation as well
    also = {("note", "mixed-orientations")} if name == "identity" else set()
    assert found(report) - also == {(severity, code)}
    told = next(one for one in report.findings if one.code == code)
    assert "1" in told.sentence  # the file's number


def test_one_scan_under_two_names_across_the_split_is_an_error(tmp_path: Path) -> None:
    folder = sets.lits(tmp_path / "data")
    _image(folder, sets.scan(0))
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["0", "2"], "test": ["1"]}))
    assert found(audited(folder, split=split)) == {("error", "same-scan-in-two-parts")}


def test_a_clean_set_is_silent(tmp_path: Path) -> None:
    report = audited(sets.lits(tmp_path / "lits", cases=4))
    assert report.findings == []
    assert report.facts["labels"] == report.facts["images"] == 4


def test_phantoms_of_this_package_are_clean(tmp_path: Path) -> None:
    from monai_ssl_transfer.data.phantoms.ct_dataset import write_lits_layout

    write_lits_layout(tmp_path, 3, PhantomOptions(size=96, slices=8), seed=3)
    assert {one.severity for one in audited(tmp_path).findings} <= {"note"}


def test_orientation_outlier(tmp_path: Path) -> None:
    folder = sets.lits(tmp_path, cases=11)
    sets.write(folder / "volume-4.nii", sets.scan(4), sets.affine(signs=(1, -1, 1)))
    sets.write(folder / "segmentation-4.nii", sets.label(), sets.affine(signs=(1, -1, 1)))
    report = audited(folder)
    assert found(report) == {("warning", "orientation-outlier")}
    assert report.findings[0].files == ("volume-4.nii",)


def test_lits_28_to_47_are_told_by_name(tmp_path: Path) -> None:
    sets.lits(tmp_path, cases=2, first=28)
    for name, voxels in (("volume", sets.scan(28)), ("segmentation", sets.label())):
        sets.write(tmp_path / f"{name}-28.nii", voxels, np.eye(4))
    report = audited(tmp_path)
    assert ("warning", "lits-28-47") in found(report)
    told = next(one for one in report.findings if one.code == "lits-28-47")
    assert "3D-IRCADb" in told.sentence and told.files == ("volume-28.nii",)
    assert "identity-affine" not in {one.code for one in report.findings}


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[::-1, :, :],
        lambda v: v.transpose(1, 0, 2),
        lambda v: v[:, :, 3:],
        lambda v: v[6:, 4:, :],
        lambda v: v.astype(np.float32) + 0.2,
        lambda v: v[:, :, ::-1],
    ],
    ids=["mirrored", "turned", "slices of it", "crop", "float", "upside down"],
)
def test_one_scan_in_two_sets_whatever_its_header(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    shape = (80, 84, 14)
    sets.write(tmp_path / "store" / "a.nii", sets.scan(1, shape))
    sets.write(tmp_path / "store" / "b.nii", sets.scan(2, shape))
    copy = np.ascontiguousarray(change(sets.scan(1, shape)))
    sets.write(tmp_path / "test" / "renamed.nii.gz", copy, np.diag([1.5, 1.5, 4.0, 1.0]))
    report = audited(tmp_path / "test", against=tmp_path / "store")
    assert found(report) == {("error", "same-scan-in-both-sets")}
    assert report.findings[0].files == ("renamed.nii.gz", "OTHER:a.nii")
    assert report.exit_code() == 1


def test_msd_layout_and_its_known_overlap_with_lits(tmp_path: Path) -> None:
    lits, msd = sets.lits(tmp_path / "lits", cases=2), tmp_path / "Task03_Liver"
    for case in (1, 7):
        sets.write(msd / "imagesTr" / f"liver_{case}.nii.gz", sets.scan(50 + case))
        sets.write(msd / "labelsTr" / f"liver_{case}.nii.gz", sets.label())
    pairs = [{"image": f"./imagesTr/liver_{c}.nii.gz", "label": f"./labelsTr/liver_{c}.nii.gz"} for c in (1, 7, 9)]
    labels = {"0": "background", "1": "liver", "2": "cancer"}
    (msd / "dataset.json").write_text(json.dumps({"labels": labels, "training": pairs, "test": []}))
    own = audited(msd)
    assert found(own) == {("error", "missing-partner")}  # number 9 is listed and not there
    assert all("liver_9" in one.sentence for one in own.findings)
    assert {"error", "known-overlap"} <= {x for pair in found(audited(lits, against=msd)) for x in pair}


def test_a_scan_that_dataset_json_does_not_list_is_told(tmp_path: Path) -> None:
    for case in (1, 2):
        sets.write(tmp_path / "imagesTr" / f"liver_{case}.nii.gz", sets.scan(case))
        sets.write(tmp_path / "labelsTr" / f"liver_{case}.nii.gz", sets.label())
    listed = {"labels": {"0": "background", "1": "liver", "2": "cancer"}, "test": []}
    listed |= {"training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    report = audited(tmp_path)
    assert found(report) == {("note", "not-used")}
    assert report.findings[0].files == ("imagesTr/liver_2.nii.gz", "labelsTr/liver_2.nii.gz")


def test_a_slice_that_is_there_twice_is_told(tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path / "a", make_ct_phantom(3, PhantomOptions(size=48, slices=9)), patient=1)
    (tmp_path / "a" / "copy.dcm").write_bytes(files[4].read_bytes())
    (one,) = [one for one in audited(tmp_path).findings if one.code == "not-used"]
    assert one.severity == "note" and "copy.dcm" in one.sentence


def test_dicom_lost_slice_truncated_file_and_patient_on_both_sides(tmp_path: Path) -> None:
    phantom = make_ct_phantom(3, PhantomOptions(size=48, slices=9))
    files = write_dicom_series(tmp_path / "train" / "a", phantom, patient=1)
    other = make_ct_phantom(4, PhantomOptions(size=48, slices=9))
    write_dicom_series(tmp_path / "test" / "b", other, patient=1, series_number=2)
    files[4].unlink()
    whole = files[6].read_bytes()
    files[6].write_bytes(whole[: len(whole) - 300])
    report = audited(tmp_path)
    codes = found(report)
    assert ("warning", "missing-slices") in codes
    assert ("error", "same-group-in-two-parts") in codes
    assert ("error", "damaged") in codes
    text = report.to_json()
    import pydicom

    header = pydicom.dcmread(files[0])
    assert str(header.PatientID) not in text and str(header.PatientName) not in text


def test_a_store_against_its_source(tmp_path: Path) -> None:
    from monai_ssl_transfer.data.ct.ingest import ingest_ct

    sets.lits(tmp_path / "lits", cases=2)
    shutil.copy(tmp_path / "lits" / "volume-1.nii", tmp_path / "elsewhere.nii")
    ingest_ct(tmp_path / "elsewhere.nii", tmp_path / "store", workers=1, progress=False)
    report = audited(tmp_path / "lits", against=tmp_path / "store")
    assert found(report) == {("error", "same-scan-in-both-sets")}
    assert report.findings[0].files == ("volume-1.nii", "OTHER:series 0")
    assert audited(tmp_path / "store").findings == []


def test_a_damaged_store(tmp_path: Path) -> None:
    from monai_ssl_transfer.data.ct.ingest import ingest_ct

    sets.write(tmp_path / "a.nii", sets.scan(1))
    ingest_ct(tmp_path / "a.nii", tmp_path / "store", workers=1, progress=False)
    shard = tmp_path / "store" / "shard-00000.bin"
    data = bytearray(shard.read_bytes())
    data[300:340] = b"\xff" * 40
    shard.write_bytes(data)
    assert found(audited(tmp_path / "store")) == {("error", "damaged")}


def test_same_report_for_any_number_of_workers(tmp_path: Path) -> None:
    folder = sets.lits(tmp_path, cases=3)
    _padded(folder)
    _turned_label(folder)
    nib.save(nib.Nifti1Image(sets.scan(0), sets.affine()), folder / "volume-2.nii")
    assert audited(folder, workers=1).to_json() == audited(folder, workers=2).to_json()
