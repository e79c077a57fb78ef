"""Training from MONAI Label: the annotators' labels fine-tune a bundle, and a worse model never replaces a better."""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import device_list, name_to_device

from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.label.training_cases import TRAINING, VALIDATION, divide, labelled_cases, refuse_too_few
from monai_ssl_transfer.label.training_progress import (
    busy,
    is_training,
    latest_statistics,
    only_training,
    recorded_failure,
    update_progress,
)
from monai_ssl_transfer.label.training_request import TrainingRequest
from monai_ssl_transfer.label.training_run import CandidateTraining
from monai_ssl_transfer.label.versions import ModelVersions

logger = logging.getLogger(__name__)

_EPOCHS = 50
_TASK_PROCESS = "monailabel.interfaces.utils.app"


class BundleTraining(BundleTrainTask):  # type: ignore[misc]
    """Fine-tune a bundle of an app on the labelled images of its datastore.

    A candidate is trained in `<app>/runs/<name>/<time>`, where it cannot be served. Then the model in use and the
    candidate are measured on the same validation images, and the candidate replaces the model only if it is not worse.
    Whatever stops a training (DELETE /train, SIGKILL, a full disk) leaves the model in use as it was.

    Args:
        path: folder of the bundle, `<app>/model/<name>`.
        conf: of the app; unused, MONAI Label's tasks have it.
        encoder: SSL encoder for a bundle without a trained model; None takes `encoder/encoder.safetensors` of the
            bundle, if there is one.
    """

    def __init__(self, path: str, conf: dict[str, str], encoder: Path | None = None) -> None:
        super().__init__(str(path), conf)
        self.bundle = Path(path).resolve()
        app = self.bundle.parent.parent
        self.runs = app / "runs" / self.bundle.name
        self.versions = ModelVersions(self.bundle, app / "versions" / self.bundle.name)
        own = self.bundle / "encoder" / "encoder.safetensors"
        self.encoder = Path(encoder) if encoder is not None else own if own.is_file() else None

    def config(self) -> dict[str, Any]:
        """The options of a training that clients show, with their defaults."""
        epochs = self.bundle_config.get("epochs")
        shown = {} if not self.bundle_config.get("displayable_configs") else self._displayable()
        return {
            "device": device_list(),
            "pretrained": True,
            "max_epochs": epochs if isinstance(epochs, int) else _EPOCHS,
            "val_split": 0.2,
            "multi_gpu": True,
            "gpus": "all",
            **shown,
        }

    def stats(self) -> dict[str, Any]:
        """How far the latest training is, or how it ended; in `train_stats` of `/info`."""
        return latest_statistics(self.runs)

    def check(self, request: dict[str, Any], datastore: Datastore, running: bool = False) -> None:
        """Refuse what cannot be trained, before a process is started for it.

        Args:
            request: as for a training.
            datastore: as for a training.
            running: another training of this bundle may be running; this one is to wait for it.

        Raises:
            UserError: a setting is wrong, too few images are labelled, or this bundle is being trained.
        """
        TrainingRequest.read(request, self.config())
        refuse_too_few(len(datastore.get_labeled_images()))
        if not running and is_training(self.runs):
            raise busy(self.bundle.name)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train a candidate and put it into use if it is not worse.

        Args:
            request: MONAI Label's: "max_epochs", "val_split", "pretrained" (start from the model in use, if there is
                one, and not from the SSL encoder), "device", "multi_gpu", "gpus", "seed".
            datastore: whose images with a final label are used.

        Returns:
            The record of the training, as in `versions.json`.

        Raises:
            UserError: with one sentence; the model in use is as it was.
        """
        asked = TrainingRequest.read(request, self.config())
        with only_training(self.runs, self.bundle.name):
            self._clear_interrupted()
            folder = self.runs / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            with recorded_failure(folder):
                return self._train(folder, asked, datastore)

    def _train(self, folder: Path, asked: TrainingRequest, datastore: Datastore) -> dict[str, Any]:
        begun = {"state": "preparing", "epoch": 0, "total_epochs": asked.epochs, "start_ts": time.time()}
        update_progress(folder, begun)
        divided = divide(labelled_cases(datastore), asked.validation_share, asked.seed, self.runs)
        present = self.versions.model if self.versions.model.is_file() else None
        hash_before = file_sha256(present) if present else None
        run = CandidateTraining(
            bundle=self.bundle,
            folder=folder,
            training=[case.item for case in divided[TRAINING]],
            validation=[case.item for case in divided[VALIDATION]],
            epochs=asked.epochs,
            device=str(name_to_device(asked.device)),
            start=present if asked.pretrained else None,
            encoder=self.encoder,
            gpus=_gpus(asked),
            server=_server(),
            settings={"seed": asked.seed, **asked.shown},
        )
        started_from = _origin(run, self.versions)
        logger.info("%s is trained for %d epochs, from %s", self.bundle.name, asked.epochs, started_from)
        candidate = run.train()
        update_progress(folder, {"state": "judging"})
        metric, value = run.judge(candidate)
        before = run.judge(present)[1] if present else None
        record: dict[str, Any] = {"run": folder.name, "metric": metric, "candidate": value, "model_in_use": before}
        record |= {"replaced": before is None or value >= before, "started_from": started_from}
        record |= {"epochs": asked.epochs, "seed": asked.seed}
        record |= {part: len(cases) for part, cases in divided.items()}
        return self._decide(folder, candidate, record, hash_before)

    def _decide(self, folder: Path, candidate: Path, record: dict[str, Any], before: str | None) -> dict[str, Any]:
        name, figures = self.bundle.name, f"{record['metric']} {record['candidate']:.4f}"
        if record["replaced"]:
            version = self.versions.install(candidate, record, before)
            candidate.unlink()  # kept as the version
            message = f"version {version.number} of {name} is in use ({figures}{_compared(record, 'before')})"
            value = record["candidate"]
        else:
            self.versions.note(record)
            message = f"{name} stays as it was: the trained model is worse ({figures}{_compared(record, 'in use')})"
            value = record["model_in_use"]
        rmtree(folder / "cache", ignore_errors=True)
        ended = {"state": "done", "message": message, "value_in_use": value, "result": record, "ended": time.time()}
        update_progress(folder, ended)
        logger.info("%s", message)
        return record

    def _clear_interrupted(self) -> None:
        """Decoded scans of a training that was killed; its records and its unfinished model stay."""
        for cache in self.runs.glob("*/cache"):
            logger.info("%s of an earlier training is removed", cache)
            rmtree(cache, ignore_errors=True)

    def _displayable(self) -> dict[str, Any]:
        return dict(self.bundle_config.get_parsed_content("displayable_configs", instantiate=True))


def _gpus(asked: TrainingRequest) -> list[int]:
    if not asked.multi_gpu or torch.cuda.device_count() < 2:
        return []
    return list(range(torch.cuda.device_count())) if asked.gpus is None else list(asked.gpus)


def _server() -> int | None:
    """The server's process id, where this is the process that it started for a training."""
    started_as = getattr(sys.modules["__main__"].__spec__, "name", "")
    return os.getppid() if started_as == _TASK_PROCESS else None


def _origin(run: CandidateTraining, versions: ModelVersions) -> str:
    if run.start is not None:
        version = versions.in_use()
        return "the model that was there" if version is None else f"version {version.number}"
    return "scratch" if run.encoder is None else f"the SSL encoder {run.encoder.name}"


def _compared(record: dict[str, Any], when: str) -> str:
    return "" if record["model_in_use"] is None else f", {when} {record['model_in_use']:.4f}"
