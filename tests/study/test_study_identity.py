"""What a run depends on: the package's code, files that are too large for memory, and nothing of an earlier plan."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.planning.identity import changed_parts, hash_of_code, hash_of_files
from monai_ssl_transfer.study.running.cell_run import remove_unasked


def edited(package: Path, file: str, text: str) -> str:
    """Hash of a package after an edit."""
    (package / file).parent.mkdir(parents=True, exist_ok=True)
    (package / file).write_text(text)
    hash_of_code.cache_clear()
    return hash_of_code(package)


def test_code_that_makes_results_counts_and_the_rest_does_not(tmp_path: Path) -> None:
    first = edited(tmp_path, "networks/heads.py", "a = 1")
    for without_effect in ("study/report/page.py", "study/planning/plan.py", "cli/study.py", "label/app.py"):
        assert edited(tmp_path, without_effect, "a = 1") == first
    found = [first]
    for file in ("study/running/cell_run.py", "durable.py", "newroom/new.py"):
        found.append(edited(tmp_path, file, "a = 1"))
    found.append(edited(tmp_path, "networks/heads.py", "a = 2"))
    (tmp_path / "networks/heads.py").rename(tmp_path / "networks/other.py")
    found.append(edited(tmp_path, "durable.py", "a = 1"))
    assert len(set(found)) == len(found)
    hash_of_code.cache_clear()
    assert len(hash_of_code()) == 64


def test_another_code_is_a_difference_unless_it_is_accepted() -> None:
    made, now = {"code": "a", "data": "d"}, {"code": "b", "data": "d"}
    assert changed_parts(made, now) == ["code"]
    assert changed_parts(made, now, any_code=True) == []
    assert changed_parts({**made, "data": "e"}, now, any_code=True) == ["data"]
    assert changed_parts(None, now, any_code=True) == ["code", "data"]


def test_disturbed_images_that_are_no_longer_asked_for_are_removed(tmp_path: Path) -> None:
    """Else the report would leave out the runs that were judged on fewer."""
    for part in ("clean", "jpeg/1", "jpeg/3", "smoke/1"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "cell.json").write_text("{}")
    kept = [[], ["severities"], ["corruptions", "severities"]]
    for names, left in zip(kept, (4, 3, 2), strict=True):
        asked = {"corruptions": ["jpeg"], "severities": [1]}
        remove_unasked(tmp_path, {name: asked[name] for name in names})
        assert len(list(tmp_path.rglob("cell.json"))) == left
    assert (tmp_path / "clean" / "cell.json").is_file()


def test_files_are_hashed_in_blocks(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    with large.open("wb") as file:
        file.truncate(1 << 25)
    small.write_bytes(b"weights")
    tracemalloc.start()
    found = hash_of_files([large, small])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24
    parts = [hashlib.sha256(file.read_bytes()).digest() for file in (large, small)]
    assert found == hashlib.sha256(b"".join(parts)).hexdigest()
    with pytest.raises(StudyError, match="absent cannot be read"):
        hash_of_files([tmp_path / "absent"])
