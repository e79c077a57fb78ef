"""One JSON line per validation, so that the curve of a training can be drawn without reading event files."""

from __future__ import annotations

import json
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events


class ValidationRecords:
    """MONAI handler for the validation engine: append its metrics to ``validation.jsonl``.

    Args:
        folder: the run's ``output_dir``; a file of an earlier run is replaced at the first validation.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "validation.jsonl"
        self.records: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator (on the first process only)."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Engine) -> None:
        """Add one line: the epoch of the training and every number in ``engine.state.metrics``."""
        metrics = {name: value for name, value in engine.state.metrics.items() if isinstance(value, (int, float))}
        self.records.append(json.dumps({"epoch": engine.state.epoch, **metrics}))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(f"{line}\n" for line in self.records))
