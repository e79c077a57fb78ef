"""MLflow: one run per cell of a study, with its settings, its metrics and its record."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.planning.identity import hash_of
from monai_ssl_transfer.study.planning.matrix import PlannedCell, StudyPlan
from monai_ssl_transfer.study.records import read_record, write_record

_KNOWN_FILE = "mlflow.json"


class MlflowLog:
    """Logs every cell that is run; a cell that is run again goes on in its run.

    Args:
        plan: the study; its title is the experiment.
        out: its folder; mlflow.json in it tells which run is which cell's.
        uri: of the tracking server, or ``sqlite:///FILE``.

    Raises:
        StudyError: MLflow is not installed, or there is nothing at the address.
    """

    def __init__(self, plan: StudyPlan, out: Path, uri: str) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise StudyError("--mlflow needs MLflow: pip install 'monai-ssl-transfer[study]'.") from error
        self._file = out / _KNOWN_FILE
        self._uri = uri
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(plan.title)
            self._experiment = found.experiment_id if found else self._client.create_experiment(plan.title)
        except Exception as error:  # each kind of store raises its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StudyError(
                f"--mlflow {uri} cannot be used ({reason}): give a server that runs, or sqlite:///FILE."
            ) from (error)

    def __call__(self, cell: PlannedCell, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Log one cell.

        Args:
            cell: its place in the plan.
            record: as in cell.json.
            rows: its values, as `cell_values.values_of` gives them.
        """
        known = self._known()
        run = known.get(cell.id) or self._new_run(cell, record)
        for name in ("seconds", "peak_memory_bytes", "trainable_parameters", "training_images"):
            if record.get(name) is not None:
                self._client.log_metric(run, name, float(record[name]))
        for name, value in means(rows).items():
            self._client.log_metric(run, name, value)
        for name in ("status", "reason", "device"):
            self._client.set_tag(run, name, str(record.get(name, "")))
        self._client.set_tag(run, "identity", hash_of(record.get("identity")))
        self._client.set_terminated(run, "FINISHED" if record["status"] == "done" else "FAILED")
        write_record(self._file, {"uri": self._uri, "runs": {**known, cell.id: run}})

    def _known(self) -> dict[str, str]:
        record = read_record(self._file) or {}
        return dict(record["runs"]) if record.get("uri") == self._uri else {}

    def _new_run(self, cell: PlannedCell, record: Mapping[str, Any]) -> str:
        run: str = self._client.create_run(self._experiment, run_name=cell.id).info.run_id
        for name, value in {**record["cell"], "kind": record["kind"], "bundle": record["bundle"]}.items():
            self._client.log_param(run, name, value if isinstance(value, str | int | float) else json.dumps(value))
        return run


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of every metric over the cases of one cell, under a name that MLflow takes."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values["".join(one if one.isalnum() or one in "_-. /" else "_" for one in row["metric"])].append(row["value"])
    return {name: sum(found) / len(found) for name, found in values.items()}
