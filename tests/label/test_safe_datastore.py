"""The folder of images and labels: names, kills, full and read-only disks, several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("monailabel", reason="needs the label extra")

from monai_ssl_transfer.errors import LabelError
from monai_ssl_transfer.label.datastore import SafeDatastore, _checked_name

SIZE = (32, 24)


def draw(file: Path, value: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE[::-1], value, np.uint8)).save(file)
    return file


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG", "c.tiff", "note.txt"):
        if name.endswith("txt"):
            (tmp_path / "studies" / name).write_text("x")
        else:
            draw(tmp_path / "studies" / name)
    return tmp_path / "studies"


def test_files_of_any_case_and_type_are_images(studies: Path) -> None:
    store = SafeDatastore(str(studies))
    assert sorted(store.list_images()) == ["a", "b", "c"]
    assert Path(store.get_image_uri("b")) == studies / "b.JPG"
    assert store.get_image_uri("../studies/a") == ""
    assert SafeDatastore(str(studies)).list_images() == store.list_images()  # datastore_v2.json is no image


def test_two_images_of_one_id_are_told(studies: Path) -> None:
    draw(studies / "a.bmp")
    said = SafeDatastore(str(studies)).status()["same_id"]
    assert list(said) == ["a"]
    assert "a.bmp and a.png have the same id" in said["a"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_name_leaves_its_folder(name: str) -> None:
    try:
        accepted = _checked_name(name, "image")
    except LabelError as error:
        assert "\n" not in str(error)
        return
    folder = Path("/studies/labels")
    assert (folder / accepted).parent == folder
    assert os.path.normpath(folder / accepted) == str(folder / accepted)


def test_the_label_of_another_type_takes_the_place_of_the_old_file(studies: Path, tmp_path: Path) -> None:
    store = SafeDatastore(str(studies))
    store.save_label("a", str(draw(tmp_path / "new.png", 1)), "final", {"who": "one"})
    store.save_label("a", str(draw(tmp_path / "new.bmp", 2)), "final", {"who": "two"})
    assert [one.name for one in (studies / "labels" / "final").iterdir()] == ["a.bmp"]
    assert store.get_label_info("a", "final")["who"] == "two"
    assert store.datalist() == [{"image": str(studies / "a.png"), "label": str(studies / "labels/final/a.bmp")}]


def _save_for_ever(studies: Path, labels: list[Path]) -> None:
    store = SafeDatastore(str(studies))
    while True:
        for label in labels:
            store.save_label("a", str(label), "final", {})


def test_a_kill_leaves_a_whole_label_and_a_whole_list(studies: Path, tmp_path: Path) -> None:
    labels = [draw(tmp_path / f"{value}.png", value) for value in (1, 2)]
    whole = {label.read_bytes() for label in labels}
    for pause in (0.05, 0.11, 0.17, 0.23):
        process = multiprocessing.get_context("fork").Process(target=_save_for_ever, args=(studies, labels))
        process.start()
        end = time.monotonic() + 30
        while not (studies / "labels" / "final" / "a.png").exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert (studies / "labels" / "final" / "a.png").read_bytes() in whole
        listed = json.loads((studies / "datastore_v2.json").read_text())
        assert set(listed["objects"]) == {"a", "b", "c"}
        assert SafeDatastore(str(studies)).get_label_uri("a", "final")


def _save_many(studies: Path, tag: str, label: Path, times: int) -> None:
    store = SafeDatastore(str(studies))
    for number in range(times):
        store.save_label("abc"[number % 3], str(label), tag, {"number": number})
        store.update_image_info("abc"[number % 3], {tag: number})


def test_two_processes_lose_nothing_of_each_other(studies: Path, tmp_path: Path) -> None:
    label = draw(tmp_path / "mask.png", 1)
    SafeDatastore(str(studies))
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_save_many, args=(studies, tag, label, 9)) for tag in ("one", "two")]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    listed = json.loads((studies / "datastore_v2.json").read_text())["objects"]
    for number, name in enumerate("abc"):
        assert {tag: one["info"]["number"] for tag, one in listed[name]["labels"].items()} == {
            "one": 6 + number,
            "two": 6 + number,
        }
        assert (listed[name]["image"]["info"]["one"], listed[name]["image"]["info"]["two"]) == (6 + number,) * 2


def test_a_damaged_list_is_kept_aside_and_no_label_is_lost(studies: Path, tmp_path: Path) -> None:
    SafeDatastore(str(studies)).save_label("a", str(draw(tmp_path / "mask.png", 1)), "final", {})
    listing = studies / "datastore_v2.json"
    listing.write_text(listing.read_text()[:100])
    store = SafeDatastore(str(studies))
    assert store.get_labeled_images() == ["a"]
    assert len(list(studies.glob("datastore_v2.json.damaged-*"))) == 1
    assert set(json.loads(listing.read_text())["objects"]) == {"a", "b", "c"}


def test_files_that_other_programs_put_there_are_found(studies: Path, tmp_path: Path) -> None:
    store = SafeDatastore(str(studies), auto_reload=True)
    try:
        draw(tmp_path / "d.png").replace(studies / "d.png")
        draw(studies / "labels" / "final" / "b.png", 1)
        other = SafeDatastore(str(studies))
        other.update_image_info("a", {"seen": 1})
        end = time.monotonic() + 20
        while time.monotonic() < end and not (
            "d" in store.list_images() and "seen" in store.get_image_info("a") and store.get_labeled_images() == ["b"]
        ):
            time.sleep(0.05)
        assert "d" in store.list_images()
        assert store.get_image_info("a")["seen"] == 1
        assert store.get_labeled_images() == ["b"]
    finally:
        store._observer.stop()


@pytest.fixture
def mounted(small_disk: Callable[[str], Path], studies: Path, tmp_path: Path) -> Iterator[Path]:
    disk = small_disk("200k")
    for name in ("a.png", "b.JPG"):
        (disk / name).write_bytes((studies / name).read_bytes())
    yield disk
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=False)


def test_a_disk_that_became_read_only_loses_no_label(mounted: Path, tmp_path: Path) -> None:
    store, first = SafeDatastore(str(mounted)), draw(tmp_path / "1.png", 1)
    store.save_label("a", str(first), "final", {"version": 1})
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(LabelError, match="make the folder writable and send it again; nothing was lost") as caught:
        store.save_label("a", str(draw(tmp_path / "2.png", 2)), "final", {"version": 2})
    assert caught.value.status == 403
    assert (mounted / "labels" / "final" / "a.png").read_bytes() == first.read_bytes()
    assert store.get_label_info("a", "final")["version"] == 1
    later = SafeDatastore(str(mounted))
    assert later.read_only
    assert later.get_labeled_images() == ["a"]
    with pytest.raises(LabelError, match="is read-only"):
        later.save_label("b", str(first), "final", {})
    subprocess.run(["mount", "-o", "remount,rw", str(mounted)], check=True)
    store.save_label("a", str(tmp_path / "2.png"), "final", {"version": 2})
    assert store.get_label_info("a", "final")["version"] == 2


def test_a_read_only_folder_without_labels_is_served(mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    store = SafeDatastore(str(mounted), auto_reload=True)
    assert sorted(store.list_images()) == ["a", "b"]
    assert store.status()["read_only"] is True


def test_a_full_disk_loses_no_label(mounted: Path, tmp_path: Path) -> None:
    store, first = SafeDatastore(str(mounted)), draw(tmp_path / "1.png", 1)
    store.save_label("a", str(first), "final", {"version": 1})
    filler = mounted / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 1024)
    with pytest.raises(LabelError, match="free space there and send it again") as caught:
        store.save_label("a", str(draw(tmp_path / "2.png", 2)), "final", {"version": 2})
    assert caught.value.status == 507
    assert (mounted / "labels" / "final" / "a.png").read_bytes() == first.read_bytes()
    filler.unlink()
    assert SafeDatastore(str(mounted)).get_label_info("a", "final")["version"] == 1
