"""The job of one cell of a study: train and evaluate with a bundle, or a probe on frozen embeddings."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_ssl_transfer.evaluation.result_names import JUDGED_FILE
from monai_ssl_transfer.study.planning.identity import CODE, changed_parts, hash_of_code
from monai_ssl_transfer.study.records import read_record, write_record

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

CELL_FILE = "cell.json"
MODEL = Path("run") / "models" / "model.pt"
_TRAINED_FILE = "trained.json"


def run_cell(spec: dict[str, Any]) -> dict[str, Any]:
    """Run one cell; its record is written last, so that a cell without one was not run to its end.

    Args:
        spec: what `study.planning.specs.Specs.cell` gives, as JSON.

    Returns:
        The record, as in cell.json.

    Raises:
        UserError: what the bundle or the probe found wrong.
    """
    folder, start = Path(spec["folder"]), time.perf_counter()
    identity = {**spec["identity"], CODE: hash_of_code()}  # of this process: the package may have been edited since
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CELL_FILE).unlink(missing_ok=True)
    facts = _run_probe(spec, folder) if spec["kind"] == "probe" else _run_bundle(spec, folder)
    record = {
        **cell_record(spec, "done"),
        "seconds": facts.pop("seconds_before", 0.0) + time.perf_counter() - start,
        "cpu_seconds": facts.pop("cpu_seconds_before", 0.0) + _cpu_seconds(),  # wall clock depends on others
        "peak_memory_bytes": peak_memory(),
        **facts,
        "identity": identity,
    }
    write_record(folder / CELL_FILE, record)
    return record


def cell_record(spec: dict[str, Any], status: str, reason: str = "", attempts: int = 1) -> dict[str, Any]:
    """Return the part of a cell's record that does not come from its run."""
    return {
        "format": 1,
        "cell": spec["cell"],
        "status": status,
        "reason": reason,
        "kind": spec["kind"],
        "bundle": spec["bundle"],
        "identity": spec["identity"],
        "seconds": 0.0,
        "peak_memory_bytes": 0,
        "device": "",
        "training_images": None,
        "trainable_parameters": None,
        "evaluation": "eval",
        "model": None,
        "attempts": attempts,
    }


def peak_memory() -> int:
    """Largest memory of this process so far, in bytes; of the GPU where one was used."""
    import resource

    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used) if sys.platform == "darwin" else int(used) * 1024


def _cpu_seconds() -> float:
    """Processor time of this process with its imports, and of its loaders that have ended."""
    return sum(os.times()[:4])


def _run_bundle(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    facts = _trained_before(spec, folder) or _train(spec, folder)
    shutil.rmtree(folder / "eval", ignore_errors=True)
    judged = _evaluate(spec, folder)
    if spec["robustness"] is None:
        shutil.rmtree(folder / "robustness", ignore_errors=True)  # of an earlier plan
    else:
        _robustness(spec, folder)
    return {**facts, **judged, "model": str(MODEL)}


def _trained_before(spec: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Facts of a training of this cell that ended before the process was lost."""
    found = dict(read_record(folder / _TRAINED_FILE) or {})
    changed = changed_parts(found.pop("identity", None), spec["training_identity"], spec["any_code"])
    return None if changed or not (folder / MODEL).is_file() else found


def _train(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train anew: what an interrupted training left is removed, unless its bundle resumes exactly."""
    from monai_ssl_transfer.engines.bundle_run import run_bundle

    start = time.perf_counter()
    (folder / _TRAINED_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / "robustness", ignore_errors=True)  # of the model before
    if not (folder / "run" / "checkpoints").is_dir():
        shutil.rmtree(folder / "run", ignore_errors=True)
    settings = {**spec["settings"], "output_dir": str(folder / "run")}
    facts: dict[str, Any] = run_bundle(spec["files"], settings, spec["metadata"], _training_facts)
    record = {**facts, "identity": spec["training_identity"], "seconds_before": time.perf_counter() - start}
    write_record(folder / _TRAINED_FILE, {**record, "cpu_seconds_before": _cpu_seconds()})
    return facts


def _training_facts(parser: ConfigParser) -> dict[str, Any]:
    network = parser.get_parsed_content("network_def")
    return {
        "device": str(parser.get_parsed_content("device")),
        "training_images": len(parser.get_parsed_content("train#dataset")),
        "trainable_parameters": sum(one.numel() for one in network.parameters() if one.requires_grad),
    }


def _evaluate(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    from monai_ssl_transfer.engines.bundle_run import run_bundle
    from monai_ssl_transfer.engines.records.run_config import CONFIG_FILE
    from monai_ssl_transfer.errors import DataError
    from monai_ssl_transfer.evaluation.robustness_cases import judged_cases
    from monai_ssl_transfer.evaluation.robustness_grid import write_cases

    def judge(parser: ConfigParser) -> dict[str, Any]:
        try:
            metric, higher, rows = judged_cases(parser)
        except DataError as error:  # a bundle's metric without values per case still has its values of the whole set
            return {"judged": None, "not_judged": str(error)}
        write_cases(folder / "eval" / JUDGED_FILE, rows)
        return {"judged": metric, "higher_is_better": higher}

    settings = {
        **spec["settings"],
        "model_file": str(folder / MODEL),
        "run_dir": str(folder / "run"),
        "output_dir": str(folder / "eval"),
        **spec["evaluation"],
    }
    files = [folder / "run" / CONFIG_FILE, spec["evaluate"]]
    judged: dict[str, Any] = run_bundle(files, settings, spec["metadata"], judge)
    return judged


def _robustness(spec: dict[str, Any], folder: Path) -> None:
    from monai_ssl_transfer.evaluation.robustness_grid import GridOptions, run_grid
    from monai_ssl_transfer.evaluation.robustness_report import write_report
    from monai_ssl_transfer.views.corruptions import SEVERITIES

    asked = spec["robustness"]
    remove_unasked(folder / "robustness" / "cells", asked)
    options = GridOptions(
        bundle=spec["bundle"],
        weights=folder / "run",
        data=tuple(Path(one) for one in spec["data"]),
        out=folder / "robustness",
        corruptions=tuple(asked.get("corruptions", ())),
        severities=tuple(asked.get("severities", SEVERITIES)),
        settings=spec["evaluation"],
        seed=asked.get("seed", 0),
    )
    write_report(run_grid(options), folder / "robustness", spec["bundle"])


def remove_unasked(cells: Path, asked: dict[str, Any]) -> None:
    """Remove what an earlier plan asked for: a report compares only runs with the same corruptions and severities.

    Args:
        cells: of a robustness grid; need not be there.
        asked: "corruptions" and "severities"; one that is not named is not limited.
    """
    for file in list(cells.glob(f"*/*/{CELL_FILE}")):  # the clean cell lies higher
        severity, corruption = file.parent.name, file.parent.parent.name
        names, severities = asked.get("corruptions"), asked.get("severities")
        if (names and corruption not in names) or (severities and int(severity) not in severities):
            shutil.rmtree(file.parent)


def _run_probe(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    from monai_ssl_transfer.evaluation.probes.task_options import probe_with
    from monai_ssl_transfer.evaluation.probes.task_run import run_probe
    from monai_ssl_transfer.study.running.embedding_jobs import encoder_of, task_of

    shutil.rmtree(folder / "eval", ignore_errors=True)
    cell = spec["cell"]
    file = run_probe(
        task_of(spec),
        encoder_of(spec["encoder"], cell["seed"]),
        probe_with(spec["probe"], spec["probe_settings"]),
        folder / "eval",
        cell["seed"],
        cell["fraction"],
        spec["cache"],
        _device(),
        spec["average"],
    )
    found = json.loads(file.read_text(encoding="utf-8"))
    facts = {"device": _device(), "training_images": found["cases"]["train"], "trainable_parameters": None}
    if spec["probe"] == "few_shot":
        chosen = found["chosen"]
        facts |= {"few_shot": {"shots": chosen["shots"], "probe": chosen["probe"], "draws": len(chosen["draws"])}}
        facts["training_images"] = max(len(one["cases"]) for one in chosen["draws"])
    return facts


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
