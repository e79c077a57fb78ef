"""Scores of epistemic uncertainty for the images of a datastore, as MONAI Label's scoring."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.tasks.infer.bundle import BundleInferTask

from monai_ssl_transfer.errors import DataError, UserError
from monai_ssl_transfer.label.uncertainty import DisagreeingNetwork

logger = logging.getLogger(__name__)

SAMPLES = 5
SCORE_SUFFIX = "_uncertainty"
_SCORED = ("segmentation", "classes")


def score_key(bundle: str) -> str:
    """Under which key of an image's info the scores of a bundle are."""
    return f"{bundle}{SCORE_SUFFIX}"


def can_be_scored(task: BundleInferTask) -> bool:
    """Whether a bundle gives classes of pixels or images; boxes and depths are left out."""
    try:
        metadata = json.loads((Path(task.bundle_path) / "configs" / "metadata.json").read_text(encoding="utf-8"))
        outputs = metadata["network_data_format"]["outputs"]
        return next(iter(outputs.values())).get("format") in _SCORED
    except (OSError, ValueError, KeyError, StopIteration):
        return False


def make_scoring(tasks: Mapping[str, BundleInferTask]) -> dict[str, ScoringMethod]:
    """A scoring method for every bundle that can be scored, by name.

    Args:
        tasks: inference by name of the bundle.
    """
    return {name: UncertaintyScoring(task) for name, task in tasks.items() if can_be_scored(task)}


class UncertaintyScoring(ScoringMethod):
    """Scores unlabelled images by the mutual information of a bundle's predictions under dropout.

    A score holds for one model: when another one is trained, images are scored again. Two values per image go into the
    datastore: ``<bundle>_uncertainty`` (nats per pixel, or per image of a classification) and
    ``<bundle>_uncertainty_model``, what the model was.

    Args:
        task: inference of the bundle.
        samples: draws of dropout per image.
    """

    def __init__(self, task: BundleInferTask, samples: int = SAMPLES) -> None:
        self.name = Path(task.bundle_path).name
        super().__init__(f"Uncertainty of {self.name} (mutual information under dropout)")
        self.task = task
        self.samples = samples
        self.key = score_key(self.name)

    def stale(self, datastore: Datastore) -> list[str]:
        """Unlabelled images whose score is missing or of another model; none while there is no model.

        Cheap enough to be asked at every request.
        """
        version = self._version() if can_be_scored(self.task) else ""
        if not version:
            return []
        images = sorted(datastore.get_unlabeled_images())
        return [one for one in images if datastore.get_image_info(one).get(f"{self.key}_model") != version]

    def is_stale(self, datastore: Datastore) -> bool:
        """Whether there is anything to score."""
        return bool(self.stale(datastore))

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what is stale.

        Args:
            request: "max_samples": images at most (0: all); "simulation_size": draws of dropout; "device".
            datastore: gets the scores.

        Returns:
            "total" unlabelled images, "executed", "skipped" (had a score), "failed" (a sentence by image id) and
            "latency" in seconds.

        Raises:
            DataError: there is no trained model, or one of boxes or depths.
        """
        begin = time.monotonic()
        if not can_be_scored(self.task):
            raise DataError(f"{self.name} gives no classes, so it is not scored: choose images with ssl_diverse.")
        version = self._version()
        if not version:
            raise DataError(f"{self.name} has no trained weights, so it cannot be uncertain: train it first.")
        waiting = self.stale(datastore)
        total = len(datastore.get_unlabeled_images())
        most = int(request.get("max_samples") or 0)
        failed: dict[str, str] = {}
        done = 0
        for image_id in waiting[:most] if most else waiting:
            try:
                value = self.score(datastore.get_image_uri(image_id), request)
            except (UserError, OSError, ValueError, RuntimeError) as error:
                failed[image_id] = str(error)
                logger.warning("image %s was not scored: %s", image_id, error)
                continue
            if image_id in datastore.list_images():  # it may have been removed meanwhile
                datastore.update_image_info(image_id, {self.key: value, f"{self.key}_model": version})
                done += 1
        self.task.clear_cache()
        return {
            "total": total,
            "skipped": total - len(waiting),
            "executed": done,
            "failed": failed,
            "latency": round(time.monotonic() - begin, 3),
        }

    def score(self, file: str, request: Mapping[str, Any] | None = None) -> float:
        """Uncertainty of one image, the same at every call.

        Args:
            file: of the image.
            request: as for the call.

        Returns:
            Mean mutual information, nats.
        """
        asked = dict(request or {})
        wanted = str(asked.get("device") or "cuda")
        device = wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"
        data = dict(self.task.config()) | {"image": file, "image_path": file, "device": device, "logging": "error"}
        data.pop("model_filename", None)
        transforms = self.task.pre_transforms(data)
        data = self.task.run_pre_transforms(data, transforms)
        samples = max(2, int(asked.get("simulation_size") or self.samples))
        measured = DisagreeingNetwork(self.task._get_network(device, None), self._exclusive(), samples)
        image = data[self.task.input_key]
        inputs = (image if torch.is_tensor(image) else torch.from_numpy(image))[None].to(device)
        with torch.no_grad():
            self.task.inferer(data)(inputs, measured)
        return measured.score

    def _exclusive(self) -> bool:
        config = self.task.bundle_config
        several = [one for one in ("overlapping", "multilabel") if one in config]
        return not any(bool(config.get_parsed_content(one)) for one in several)

    def _version(self) -> str:
        file = self.task.get_path() if self.task.is_valid() else None
        if not file or not Path(file).is_file():
            return ""
        found = Path(file).stat()
        return f"{found.st_size}-{found.st_mtime_ns}"
