"""Ingest of frames and videos: what is kept, what is said about the rest, and what happens when it is interrupted."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_ssl_transfer.data.endoscopy import ingest_plan
from monai_ssl_transfer.data.endoscopy.frames import read_frame
from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.endoscopy.ingest_plan import Grouping, plan_jobs
from monai_ssl_transfer.data.endoscopy.ingest_report import FrameIngestReport
from monai_ssl_transfer.data.endoscopy.ingest_worker import smaller
from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.data.store_writer import SliceStoreWriter
from monai_ssl_transfer.errors import DataError


def picture(seed: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Blobs in the colours of mucosa: two seeds are never near duplicates."""
    noise = np.random.default_rng(seed).uniform(0, 255, (6, 8)).astype(np.uint8)
    light = np.asarray(Image.fromarray(noise).resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32)
    return (light[..., None] * [0.8, 0.45, 0.35] + [45, 20, 15]).astype(np.uint8)


def write(path: Path, frame: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path, **options)
    return path


def ingest(source: Path, store: Path, **options: Any) -> FrameIngestReport:
    return ingest_frames(source, store, **{"workers": 1, "progress": False, **options})


def statuses(store: Path) -> dict[str, tuple[str, str]]:
    """Clear path -> status and code, joined from the store's lines and the private ones."""
    lines = [json.loads(line) for line in (store / "ingest_files.jsonl").read_text().splitlines()]
    names = map(json.loads, (private_folder(store) / "files.jsonl").read_text().splitlines())
    clear = {name["id"]: name["path"] for name in names}
    assert len({line["id"] for line in lines}) == len(lines)
    return {clear[line["id"]]: (line["status"], line.get("code", "")) for line in lines}


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A tree with something of everything."""
    source = tmp_path / "export"
    for number in range(4):
        write(source / "a" / f"f{number}.png", picture(number))
        write(source / "b" / "deep" / f"f{number}.jpg", picture(10 + number), quality=90)
    write(source / "b" / "deep" / "f9.tif", picture(20))
    whole = write(source / "whole.jpg", picture(30)).read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "notmine.jpg").write_text("hello")
    (source / "void.png").write_bytes(b"")
    mask = np.zeros((48, 64, 3), np.uint8)
    mask[10:30, 20:50] = 255
    write(source / "masks" / "f0.jpg", mask)
    write(source / "black.png", np.zeros((20, 20, 3), np.uint8))
    shutil.copy(source / "a" / "f0.png", source / "copy of f0.png")
    (source / "notes.txt").write_text("hello")
    (source / "Thumbs.db").write_text("x")
    (source / "all.zip").write_text("x")
    (source / "gone.png").symlink_to(tmp_path / "nowhere")
    (source / "film.mp4").write_bytes(b"no film")
    os.mkfifo(source / "pipe.png")
    return source


def test_everything_is_kept_or_accounted_for(clinic: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    report = ingest(clinic, store)
    found = {str(Path(path).relative_to(clinic)): outcome for path, outcome in statuses(store).items()}
    assert set(found) == {str(path.relative_to(clinic)) for path in clinic.rglob("*") if not path.is_dir()}
    assert {path: outcome for path, outcome in found.items() if outcome[0] != "kept"} == {
        "cut.jpg": ("refused", "truncated"),
        "notmine.jpg": ("refused", "not an image"),
        "void.png": ("refused", "empty file"),
        "masks/f0.jpg": ("refused", "label, not an image"),
        "black.png": ("refused", "blank"),
        "a/f0.png": ("duplicate", "copy"),  # the group of the folder above comes first
        "notes.txt": ("ignored", "not a picture"),
        "Thumbs.db": ("ignored", "system file"),
        "all.zip": ("refused", "archive"),
        "gone.png": ("refused", "unreadable"),
        "film.mp4": ("refused", "damaged"),
        "pipe.png": ("refused", "not a file"),
    }
    slices = SliceStore(store)
    assert slices.pixels == "rgb" and len(slices) == report.frames == 10 and slices.verify() == []
    assert report.groups == 3 and report.bytes_per_frame > 0
    text = report.summary()
    assert "10 frames of 3 groups" in text and "1 refused: truncated" in text and "16 of 256 bits" in text


def test_stored_frames_are_the_photographs(clinic: Path, tmp_path: Path) -> None:
    ingest(clinic / "b", tmp_path / "store")
    store = SliceStore(tmp_path / "store")
    assert len(store) == 5
    files = [clinic / "b" / "deep" / name for name in ("f0.jpg", "f1.jpg", "f2.jpg", "f3.jpg", "f9.tif")]
    for i, file in enumerate(files):
        difference = np.abs(store.read(i).astype(int) - read_frame(file))
        assert difference.max() == 0 if file.suffix == ".jpg" else difference.mean() < 2
    assert store.index["position"].tolist() == [0, 1, 2, 3, 4]


def test_second_run_adds_nothing_and_a_lost_account_is_made_anew(clinic: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest(clinic, store)
    content, account = SliceStore(store).content_hash, statuses(store)
    assert ingest(clinic, store).added_frames == 0
    assert SliceStore(store).content_hash == content and statuses(store) == account
    (store / "ingest_files.jsonl").unlink()
    (private_folder(store) / "files.jsonl").unlink()
    assert ingest(clinic, store).added_frames == 0
    assert SliceStore(store).content_hash == content and statuses(store) == account


def test_any_number_of_workers_gives_the_same_store(clinic: Path, tmp_path: Path) -> None:
    ingest(clinic, tmp_path / "one")
    shutil.copytree(private_folder(tmp_path / "one"), private_folder(tmp_path / "two"))
    (private_folder(tmp_path / "two") / "files.jsonl").unlink()
    ingest(clinic, tmp_path / "two", workers=2)
    assert SliceStore(tmp_path / "one").content_hash == SliceStore(tmp_path / "two").content_hash
    assert statuses(tmp_path / "one") == statuses(tmp_path / "two")


def test_a_folder_that_grew_gives_only_its_new_frames(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for number in (1, 3, 5):
        write(tmp_path / "in" / f"f{number}.png", picture(number))
    ingest(tmp_path / "in", store)
    write(tmp_path / "in" / "f2.png", picture(2))
    write(tmp_path / "in" / "f4.png", picture(3))  # shows the same as f3
    report = ingest(tmp_path / "in", store)
    assert report.added_frames == 1 and len(SliceStore(store)) == 4 and report.groups == 1
    outcomes = {Path(path).name: outcome for path, outcome in statuses(store).items()}
    assert outcomes["f4.png"] == ("duplicate", "near duplicate")
    assert [outcomes[f"f{number}.png"] for number in (1, 2, 3, 5)] == [("kept", "")] * 4
    (tmp_path / "in").rename(tmp_path / "moved")
    assert ingest(tmp_path / "moved", store).added_frames == 0
    assert statuses(store)[str(tmp_path / "moved" / "f1.png")] == ("duplicate", "copy")


def test_near_duplicates_are_dropped_across_the_ends_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_plan, "CHUNK_FRAMES", 3)
    for number in range(8):  # one scene, saved ever worse: other bytes, same picture
        write(tmp_path / "in" / f"f{number}.jpg", picture(1), quality=95 - 3 * number)
    write(tmp_path / "in" / "f8.png", picture(2))
    report = ingest(tmp_path / "in", tmp_path / "store")
    assert len(SliceStore(tmp_path / "store")) == 2 and report.near_duplicates == 7
    assert "7 near duplicates dropped (at most 16 of 256 bits of the hash differ)" in report.summary()
    for threshold in (None, -1):
        report = ingest(tmp_path / "in", tmp_path / f"all {threshold}", duplicate_threshold=threshold)
        assert report.frames == 9 and "not looked for" in report.summary()


def test_frames_are_numbered_as_people_number_them(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        write(tmp_path / "in" / f"frame_{number}.jpg", picture(number), quality=100, subsampling=0)
    ingest(tmp_path / "in", tmp_path / "store")
    store = SliceStore(tmp_path / "store")
    for i, number in enumerate((1, 2, 10)):
        assert np.abs(store.read(i).astype(int) - picture(number)).mean() < 2


def test_groups_by_pattern(tmp_path: Path) -> None:
    for seed, name in enumerate(("p1_a", "p2_a", "p1_b", "nobody")):
        write(tmp_path / "in" / "flat" / f"{name}.png", picture(seed))
    report = ingest(tmp_path / "in", tmp_path / "store", group_pattern=r"(p\d+)_")
    assert (report.frames, report.groups) == (3, 2)
    assert statuses(tmp_path / "store")[str(tmp_path / "in" / "flat" / "nobody.png")] == ("refused", "no group")
    for wrong in ("p1", "(p1"):
        with pytest.raises(DataError, match="group pattern"):
            ingest(tmp_path / "in", tmp_path / "other", group_pattern=wrong)


def test_sizes_crops_and_orientations(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    write(tmp_path / "in" / "a.jpg", picture(1, (300, 200)), quality=100, subsampling=0, exif=turned)
    bordered = np.zeros((120, 180, 3), np.uint8)
    bordered[10:110, 60:170] = picture(2, (100, 110)).clip(60)
    write(tmp_path / "in" / "b.png", bordered)
    ingest(tmp_path / "in", tmp_path / "native", longest_side=0)
    store = SliceStore(tmp_path / "native")
    upright = np.rot90(picture(1, (300, 200)), -1)
    assert store.read(0).shape == (200, 300, 3)
    assert np.abs(store.read(0).astype(int) - upright).mean() < 2
    ingest(tmp_path / "in", tmp_path / "small", longest_side=96, crop=True)
    small = SliceStore(tmp_path / "small")
    assert small.read(0).shape == (64, 96, 3)
    assert small.read(1).shape == (87, 96, 3)  # 100 x 110 of 120 x 180
    reference = np.asarray(Image.fromarray(picture(2, (100, 110)).clip(60)).resize((96, 87), Image.Resampling.BOX))
    assert np.abs(small.read(1).astype(int) - reference).mean() < 5


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 90), columns=st.integers(1, 90), side=st.integers(0, 100))
def test_smaller_keeps_the_aspect_ratio_and_never_enlarges(rows: int, columns: int, side: int) -> None:
    found = smaller(np.zeros((rows, columns, 3), np.uint8), side)
    longest = max(rows, columns) if side == 0 else min(side, max(rows, columns))
    assert max(found.shape[:2]) == longest
    scale = longest / max(rows, columns)
    assert abs(found.shape[0] - rows * scale) <= 1 and abs(found.shape[1] - columns * scale) <= 1


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12), most=st.integers(1, 5))
def test_chunks_hold_all_files_in_order_and_are_bounded(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], most: int
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    paths = [str(folder / f"{number}.png") for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Path(path).write_bytes(bytes(size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_plan, "CHUNK_FRAMES", most)
        patch.setattr(ingest_plan, "CHUNK_BYTES", 500)
        jobs = list(plan_jobs(paths[::-1], [], Grouping(folder, None), {}, []))
    assert [path for job in jobs for path in job.files] == paths
    assert all(len(job.files) <= most for job in jobs)
    assert all(len(job.files) == 1 or sum(Path(p).stat().st_size for p in job.files) <= 500 for job in jobs)
    assert [job.before for job in jobs[1:]] == [job.files[-1] for job in jobs[:-1]]
    assert len({job.name for job in jobs}) == len(jobs)


def test_labels_by_name_and_number(tmp_path: Path) -> None:
    source, table = tmp_path / "in", tmp_path / "labels.csv"
    for number in range(4):
        write(source / "x" / f"{number}.png", picture(number))
    table.write_text("file,label\nx/0.png,polyps\nx/1.png,cecum\nx/2.png,polyps\n")
    ingest(source, tmp_path / "store", labels_csv=table)
    assert SliceStore(tmp_path / "store").index["label"].tolist() == [1, 0, 1, -1]
    assert json.loads((tmp_path / "store" / "classes.json").read_text()) == ["cecum", "polyps"]
    write(tmp_path / "more" / "9.png", picture(9))
    table.write_text("file,label\n9.png,angiectasia\n")  # numbers given before do not change
    ingest(tmp_path / "more", tmp_path / "store", labels_csv=table)
    assert SliceStore(tmp_path / "store").index["label"].tolist() == [1, 0, 1, -1, 2]
    table.write_text(f"file,label\n{source / 'x' / '3.png'},7\n")
    ingest(source, tmp_path / "numbers", labels_csv=table)
    assert SliceStore(tmp_path / "numbers").index["label"].tolist() == [-1, -1, -1, 7]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,label\nx/9.png,a\n", "names x/9.png, which is not below"),
        ("file,label\nx/0.png,a\nx/0.png,b\n", "the labels a and b"),
        ("file,label\nx/0.png\n", "a label in every row"),
        ("file,label\n", "a label in every row"),
        ("file,label\nx/0.png,40000\n", "above 32767"),
    ],
)
def test_wrong_label_tables_stop(tmp_path: Path, content: str, sentence: str) -> None:
    write(tmp_path / "in" / "x" / "0.png", picture(0))
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=sentence):
        ingest(tmp_path / "in", tmp_path / "store", labels_csv=tmp_path / "labels.csv")


def test_labels_that_come_too_late_are_not_dropped_silently(tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.png", picture(0))
    ingest(tmp_path / "in", tmp_path / "store")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n")
    with pytest.raises(DataError, match=r"0\.png is in .*store with no label, not 1"):
        ingest(tmp_path / "in", tmp_path / "store", labels_csv=tmp_path / "labels.csv")


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("corrected", ["0210", "1100"])
def test_corrected_labels_are_not_ignored(tmp_path: Path, corrected: str, grown: bool) -> None:
    """One row corrected to a class that other files have, and two rows swapped; with and without a new file."""
    source, table = tmp_path / "in", tmp_path / "labels.csv"
    for number in range(4):
        write(source / f"{number}.png", picture(number))

    def labelled(labels: str) -> Path:
        table.write_text("file,label\n" + "".join(f"{name}.png,{label}\n" for name, label in enumerate(labels)))
        return table

    ingest(source, tmp_path / "store", labels_csv=labelled("0110"))
    if grown:
        write(source / "4.png", picture(4))
    assert ingest(source, tmp_path / "store", labels_csv=labelled("0110")).added_frames == grown
    wrong = next(i for i in range(4) if corrected[i] != "0110"[i])
    with pytest.raises(
        DataError, match=rf"{wrong}\.png is in .*store with label {'0110'[wrong]}, not {corrected[wrong]}"
    ):
        ingest(source, tmp_path / "store", labels_csv=labelled(corrected))
    assert SliceStore(tmp_path / "store").index["label"].tolist() == [0, 1, 1, 0] + [-1] * grown
    assert ingest(source, tmp_path / "store").added_frames == 0  # no table says nothing about the classes


def test_two_labels_of_one_content_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / "in" / folder / "same.png", picture(1))
    (tmp_path / "labels.csv").write_text("file,label\na/same.png,0\nb/same.png,1\n")
    with pytest.raises(DataError, match=r"b/same\.png has label 1 but the same content as a file .* with label 0"):
        ingest(tmp_path / "in", tmp_path / "store", labels_csv=tmp_path / "labels.csv")


def test_nothing_readable_in_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "Wintergreen_Ottilie 12.04.1953"
    exif = Image.Exif()
    exif[0x010E] = "Wintergreen Ottilie MRN-7734021"
    write(folder / "MRN-7734021.jpg", picture(1), exif=exif, comment=b"Ottilie")
    write(folder / "Ottilie.png", picture(2))
    (folder / "Ottilie Wintergreen.jpg").write_text("7734021")
    store = tmp_path / "store"
    ingest(tmp_path / "in", store)
    assert len(statuses(store)) == 3
    content = b"".join(file.read_bytes() for file in store.rglob("*") if file.is_file()).lower()
    assert [text for text in ("wintergreen", "ottilie", "7734021", "mrn") if text.encode() in content] == []
    for file in private_folder(store).iterdir():
        assert file.stat().st_mode & 0o077 == 0, file.name


def test_wrong_sources_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ingest(tmp_path / "nowhere", tmp_path / "store")
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        ingest(tmp_path / "in", tmp_path / "store")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="could be kept"):
        ingest(tmp_path / "in", tmp_path / "store")
    assert list(statuses(tmp_path / "store").values()) == [("ignored", "not a picture")]
    for wrong in ({"every": 0}, {"longest_side": -1}):
        with pytest.raises(DataError, match="do not go"):
            ingest(tmp_path / "in", tmp_path / "store", **wrong)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_run_again_gives_the_same_store(tmp_path: Path, workers: int) -> None:
    source, store = tmp_path / "in", tmp_path / "killed"
    for group in range(40):
        for number in range(3):
            write(source / f"{group}" / f"{number}.jpg", picture(3 * group + number))
        stream = io.BytesIO()  # a near duplicate, whose account must survive too
        Image.fromarray(picture(3 * group + 2)).save(stream, "JPEG", quality=60)
        (source / f"{group}" / "3.jpg").write_bytes(stream.getvalue())
    command = [sys.executable, "-m", "monai_ssl_transfer.cli", "ingest", "frames", str(source), "--out", str(store)]
    process = subprocess.Popen([*command, "--workers", str(workers)], stderr=subprocess.DEVNULL)
    series_file, deadline = store / "series.bin", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if series_file.exists() and series_file.stat().st_size > 0:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.0005)
    assert process.wait(30) == -signal.SIGKILL
    stored = len(SliceStore(store))
    assert 0 < stored < 120
    assert ingest(source, store).added_frames == 120 - stored
    (tmp_path / "whole.private").mkdir()
    shutil.copy(private_folder(store) / "salt", private_folder(tmp_path / "whole") / "salt")
    ingest(source, tmp_path / "whole")
    assert SliceStore(store).content_hash == SliceStore(tmp_path / "whole").content_hash
    assert statuses(store) == statuses(tmp_path / "whole")
    assert SliceStore(store).verify() == []


def test_photographs_of_the_test_are_left_out_of_pretraining(tmp_path: Path) -> None:
    source = tmp_path / "kvasir"
    for number in range(4):
        write(source / "images" / f"polyp{number}.png", picture(number))
    record = tmp_path / "frames.json"
    record.write_text(json.dumps({"train": ["polyp0"], "validation": ["polyp1"], "test": ["polyp2"]}))
    ingest(source, tmp_path / "store", leave_out=record)
    found = {Path(path).stem: status for path, status in statuses(tmp_path / "store").items()}
    assert found["polyp2"] == ("ignored", "left out")
    assert [name for name, status in found.items() if status[0] == "kept"] == ["polyp0", "polyp1", "polyp3"]
    record.write_text(json.dumps({"train": [], "validation": [], "test": ["another"]}))
    with pytest.raises(DataError, match=r"frames\.json names none of the files"):
        ingest(source, tmp_path / "other", leave_out=record)


def test_a_store_that_holds_the_test_already_is_refused(tmp_path: Path) -> None:
    """Leaving out comes too late then, whatever the file is called now."""
    source, names = tmp_path / "kvasir", tmp_path / "test.txt"
    for number in range(3):
        write(source / f"polyp{number}.png", picture(number))
    ingest(source, tmp_path / "store")
    names.write_text("polyp1\n")
    with pytest.raises(DataError, match=r"polyp1\.png shall be left out but is in .*store already"):
        ingest(source, tmp_path / "store", leave_out=names)
    (source / "polyp1.png").rename(source / "renamed.png")
    names.write_text("renamed\n")
    with pytest.raises(DataError, match=r"renamed\.png shall be left out but is in .*store already"):
        ingest(source, tmp_path / "store", leave_out=names)
    write(source / "new.png", picture(7))
    names.write_text("new\n")
    assert ingest(source, tmp_path / "store", leave_out=names).added_frames == 0


def test_what_the_training_left_out_itself_is_not_pretrained_on(tmp_path: Path) -> None:
    """An unnamed photograph of a scene that is held out by name."""
    source = tmp_path / "kvasir"
    cases = []
    for number in range(8):
        image = write(source / f"polyp{number}.png", picture(number))
        cases.append({"name": image.stem, "image": str(image), "group": str(number // 2)})
    divided = divide_frames(cases, tmp_path / "run", validation_fraction=0, test_groups=["polyp2"])
    assert [case["name"] for case in divided["test"]] == ["polyp2"]
    ingest(source, tmp_path / "store", leave_out=tmp_path / "run" / "frames.json")
    left = [Path(path).stem for path, status in statuses(tmp_path / "store").items() if status[1] == "left out"]
    assert sorted(left) == ["polyp2", "polyp3"]


@pytest.mark.parametrize(
    ("held_out", "like"),
    [
        (("angiodysplasia-98", "GIANA/angyodysplasia/images/98.png"), "GIANA/normal/images/98.png"),
        (("cecum_t1_a-0012", "C3VD/cecum_t1_a/12_color.png"), "C3VD/cecum_t1_b/12_color.png"),
    ],
)
def test_cases_that_are_not_called_after_their_file_are_left_out(
    tmp_path: Path, held_out: tuple[str, str], like: str
) -> None:
    cases = [{"name": held_out[0], "image": str(write(tmp_path / held_out[1], picture(0))), "group": "x"}]
    cases.append({"name": "another", "image": str(write(tmp_path / like, picture(1))), "group": "y"})
    divide_frames(cases, tmp_path / "run", validation_fraction=0, test_groups=["x"])
    ingest(tmp_path / like.split("/")[0], tmp_path / "store", leave_out=tmp_path / "run" / "frames.json")
    assert statuses(tmp_path / "store") == {
        str(tmp_path / held_out[1]): ("ignored", "left out"),
        str(tmp_path / like): ("kept", ""),
    }


@pytest.mark.parametrize(
    ("name", "held", "given"),
    [("longest_side", 32, 64), ("crop", False, True), ("every", 5, 25), ("duplicate_threshold", 16, None)],
)
def test_a_store_keeps_its_options(tmp_path: Path, name: str, held: Any, given: Any) -> None:
    write(tmp_path / "a" / "f.png", picture(1))
    write(tmp_path / "b" / "f.png", picture(2))
    ingest(tmp_path / "a", tmp_path / "store", **{name: held})
    for source in ("a", "b"):
        with pytest.raises(DataError, match=f"holds frames of {name} {held}, not {given}"):
            ingest(tmp_path / source, tmp_path / "store", **{name: given})
    assert ingest(tmp_path / "b", tmp_path / "store", **{name: held}).frames == 2


def test_every_way_to_keep_all_frames_is_the_same_option(tmp_path: Path) -> None:
    write(tmp_path / "a" / "f.png", picture(1))
    write(tmp_path / "b" / "f.png", picture(2))
    ingest(tmp_path / "a", tmp_path / "store", duplicate_threshold=None)
    assert ingest(tmp_path / "b", tmp_path / "store", duplicate_threshold=-1).frames == 2


def test_a_killed_ingest_keeps_its_options_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group in ("a", "b"):
        write(tmp_path / "in" / group / "f.png", picture(ord(group)))
    append = SliceStoreWriter.append

    def killed(self: SliceStoreWriter, *rest: Any) -> int:
        if len(SliceStore(tmp_path / "store")):
            raise KeyboardInterrupt
        return append(self, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SliceStoreWriter, "append", killed)
        ingest(tmp_path / "in", tmp_path / "store", longest_side=32)
    assert len(SliceStore(tmp_path / "store")) == 1
    with pytest.raises(DataError, match="holds frames of longest_side 32, not 64"):
        ingest(tmp_path / "in", tmp_path / "store", longest_side=64)
    assert ingest(tmp_path / "in", tmp_path / "store", longest_side=32).frames == 2


def test_an_empty_store_takes_new_options(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="could be kept"):
        ingest(tmp_path / "in", tmp_path / "store", longest_side=32)
    write(tmp_path / "in" / "f.png", picture(1))
    assert ingest(tmp_path / "in", tmp_path / "store", longest_side=64).frames == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"options": {"longest_side": "big"}}', "\x00\x00"])
def test_a_damaged_report_is_a_user_error(tmp_path: Path, content: str) -> None:
    write(tmp_path / "in" / "f.png", picture(1))
    ingest(tmp_path / "in", tmp_path / "store")
    (tmp_path / "store" / "ingest_report.json").write_text(content)
    with pytest.raises(DataError, match=r"ingest_report\.json is damaged"):
        ingest(tmp_path / "in", tmp_path / "store")
