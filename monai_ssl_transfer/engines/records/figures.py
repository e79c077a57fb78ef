"""The figures of a run at a moment: as numbers to keep, and as a line to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from monai_ssl_transfer.engines.pretraining.pace import Pace, duration
from monai_ssl_transfer.engines.pretraining.schedules import rates
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer

# what a line shows of a record, in this order: name in the record, name in the line, form
_SHOWN = (
    ("loss", "loss", "{:.4f}"),
    ("learning_rate", "learning rate", "{:.3g}"),
    ("momentum", "momentum", "{:.5f}"),
    ("embedding_spread", "spread", "{:.3f}"),
    ("effective_rank", "rank", "{:.1f}"),
    ("knn_accuracy", "kNN", "{:.1%}"),
    ("images_per_second", "images/s", "{:.1f}"),
    ("wait", "data wait", "{:.0%}"),
)


def figures(record: Mapping[str, float]) -> dict[str, str]:
    """The figures of a record that are worth a line, by the name shown and as text.

    Args:
        record: as ``current_record`` makes it; what is not in it is left out, as is "skipped" while it is 0.
    """
    shown = {name: form.format(record[key]) for key, name, form in _SHOWN if key in record}
    if record.get("skipped"):
        shown["skipped"] = f"{record['skipped']:.0f}"
    return shown | {"left": duration(record["seconds_left"])}


def current_record(
    engine: PretrainingTrainer, optimizer: Optimizer, pace: Pace, scalars: Mapping[str, Any]
) -> dict[str, float]:
    """All that is known about a run at this moment.

    Args:
        engine: the trainer; its ``state.metrics`` are what kNN and the collapse monitor found.
        optimizer: its rates are of interest.
        pace: what measured the epoch under way.
        scalars: what the method's step gave, or the means of it: the loss and others.

    Returns:
        Plain numbers by name.
    """
    metrics = {name: float(value) for name, value in engine.state.metrics.items()}
    record = metrics | {name: float(value) for name, value in scalars.items()} | dict(rates(optimizer))
    return record | {
        "images_per_second": pace.images_per_second(),
        "wait": pace.wait_share(),
        "skipped": metrics.get("skipped", 0.0),
        "seconds": pace.seconds(),
        "seconds_left": pace.seconds_left(engine),
    }


def as_text(shown: Mapping[str, str]) -> str:
    """Figures in one line: ``loss 5.2000, ..., 0:12:00 left``."""
    told = dict(shown)
    left = told.pop("left")
    return ", ".join([*(f"{name} {value}" for name, value in told.items()), f"{left} left"])
