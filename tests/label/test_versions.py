"""Versions of a model: replaced whole or not at all, earlier ones kept, none of them in the folder `models`."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.label.versions import ModelVersions

FIGURES = {"metric": "mean_dice", "candidate": 0.8, "model_in_use": 0.7}


def versions_of(app: Path, weights: bytes | None = b"shipped") -> ModelVersions:
    models = app / "model" / "polyps" / "models"
    models.mkdir(parents=True)
    if weights is not None:
        (models / "model.pt").write_bytes(weights)
    return ModelVersions(app / "model" / "polyps", app / "versions" / "polyps")


def candidate(app: Path, weights: bytes) -> Path:
    file = app / "candidate.pt"
    file.write_bytes(weights)
    return file


def test_a_candidate_replaces_the_model_and_both_are_kept_with_their_figures(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    before = file_sha256(versions.model)
    installed = versions.install(candidate(tmp_path, b"better"), FIGURES, before)
    assert versions.model.read_bytes() == b"better"
    assert [(one.number, one.origin, one.training) for one in versions.listed()] == [
        (1, "found", {}),
        (2, "trained", FIGURES),
    ]
    assert versions.in_use() == installed
    assert [versions.file_of(one).read_bytes() for one in versions.listed()] == [b"shipped", b"better"]
    assert [one.name for one in versions.model.parent.iterdir()] == ["model.pt"]  # MONAI Label offers every .pt there


def test_the_first_model_needs_none_before_it(tmp_path: Path) -> None:
    versions = versions_of(tmp_path, None)
    assert versions.in_use() is None
    assert versions.install(candidate(tmp_path, b"first"), FIGURES, None).number == 1
    assert versions.model.read_bytes() == b"first"


def test_an_earlier_version_comes_back_and_the_later_one_stays_known(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    versions.install(candidate(tmp_path, b"better"), FIGURES, file_sha256(versions.model))
    versions.restore(1)
    assert versions.model.read_bytes() == b"shipped"
    assert (versions.in_use() or pytest.fail()).number == 1
    assert versions.restore(2).number == 2
    assert versions.model.read_bytes() == b"better"
    assert len(versions.listed()) == 2


def test_weights_that_were_put_there_by_hand_are_kept_before_they_are_replaced(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    versions.install(candidate(tmp_path, b"better"), FIGURES, file_sha256(versions.model))
    versions.model.write_bytes(b"by hand")
    assert versions.in_use() is None
    versions.restore(1)
    assert [versions.file_of(one).read_bytes() for one in versions.listed()][-1] == b"by hand"


def test_a_model_that_changed_since_the_comparison_is_left_alone(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    before = file_sha256(versions.model)
    versions.model.write_bytes(b"restored meanwhile")
    with pytest.raises(TrainingError, match="was replaced while the candidate was trained"):
        versions.install(candidate(tmp_path, b"better"), FIGURES, before)
    assert versions.model.read_bytes() == b"restored meanwhile"


def test_torchscript_of_the_earlier_model_is_put_away(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    versions.model.with_suffix(".ts").write_bytes(b"script")
    versions.install(candidate(tmp_path, b"better"), FIGURES, file_sha256(versions.model))
    assert not versions.model.with_suffix(".ts").exists()
    assert [one.read_bytes() for one in versions.folder.glob("*.ts")] == [b"script"]


def test_a_damaged_version_is_not_put_to_use(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    versions.install(candidate(tmp_path, b"better"), FIGURES, file_sha256(versions.model))
    versions.file_of(versions.listed()[0]).write_bytes(b"ship")
    with pytest.raises(TrainingError, match=r"0001.pt is missing or damaged"):
        versions.restore(1)
    assert versions.model.read_bytes() == b"better"


def test_an_unknown_version_and_a_damaged_record_are_named(tmp_path: Path) -> None:
    versions = versions_of(tmp_path)
    with pytest.raises(TrainingError, match="has no version 7: choose of none is kept yet"):
        versions.restore(7)
    versions.note(FIGURES)
    assert versions.trainings() == [FIGURES]
    (versions.folder / "versions.json").write_text('{"format": 1, "versions": [')
    with pytest.raises(TrainingError, match=r"versions.json cannot be read as the record"):
        versions.listed()


def test_a_full_disk_leaves_the_model_and_the_record(tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("200k")
    versions = versions_of(disk, b"shipped" * 5_000)
    large = tmp_path / "large.pt"
    large.write_bytes(b"x" * 150_000)
    before = file_sha256(versions.model)
    with pytest.raises(TrainingError, match=r"could not be written \(No space left on device\)"):
        versions.install(large, FIGURES, before)
    assert file_sha256(versions.model) == before
    assert all(file_sha256(versions.file_of(one)) == one.sha256 for one in versions.listed())


def install_for_ever(versions: ModelVersions, app: Path, begun: Connection) -> None:
    for number in range(10_000):
        file = app / "candidate.pt"
        file.write_bytes(bytes([number % 256]) * 500_000 + str(number).encode())
        versions.install(file, {"candidate": number}, file_sha256(versions.model))
        begun.send(number)


def test_sigkill_at_any_time_leaves_a_whole_model_that_is_kept(tmp_path: Path) -> None:
    versions, fork = versions_of(tmp_path), multiprocessing.get_context("fork")  # a new start would import torch
    for attempt in range(3):
        receiving, sending = fork.Pipe(duplex=False)
        process = fork.Process(target=install_for_ever, args=(versions, tmp_path, sending))
        process.start()
        assert receiving.poll(60)
        time.sleep(0.05 + 0.03 * attempt)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        model = versions.model.read_bytes()
        number = model[500_000:]
        assert model == bytes([int(number) % 256]) * 500_000 + number
        assert versions.in_use() is not None
        assert [one.name for one in versions.model.parent.glob("*.pt")] == ["model.pt"]
