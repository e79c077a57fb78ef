"""The audit on real data finds what is wrong there, and nothing that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_ssl_transfer.data.audit.audit import audit_data

pytestmark = pytest.mark.real


def test_a_scan_that_is_a_part_of_another_under_another_name(real_data: Path) -> None:
    report = audit_data(real_data / "ct_nifti" / "totalsegmentator", progress=False)
    same = [one for one in report.findings if one.code == "same-scan"]
    assert [one.files for one in same] == [("example_ct.nii.gz", "example_ct_sm.nii.gz")]
    assert "100% of the second" in same[0].sentence
    assert {one.severity for one in report.findings if one.code != "same-scan"} <= {"note"}


def test_tilt_and_uneven_gaps(real_data: Path) -> None:
    report = audit_data(real_data / "ct_dicom" / "ge-head-tilt-uneven-gaps", progress=False)
    codes = {one.code: one.sentence for one in report.findings}
    assert set(codes) == {"gantry-tilt", "uneven-spacing"}
    assert "18.5 degrees" in codes["gantry-tilt"] and "1.08 to 7.00 mm" in codes["uneven-spacing"]


def test_photographs_of_kvasir_are_clean_but_for_jpeg_masks(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "endoscopy" / "Kvasir-SEG"
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for file in sorted((source / kind).iterdir())[:25]:
            (tmp_path / kind / file.name).symlink_to(file)
    report = audit_data(tmp_path, progress=False)
    assert [(one.severity, one.code, len(one.files)) for one in report.findings] == [("note", "jpeg-mask", 25)]
