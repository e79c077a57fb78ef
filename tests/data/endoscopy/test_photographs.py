from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ssl_transfer.data.endoscopy.frames import frame_size, read_frame
from monai_ssl_transfer.data.endoscopy.photographs import photographs
from monai_ssl_transfer.errors import DataError


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_one_file_and_a_tree_in_natural_order(tmp_path: Path) -> None:
    names = ["a/10.JPG", "a/2.jpg", "b c/x.1.tif", "z.png"]
    _touch(*(tmp_path / name for name in (*names, "notes.txt", "a/._2.jpg", ".cache/3.jpg")))
    cases = photographs(tmp_path)
    assert [case["name"] for case in cases] == ["a/2.jpg", "a/10.JPG", "b c/x.1.tif", "z.png"]
    assert [case["relative"] for case in cases] == ["a/2", "a/10", "b c/x.1", "z"]
    assert [Path(case["image"]) for case in cases] == [tmp_path / case["name"] for case in cases]
    assert len({case["group"] for case in cases}) == 4
    assert photographs(tmp_path / "a" / "2.jpg")[0]["relative"] == "2"


def test_outputs_of_photographs_that_differ_in_the_suffix_do_not_replace_each_other(tmp_path: Path) -> None:
    _touch(tmp_path / "p.jpg", tmp_path / "p.png", tmp_path / "q.png")
    assert [case["relative"] for case in photographs(tmp_path)] == ["p_jpg", "p_png", "q"]
    _touch(tmp_path / "p_jpg.tif")
    with pytest.raises(DataError, match="would both be called p_jpg"):
        photographs(tmp_path)


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".JP2", ".webp", ".tiff"])
def test_every_format_that_can_be_read_is_listed(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 6), (200, 90, 40)).save(tmp_path / f"a{suffix}")
    (case,) = photographs(tmp_path)
    assert np.abs(read_frame(case["image"]).astype(int) - (200, 90, 40)).max() < 8
    assert frame_size(case["image"]) == (6, 8)


def test_the_log_tells_how_many_files_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path / "a.png", tmp_path / "b" / "c.jpg", tmp_path / "._a.png", tmp_path / "Thumbs.db")
    assert len(photographs(tmp_path)) == 2 and not caplog.text
    _touch(tmp_path / "d.heic", tmp_path / "b" / "e.dcm")
    assert len(photographs(tmp_path)) == 2
    (line,) = caplog.messages
    assert f"{tmp_path}: 2 files are passed over" in line


def test_nothing_to_predict_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        photographs(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="holds no photograph"):
        photographs(tmp_path)
    _touch(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="is no photograph by its name"):
        photographs(tmp_path / "a.dcm")
