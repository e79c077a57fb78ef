"""The report: JSON, page, exit codes and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import audit_sets as sets
import numpy as np
import pytest

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.data.audit.catalogue import CHECKS
from monai_ssl_transfer.data.audit.findings import SEVERITIES, in_order_of_weight

ROOT = Path(__file__).parents[3]


def test_command_page_and_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sets.polyps(tmp_path / "<b>set")
    command = ["audit", str(folder), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    assert main([*command, "--fail-on", "note"]) == 0
    sets.save(folder / "masks" / "p1.png", sets.mask() * 0)
    sets.save(folder / "images" / "q1.png", sets.photograph(2))
    sets.save(folder / "masks" / "q1.png", sets.mask())
    assert main(command) == 0
    assert main([*command, "--fail-on", "warning"]) == 1
    (folder / "masks" / "p3.png").unlink()
    assert main(command) == 1
    assert main(["audit", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert "error missing-partner (1)" in printed.out and "images/p3.png has no mask" in printed.out
    assert "does not exist" in printed.err

    page = (tmp_path / "out" / "audit.html").read_text()
    assert not re.search(r"(?:src|href)=['\"](?!data:|#)", page), "the page must open without a network"
    assert "<b>set" not in page and "&lt;b&gt;set" in page
    assert page.count("data:image/jpeg;base64,") == 3  # the pair of copies, and the photograph with the empty mask
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content["counts"] == {"error": 1, "warning": 2, "note": 0}
    assert [one["code"] for one in content["findings"]] == ["missing-partner", "same-picture", "empty-mask"]
    assert str(tmp_path) not in page + json.dumps(content), "paths are told below the audited folder"


def test_the_report_does_not_audit_itself(tmp_path: Path) -> None:
    folder = sets.lits(tmp_path / "lits")
    sets.write(folder / "volume-2.nii", sets.scan(0))
    for _ in range(2):
        assert main(["audit", str(folder), "--out", str(folder / "audit"), "--workers", "1"]) == 0
    page = (folder / "audit" / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert json.loads((folder / "audit" / "audit.json").read_text())["images"] == 3


def test_two_scans_are_shown_at_the_same_slice(tmp_path: Path) -> None:
    from monai_ssl_transfer.data.audit.findings import Picture
    from monai_ssl_transfer.data.audit.pixels import slices_of, slices_that_match

    voxels = sets.scan(1, (80, 84, 20))
    sets.write(tmp_path / "whole.nii", voxels)
    sets.write(tmp_path / "part.nii", np.ascontiguousarray(voxels[::-1, :, 2:8]))
    one, other = (slices_of(Picture(name, str(tmp_path / name))) for name in ("whole.nii", "part.nii"))
    whole, part = slices_that_match(one, other)
    assert whole == part + 2


def test_every_check_is_in_the_page_of_docs_with_its_severity() -> None:
    page = (ROOT / "docs" / "audit.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| (error|warning|note) \|", page, re.MULTILINE))
    assert rows == {code: check.severity for code, check in CHECKS.items()}
    assert in_order_of_weight([]) == [] and set(SEVERITIES) == set(rows.values())
