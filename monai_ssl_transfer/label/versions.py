"""Versions of a bundle's model: the one in use is replaced atomically, and every earlier one is kept beside it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.file_hash import file_sha256

logger = logging.getLogger(__name__)

MODEL = "model.pt"
RECORD = "versions.json"
_FORMAT = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelVersion:
    """One kept model.

    Args:
        number: counted from 1.
        sha256: of its file.
        origin: "found" for weights that came with the bundle or from elsewhere, "trained" for the rest.
        time: when it was kept, ISO 8601 with the zone.
        training: record of the training that made it; empty for "found".
    """

    number: int
    sha256: str
    origin: str
    time: str
    training: dict[str, Any]


class ModelVersions:
    """The versions of one bundle of an app.

    The versions are not in the bundle's `models` folder, because MONAI Label offers every `.pt` there as a model. Which
    version is in use follows from the hash of `models/model.pt` and is written nowhere: a kill between two steps can
    leave a version that is not used, and never a wrong statement.

    Args:
        bundle: folder of the bundle, `<app>/model/<name>`.
        folder: where the versions are, `<app>/versions/<name>`.
    """

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.model = bundle / "models" / MODEL
        self.folder = folder

    def listed(self) -> list[ModelVersion]:
        """All kept versions, the oldest first.

        Raises:
            TrainingError: `versions.json` is damaged.
        """
        return [ModelVersion(**one) for one in self._record()["versions"]]

    def trainings(self) -> list[dict[str, Any]]:
        """The record of every judged training, the oldest first, also of those that did not replace the model.

        Raises:
            TrainingError: `versions.json` is damaged.
        """
        return list(self._record()["trainings"])

    def in_use(self) -> ModelVersion | None:
        """The version that `models/model.pt` is; None when there is no model, or one that was never kept."""
        found = file_sha256(self.model) if self.model.is_file() else None
        return next((one for one in self.listed() if one.sha256 == found), None)

    def note(self, training: dict[str, Any]) -> None:
        """Record a training whose candidate was not taken.

        Raises:
            TrainingError: the folder cannot be written.
        """
        record = self._record()
        record["trainings"].append(training)
        self._write(record)

    def install(self, candidate: Path, training: dict[str, Any], expected: str | None) -> ModelVersion:
        """Put a candidate into use; the model that was in use is kept first.

        Args:
            candidate: state dict of the new model.
            training: figures and circumstances, for the record.
            expected: SHA-256 of the model that the candidate was compared with; None if there was none.

        Returns:
            The new version.

        Raises:
            TrainingError: the model has changed since the comparison, or a folder cannot be written; the model in use
                stays whole.
        """
        present = file_sha256(self.model) if self.model.is_file() else None
        if present != expected:
            raise TrainingError(
                f"{self.model} was replaced while the candidate was trained, so that nothing is known of which is "
                f"better: the candidate is in {candidate}, train again."
            )
        if present is not None:
            self._keep(self.model, "found", {})
        version = self._keep(candidate, "trained", training)
        record = self._record()
        record["trainings"].append(training)
        self._write(record)
        self._put_to_use(version)
        return version

    def restore(self, number: int) -> ModelVersion:
        """Put an earlier version back into use; the one in use is kept first.

        Raises:
            TrainingError: no such version, its file is missing or damaged, or a folder cannot be written.
        """
        listed = self.listed()
        version = next((one for one in listed if one.number == number), None)
        if version is None:
            known = ", ".join(str(one.number) for one in listed) or "none is kept yet"
            raise TrainingError(f"{self.folder} has no version {number}: choose of {known}.")
        if self.model.is_file():
            self._keep(self.model, "found", {})
        self._put_to_use(version)
        logger.info("version %d of %s is in use again", number, self.model.parent.parent.name)
        return version

    def file_of(self, version: ModelVersion) -> Path:
        """Where the weights of a version are kept."""
        return self.folder / f"{version.number:04d}.pt"

    def _keep(self, weights: Path, origin: str, training: dict[str, Any]) -> ModelVersion:
        """Keep a file as the newest version, unless it is kept already."""
        found, listed = file_sha256(weights), self.listed()
        known = next((one for one in listed if one.sha256 == found), None)
        if known is not None:
            return known
        number = 1 + max((one.number for one in listed), default=0)
        version = ModelVersion(number, found, origin, datetime.now().astimezone().isoformat("T", "seconds"), training)
        _copy(weights, self.file_of(version))
        record = self._record()
        record["versions"].append(vars(version))
        self._write(record)
        return version

    def _put_to_use(self, version: ModelVersion) -> None:
        if self.model.is_file() and file_sha256(self.model) == version.sha256:
            return
        source = self.file_of(version)
        if not source.is_file() or file_sha256(source) != version.sha256:
            raise TrainingError(
                f"{source} is missing or damaged, so the model was left as it is: choose another version."
            )
        scripted = self.model.with_suffix(".ts")
        if scripted.is_file():  # of the model that goes out of use: whoever finds it must not take it for the new one
            kept = self.folder / f"{file_sha256(scripted)[:16]}.ts"
            _copy(scripted, kept)
            scripted.unlink()
            logger.info("%s belongs to an earlier model and is kept as %s", scripted, kept)
        _copy(source, self.model)

    def _record(self) -> dict[str, Any]:
        file = self.folder / RECORD
        if not file.is_file():
            return {"format": _FORMAT, "versions": [], "trainings": []}
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']}")
            for one in record["versions"]:
                ModelVersion(**one)
            record["trainings"] = list(record["trainings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{file} cannot be read as the record of the versions ({error!r}): move it away with the .pt files "
                "beside it, and a new one is begun."
            ) from error
        return dict(record)

    def _write(self, record: dict[str, Any]) -> None:
        text = json.dumps(record, indent=2) + "\n"
        try:
            write_durably(self.folder / RECORD, lambda file: file.write(text.encode()))
        except OSError as error:
            raise _unwritable(self.folder / RECORD, error) from error


def _copy(source: Path, target: Path) -> None:
    """Copy, whole or not at all; never a link: a program that writes into one of the two must not change the other."""
    try:
        with source.open("rb") as stream:
            write_durably(target, lambda file: shutil.copyfileobj(stream, file, _CHUNK))
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(file: Path, error: OSError) -> TrainingError:
    reason = error.strerror or os.strerror(error.errno or 0)
    return TrainingError(f"{file} could not be written ({reason}): free space there or give the folder's rights.")
