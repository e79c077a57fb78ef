"""Jobs on embeddings of a study's classification tasks: the ranking without fine-tuning, and points of a plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_ssl_transfer.study.records import write_record

if TYPE_CHECKING:
    from monai_ssl_transfer.evaluation.probes.task import EncoderSource, TaskSource

_ELSEWHERE = ("dataset_dir", "encoder_weights", "label_fraction", "seed", "output_dir")


def task_of(spec: dict[str, Any]) -> TaskSource:
    """Return the task of a job's arguments as probes take it."""
    from monai_ssl_transfer.evaluation.probes.task import TaskSource

    settings = {name: value for name, value in spec["settings"].items() if name not in _ELSEWHERE}
    data = tuple(Path(one) for one in spec["data"])
    return TaskSource(spec["bundle"], data, tuple(Path(one) for one in spec["overlays"]), settings)


def encoder_of(encoder: dict[str, Any], seed: int) -> EncoderSource:
    """Return an encoder of a job's arguments as probes take it."""
    from monai_ssl_transfer.evaluation.probes.task import EncoderSource

    file = None if encoder["file"] is None else Path(encoder["file"])
    return EncoderSource(encoder["name"], file, encoder["architecture"], seed)


def rank_task(spec: dict[str, Any]) -> dict[str, Any]:
    """Rank the encoders of a study on one task and write ``ranking/<task>.json``.

    Args:
        spec: "file", "task", "encoders", "seed", "identity" and what `task_of` takes, as JSON.
    """
    from monai_ssl_transfer.evaluation.probes.task_rank import rank_encoders

    encoders = [encoder_of(one, spec["seed"]) for one in spec["encoders"]]
    found = rank_encoders(task_of(spec), encoders, Path(spec["cache"]), seed=spec["seed"])
    write_record(Path(spec["file"]), {**found, "task": spec["task"], "identity": spec["identity"]})
    return {"file": spec["file"]}


def draw_embeddings(spec: dict[str, Any]) -> dict[str, Any]:
    """Lay one encoder's embeddings of a task's test images in a plane and write the points.

    Args:
        spec: "file", "encoder", "method", "seed", "identity" and what `task_of` takes, as JSON.
    """
    from monai_ssl_transfer.evaluation.features.plane import plane
    from monai_ssl_transfer.evaluation.probes.task_vectors import task_vectors

    source = encoder_of(spec["encoder"], spec["seed"])
    test = task_vectors(task_of(spec), source, Path(spec["cache"]), seed=spec["seed"])["test"]
    points = plane(test.vectors.numpy(), spec["method"], spec["seed"])
    if test.multilabel:  # a point has one colour: the first finding that is there
        labels = [next((n for n, there in enumerate(row) if there), -1) for row in test.targets.tolist()]
    else:
        labels = test.targets.tolist()
    record = {
        "method": spec["method"],
        "points": [[float(x), float(y)] for x, y in points.tolist()],
        "labels": labels,
        "class_names": list(test.class_names),
        "identity": spec["identity"],
    }
    write_record(Path(spec["file"]), record)
    return {"file": spec["file"]}
