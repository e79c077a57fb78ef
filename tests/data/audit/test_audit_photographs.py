"""Each check on photographs and splits finds the one fault that is planted, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import audit_sets as sets
import cv2
import numpy as np
import pytest
from PIL import Image

from monai_ssl_transfer.data.audit.audit import audit_data
from monai_ssl_transfer.data.audit.fingerprint import MOST_PER_SCAN, shared_scans
from monai_ssl_transfer.data.audit.pixels import middle_image
from monai_ssl_transfer.data.audit.records import Record
from monai_ssl_transfer.data.audit.report import AuditReport
from monai_ssl_transfer.errors import DataError


def audited(folder: Path, **options: object) -> AuditReport:
    return audit_data(folder, progress=False, **options)  # type: ignore[arg-type]


def found(report: AuditReport) -> set[tuple[str, str]]:
    return {(one.severity, one.code) for one in report.findings}


def _brighter(seed: int) -> np.ndarray:
    """The same scene a moment later."""
    noise = np.random.default_rng(9).normal(6, 1, (96, 120, 3))
    return (sets.photograph(seed) + noise).clip(0, 255).astype(np.uint8)


def _jpeg_masks(folder: Path) -> None:
    for file in (folder / "masks").glob("*.png"):
        Image.fromarray(np.array(Image.open(file))).save(file.with_suffix(".jpg"), quality=75)
        file.unlink()


def _truncated(folder: Path) -> None:
    file = folder / "images" / "p1.png"
    file.write_bytes(file.read_bytes()[:2000])


def _add(folder: Path, pixels: np.ndarray) -> None:
    sets.save(folder / "images" / "q1.png", pixels)
    sets.save(folder / "masks" / "q1.png", sets.mask())


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "mask lost": (lambda f: (f / "masks" / "p1.png").unlink(), "error", "missing-partner"),
    "photograph lost": (lambda f: (f / "images" / "p1.png").unlink(), "error", "missing-partner"),
    "truncated": (_truncated, "error", "damaged"),
    "empty mask": (lambda f: sets.save(f / "masks" / "p1.png", sets.mask() * 0), "warning", "empty-mask"),
    "inverted mask": (
        lambda f: sets.save(f / "masks" / "p1.png", sets.mask() // 255 * 0 + 255),
        "warning",
        "full-mask",
    ),
    "0 and 1": (lambda f: sets.save(f / "masks" / "p1.png", sets.mask() // 255 * 60), "error", "dark-mask"),
    "blurred mask": (
        lambda f: sets.save(f / "masks" / "p1.png", cv2.GaussianBlur(sets.mask(), (0, 0), 6)),
        "warning",
        "grey-mask",
    ),
    "JPEG masks": (_jpeg_masks, "note", "jpeg-mask"),
    "other size": (lambda f: sets.save(f / "masks" / "p1.png", sets.mask()[:-8]), "error", "shape-mismatch"),
    "one colour": (lambda f: _add(f, np.full((96, 120, 3), 20, np.uint8)), "warning", "blank-picture"),
    "copy": (lambda f: _add(f, sets.photograph(1)), "warning", "same-picture"),
    "same scene": (lambda f: _add(f, _brighter(1)), "note", "near-duplicate"),
    "two claim one": (lambda f: sets.save(f / "images" / "p1.bmp", sets.photograph(8)), "error", "doubled-name"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    folder = sets.polyps(tmp_path / "polyps")
    plant, severity, code = FAULTS[name]
    plant(folder)
    report = audited(folder)
    assert found(report) == {(severity, code)}
    assert any("1." in file for file in report.findings[0].files)


def test_clean_sets_are_silent(tmp_path: Path) -> None:
    folder = sets.polyps(tmp_path / "polyps", cases=12)
    assert audited(folder).findings == []
    split = tmp_path / "frames.json"
    split.write_text(json.dumps({"train": [f"p{k}" for k in range(8)], "test": [f"p{k}" for k in range(8, 12)]}))
    report = audited(folder, split=split)
    assert report.findings == [] and report.facts["parts"] == {"test": 4, "train": 8}
    for case in range(4):
        sets.save(tmp_path / "other" / f"{case}.png", sets.photograph(100 + case))
    assert audited(folder, against=tmp_path / "other").findings == []


@pytest.mark.parametrize(
    ("pixels", "code"),
    [(sets.photograph(1), "same-picture-in-two-parts"), (_brighter(1), "near-duplicate-in-two-parts")],
    ids=["copy", "same scene"],
)
def test_leaks_across_a_split(tmp_path: Path, pixels: np.ndarray, code: str) -> None:
    folder = sets.polyps(tmp_path / "polyps")
    _add(folder, pixels)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["p0", "p1", "p2"], "validation": ["p3", "p4"], "test": ["q1"]}))
    report = audited(folder, split=split)
    assert found(report) == {("error", code)}
    assert "images/p1.png (train)" in report.findings[0].sentence and "(test)" in report.findings[0].sentence
    split.write_text(json.dumps({"train": ["p0", "p1", "q1"], "validation": ["p3"], "test": ["p2", "p4"]}))
    assert "error" not in {severity for severity, _ in found(audited(folder, split=split))}


def test_copies_and_scenes_in_both_sets(tmp_path: Path) -> None:
    folder = sets.polyps(tmp_path / "polyps")
    sets.save(tmp_path / "pretraining" / "x.png", sets.photograph(2))
    sets.save(tmp_path / "pretraining" / "y.png", _brighter(3))
    report = audited(folder, against=tmp_path / "pretraining")
    assert found(report) == {("error", "same-picture-in-both-sets"), ("error", "near-duplicate-in-both-sets")}


def test_a_store_of_photographs_against_the_test_set(tmp_path: Path) -> None:
    from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames

    folder = sets.polyps(tmp_path / "polyps")
    source = tmp_path / "source" / "patient"
    sets.save(source / "z.png", sets.photograph(4))
    sets.save(source / "w.png", sets.photograph(44))
    ingest_frames(tmp_path / "source", tmp_path / "store", workers=1, progress=False)
    report = audited(folder, against=tmp_path / "store")
    assert {one.code for one in report.findings} <= {"same-picture-in-both-sets", "near-duplicate-in-both-sets"}
    assert [one.files[0] for one in report.findings] == ["images/p4.png"]


def test_label_maps_of_several_classes_are_no_dark_masks(tmp_path: Path) -> None:
    folder = sets.polyps(tmp_path / "polyps")
    classes = sets.mask() // 255
    classes[:20] = 2
    sets.save(folder / "masks" / "p1.png", classes)
    assert audited(folder).findings == []


def test_what_a_split_gets_wrong(tmp_path: Path) -> None:
    folder = sets.polyps(tmp_path / "polyps")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["p0", "p1"], "test": ["p1.png", "gone"]}))
    report = audited(folder, split=split)
    assert found(report) == {
        ("error", "same-case-in-two-parts"),
        ("error", "split-unknown-name"),
        ("note", "split-incomplete"),
    }
    split.write_text('{"train": ["p0"]}')
    with pytest.raises(DataError, match="fewer than two parts"):
        audited(folder, split=split)


def test_folders_called_train_and_test_are_a_split_and_classes_are_compared(tmp_path: Path) -> None:
    for part, offset in (("train", 0), ("test", 10)):
        for finding in ("polyp", "normal"):
            for k in range(3):
                seed = offset + k + (5 if finding == "normal" else 0)
                sets.save(tmp_path / part / finding / f"{k}.png", sets.photograph(seed))
    assert audited(tmp_path).findings == []
    shutil.copy(tmp_path / "train" / "polyp" / "1.png", tmp_path / "test" / "normal" / "7.png")
    assert found(audited(tmp_path)) == {
        ("error", "same-picture-in-two-parts"),
        ("warning", "same-picture-in-two-classes"),
    }


def test_patient_in_a_path_and_slices_as_pictures(tmp_path: Path) -> None:
    for part, patient, k in (("train", 3, 0), ("train", 4, 1), ("test", 3, 2)):
        sets.save(tmp_path / "a" / part / f"patient{patient}_{k}.png", sets.photograph(k))
        sets.save(tmp_path / "b" / part / "volumes" / f"volume-{patient}_{k}.png", sets.photograph(k))
    report = audited(tmp_path / "a", group_pattern=r"patient(\d+)_")
    assert found(report) == {("error", "same-group-in-two-parts")}
    assert found(audited(tmp_path / "b")) == {("error", "same-group-in-two-parts")}
    assert audited(tmp_path / "a").findings == []


def test_frames_of_one_sequence_of_cvc_in_two_parts(tmp_path: Path) -> None:
    for k in (1, 2, 600):
        sets.save(tmp_path / "Original" / f"{k}.png", sets.photograph(k))
        sets.save(tmp_path / "Ground Truth" / f"{k}.png", sets.mask())
    split = tmp_path / "split.json"
    split.write_text('{"train": ["1", "600"], "test": ["2"]}')
    report = audited(tmp_path, split=split)
    assert found(report) == {("error", "same-group-in-two-parts")}
    assert "sequence-01" in report.findings[0].sentence


def test_layouts_of_giana_hyperkvasir_and_c3vd(tmp_path: Path) -> None:
    giana, kvasir, c3vd = tmp_path / "giana", tmp_path / "labeled-images", tmp_path / "c3vd"
    for k in range(3):
        sets.save(giana / "angyodysplasia" / "images" / f"{k}.png", sets.photograph(k))
        sets.save(giana / "angyodysplasia" / "masks" / f"{k}_a.png", sets.mask())
        sets.save(giana / "normal" / "images" / f"{k}.png", sets.photograph(10 + k))
        sets.save(kvasir / "lower-gi-tract" / "anatomical-landmarks" / "cecum" / f"{k}.png", sets.photograph(k))
        sets.save(c3vd / "cecum_t1_a" / f"{k}_color.png", sets.photograph(k))
        sets.save(c3vd / "cecum_t1_a" / f"{k:04d}_depth.tiff", sets.photograph(k)[..., 0].astype(np.uint16))
    for folder in (giana, kvasir, c3vd):
        assert audited(folder).findings == []
    split = tmp_path / "frames.json"
    split.write_text('{"train": ["cecum_t1_a-0000"], "test": ["cecum_t1_a-0001", "cecum_t1_a-0002"]}')
    assert found(audited(c3vd, split=split)) == {("error", "same-group-in-two-parts")}
    split.write_text(
        '{"train": ["angiodysplasia-0", "normal-0", "normal-1"], "test": ["angiodysplasia-1", "normal-2"]}'
    )
    assert found(audited(giana, split=split)) == {("note", "split-incomplete")}
    (c3vd / "cecum_t1_a" / "0001_depth.tiff").unlink()
    (giana / "angyodysplasia" / "masks" / "1_a.png").unlink()
    assert found(audited(c3vd)) == found(audited(giana)) == {("error", "missing-partner")}


def mirror_blind(records: Sequence[Record]) -> np.ndarray:
    """Embeddings that are the same for a picture and its mirror image, which no hash recognises."""
    pictures = [middle_image(one.picture).astype(float) for one in records]
    return np.stack([cv2.resize(p + p[:, ::-1], (8, 8), interpolation=cv2.INTER_AREA).ravel() for p in pictures])


def test_embeddings_find_what_hashes_do_not(tmp_path: Path) -> None:
    for k in range(9):
        sets.save(tmp_path / ("train" if k < 5 else "test") / f"{k}.png", sets.photograph(k))
    mirrored = np.ascontiguousarray(sets.photograph(1)[:, ::-1])
    sets.save(tmp_path / "test" / "mirrored.png", mirrored)
    report = audited(tmp_path, embed=mirror_blind)
    assert found(report) == {("warning", "similar-in-two-parts")}
    assert report.findings[0].files == ("test/mirrored.png", "train/1.png")


def test_embeddings_find_a_test_picture_in_the_pretraining_set(tmp_path: Path) -> None:
    for k in range(9):
        sets.save(tmp_path / ("pretraining" if k < 5 else "test") / f"{k}.png", sets.photograph(k))
    mirrored = np.ascontiguousarray(sets.photograph(1)[:, ::-1])
    sets.save(tmp_path / "test" / "mirrored.png", mirrored)
    report = audited(tmp_path / "test", against=tmp_path / "pretraining", embed=mirror_blind)
    assert found(report) == {("warning", "similar-in-both-sets")}
    assert set(report.findings[0].files) == {"mirrored.png", "OTHER:1.png"}


def test_fingerprints_of_very_different_sizes_are_compared_on_what_both_kept() -> None:
    rng = np.random.default_rng(0)
    whole = np.unique(rng.integers(0, 2**63, 400_000).astype(np.uint64))
    part = np.sort(rng.choice(whole, 20_000, replace=False))
    stranger = np.unique(rng.integers(0, 2**63, 20_000).astype(np.uint64))[:MOST_PER_SCAN]
    ((first, second, of_whole, of_part),) = shared_scans([whole[:MOST_PER_SCAN], part[:MOST_PER_SCAN], stranger])
    assert (first, second) == (0, 1)
    assert of_part == 1.0 and of_whole == pytest.approx(0.05, abs=0.02)


def test_nothing_to_audit(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="holds no scan"):
        audited(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        audited(tmp_path / "gone")
    with pytest.raises(DataError, match="group-pattern"):
        audited(sets.polyps(tmp_path / "p"), group_pattern="(")
