"""Ingest of whole folder trees: what is kept, what is said about the rest, and what happens when it is interrupted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_phantom import pattern, write_ct, write_enhanced, write_series

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.data.ct.ingest import ingest_ct
from monai_ssl_transfer.data.ct.ingest_report import IngestReport
from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError


def ingest(source: Path, store: Path, **options: object) -> IngestReport:
    return ingest_ct(source, store, **{"workers": 1, "progress": False, **options})  # type: ignore[arg-type]


def statuses(store: Path) -> dict[str, tuple[str, str]]:
    """Clear path -> status and code, joined from the report and the private list."""
    report = json.loads((store / "ingest_report.json").read_text())
    names = map(json.loads, (private_folder(store) / "files.jsonl").read_text().splitlines())
    clear = {name["id"]: name["path"] for name in names}
    return {clear[entry["id"]]: (entry["status"], entry.get("code", "")) for entry in report["files"]}


def write_nifti(path: Path, stored: np.ndarray, spacing: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(stored, np.diag([-0.5, -0.5, spacing, 1])), path)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A tree with something of everything."""
    source = tmp_path / "export"
    write_series(source / "a" / "deep" / "tree", 4, BodyPartExamined="CHEST", PatientID="P1")
    write_series(source / "b", 3, uid=5, SeriesInstanceUID="1.2.826.0.5", PatientID="P2", BodyPartExamined="Becken")
    write_enhanced(source / "mf", np.stack([pattern(7), pattern(8)]), [0, 3], [1, 1], SeriesInstanceUID="1.2.826.0.6")
    write_ct(source / "b" / "scout", pattern(1), [0, 0, 0], 71, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    cut = write_ct(source / "b" / "zcut", pattern(1), [-3, 4, 6], 5004, SeriesInstanceUID="1.2.826.0.5", PatientID="P2")
    cut.write_bytes(cut.read_bytes()[:-9])
    shutil.copy(source / "b" / "001.dcm", source / "b" / "copy of it")
    volume = np.stack([pattern(seed) for seed in range(20, 25)], axis=-1)
    write_nifti(source / "volume-1.nii.gz", volume)
    write_nifti(source / "nested" / "same.nii.gz", volume[:, :, :2])
    write_nifti(source / "segmentation-1.nii.gz", (volume > 0).astype(np.uint8))
    (source / "broken.nii.gz").write_bytes((source / "volume-1.nii.gz").read_bytes()[:300])
    (source / "notes.txt").write_text("hello")
    (source / "empty").write_bytes(b"")
    (source / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(source / "pipe")
    return source


def test_everything_is_kept_or_accounted_for(hospital: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    report = ingest(hospital, store)
    found = {str(Path(path).relative_to(hospital)): outcome for path, outcome in statuses(store).items()}
    walked = {str(path.relative_to(hospital)) for path in hospital.rglob("*") if not path.is_dir()}
    assert set(found) == walked
    left_out = {path: outcome for path, outcome in found.items() if outcome[0] != "kept"}
    assert left_out == {
        "b/scout": ("refused", "localizer"),
        "b/zcut": ("refused", "truncated pixel data"),
        "b/copy of it": ("duplicate", "copy"),
        "segmentation-1.nii.gz": ("refused", "label, not an image"),
        "broken.nii.gz": ("refused", "damaged NIfTI"),
        "notes.txt": ("ignored", "not a scan"),
        "empty": ("ignored", "empty file"),
        "gone": ("refused", "unreadable"),
        "pipe": ("refused", "not a file"),
    }
    slices = SliceStore(store)
    assert len(slices) == 4 + 3 + 2 + 5 + 2 and slices.series_count == 5
    assert len(set(slices.patient_numbers())) == 4  # the enhanced object and the first series are of P1
    assert slices.verify() == []
    parts = {note.slices: note.body_part for note in report.series.values() if note.kind == "dicom"}
    assert parts == {4: "THORAX", 3: "HIP_PELVIS", 2: "UNKNOWN"}
    assert "16 slices" in report.summary() and "refused: localizer" in report.summary()


def test_stored_slices_are_the_scan(hospital: Path, tmp_path: Path) -> None:
    ingest(hospital, tmp_path / "store")
    store = SliceStore(tmp_path / "store")
    for number in range(store.series_count):
        own = store.series_range(number)
        if len(own) == 4:
            read = np.stack([store.read(i) for i in own])
            np.testing.assert_array_equal(read, np.maximum(np.stack([pattern(seed) for seed in range(4)]), -1024))
            np.testing.assert_allclose(store.index["position"][own.start : own.stop], [0, 2, 4, 6])
            assert store.index[own.start]["row_spacing"] == 0.5 and store.index[own.start]["column_spacing"] == 0.75
            return
    pytest.fail("the series of four slices is not in the store")


def test_second_run_adds_nothing_and_keeps_the_account(hospital: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest(hospital, store)
    content, account = SliceStore(store).content_hash, statuses(store)
    report = ingest(hospital, store)
    assert report.added_series == 0 and SliceStore(store).content_hash == content and statuses(store) == account
    (store / "ingest_report.json").unlink()  # as after a kill: the account is made anew from store and files
    ingest(hospital, store)
    assert statuses(store) == account


def test_any_number_of_workers_gives_the_same_store(hospital: Path, tmp_path: Path) -> None:
    ingest(hospital, tmp_path / "one")
    shutil.copytree(private_folder(tmp_path / "one"), private_folder(tmp_path / "two"))
    ingest(hospital, tmp_path / "two", workers=2)
    assert SliceStore(tmp_path / "one").content_hash == SliceStore(tmp_path / "two").content_hash


def test_new_scans_are_appended_and_old_ones_stay_accounted_for(tmp_path: Path) -> None:
    write_series(tmp_path / "first", 3)
    write_series(tmp_path / "second", 2, uid=9, SeriesInstanceUID="1.2.826.0.9")
    ingest(tmp_path / "first", tmp_path / "store")
    report = ingest(tmp_path / "second", tmp_path / "store")
    assert len(SliceStore(tmp_path / "store")) == 5 and report.added_slices == 2
    assert list(statuses(tmp_path / "store").values()) == [("kept", "")] * 5


def test_series_that_grew_or_moved_is_not_stored_twice(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_series(tmp_path / "scans", 3)
    ingest(tmp_path / "scans", store)
    late = write_ct(tmp_path / "scans" / "late", pattern(40), [-3, 4, 6], 40)
    damaged = write_ct(tmp_path / "scans" / "late2", pattern(41), [-3, 4, 8], 41)
    damaged.write_bytes(damaged.read_bytes()[:-4])
    ingest(tmp_path / "scans", store)
    outcomes = statuses(store)
    assert outcomes[str(late)] == ("refused", "series grew")
    assert outcomes[str(damaged)] == ("refused", "truncated pixel data")
    shutil.copytree(tmp_path / "scans", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "late2").unlink()
    ingest(tmp_path / "elsewhere", store)
    assert statuses(store)[str(tmp_path / "elsewhere" / "001.dcm")] == ("duplicate", "ingested before")
    assert len(SliceStore(store)) == 3


def test_nothing_readable_in_the_store(tmp_path: Path) -> None:
    uid = "1.2.276.0.7230010.3.1.4.8323329"
    secret = {
        "PatientName": "Wintergreen^Ottilie",
        "PatientID": "MRN-7734021",
        "PatientBirthDate": "19530412",
        "StudyDate": "20240131",
        "AccessionNumber": "A0098812",
        "SeriesInstanceUID": uid,
    }
    folder = tmp_path / "scans" / "Wintergreen_Ottilie 12.04.1953" / "MRN-7734021" / uid
    write_series(folder, 2, **secret)
    write_ct(folder / "7734021.dcm", pattern(1), [0, 0, 0], 77, **secret, ImagePositionPatient=None)
    write_ct(folder / "31.01.2024 cut.dcm", pattern(1), [-3, 4, 9], 78, **secret)
    cut = folder / "31.01.2024 cut.dcm"
    cut.write_bytes(cut.read_bytes()[:-4])
    write_nifti(tmp_path / "scans" / "Ottilie.nii", np.stack([pattern(1), pattern(2)], axis=-1))
    (tmp_path / "scans" / "Ottilie.nii.gz").write_bytes(b"no gzip")
    store = tmp_path / "store"
    ingest(tmp_path / "scans", store)
    assert len(statuses(store)) == 6
    files = [file for file in store.rglob("*") if file.is_file()]
    shards = b"".join(file.read_bytes() for file in files if file.name.startswith("shard-"))
    content = b"".join(file.read_bytes() for file in files if not file.name.startswith("shard-"))
    content = re.sub(rb"[0-9a-f]{32}", b"", content)  # salted keys, which may hold any four digits by chance
    telling = ["wintergreen", "ottilie", "7734021", "19530412", "1953", "20240131", "2024", "a0098812", uid, "8323329"]
    assert [text for text in telling if text.encode() in content.lower()] == []
    # four digits may occur by chance in compressed pixels
    assert [text for text in telling if len(text) > 6 and text.encode() in shards.lower()] == []
    assert [file.name for file in store.iterdir() if any(text in file.name.lower() for text in telling)] == []


def test_labels_of_the_user(hospital: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,region\nvolume-1.nii.gz,HEAD_NECK\n1.2.826.0.5,ABDOMEN\na/deep,SPINE\n")
    ingest(hospital, tmp_path / "store", labels_csv=table)
    index = SliceStore(tmp_path / "store").index
    counts = {
        BodyPart(int(part)).name: int((index["body_part"] == part).sum()) for part in np.unique(index["body_part"])
    }
    assert counts == {"HEAD_NECK": 5, "ABDOMEN": 3, "SPINE": 4, "UNKNOWN": 4}


def test_wrong_sources_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ingest(tmp_path / "nowhere", tmp_path / "store")
    (tmp_path / "blank").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        ingest(tmp_path / "blank", tmp_path / "store")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "elsewhere").symlink_to(tmp_path / "blank")
    with pytest.raises(DataError, match="a link to a folder, which is not followed"):
        ingest(tmp_path / "links", tmp_path / "store")
    (tmp_path / "blank" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="could be kept"):
        ingest(tmp_path / "blank", tmp_path / "store")
    assert list(statuses(tmp_path / "store").values()) == [("ignored", "not a scan")]


def test_store_inside_the_source_is_not_read(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    ingest(tmp_path, tmp_path / "store")
    ingest(tmp_path, tmp_path / "store")
    assert len(statuses(tmp_path / "store")) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_run_again_gives_the_same_store(tmp_path: Path, workers: int) -> None:
    source, store = tmp_path / "scans", tmp_path / "killed"
    for series in range(24):
        write_series(source / f"{series}", 4, uid=series, SeriesInstanceUID=f"1.2.826.1.{series}")
    command = [sys.executable, "-m", "monai_ssl_transfer.cli", "ingest", "ct", str(source), "--out", str(store)]
    process = subprocess.Popen([*command, "--workers", str(workers)], stderr=subprocess.DEVNULL)
    series_file, deadline = store / "series.bin", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if series_file.exists() and series_file.stat().st_size > 0:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.0005)
    assert process.wait(30) == -signal.SIGKILL
    stored = SliceStore(store).series_count
    assert 0 < stored < 24
    report = ingest(source, store)
    assert report.added_series == 24 - stored
    shutil.copytree(private_folder(store), private_folder(tmp_path / "whole"))
    ingest(source, tmp_path / "whole")
    assert SliceStore(store).content_hash == SliceStore(tmp_path / "whole").content_hash
    assert statuses(store) == statuses(tmp_path / "whole")
