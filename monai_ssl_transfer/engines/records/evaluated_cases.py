"""Which cases an evaluation judged, and whether the judged run had trained on them or chosen its epoch by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_RECORDS = ("frames.json", "cases.json")
_NAMES = ("name", "case")


def evaluated_cases(settings: Mapping[str, Any], computed: Mapping[str, Any]) -> dict[str, Any]:
    """What to remember of an evaluation's cases: numbers only, as names may be those of patients.

    Args:
        settings: merged configuration of the evaluation.
        computed: its settings as they were computed, with "cases" (photographs, volumes) or "slices".

    Returns:
        "part" ("test", "validation", "train", "all", or "named" cases), "cases" (their number), "in_training" and
        "in_validation" (how many of them the run's record lists there; None without a record) and "same_folder"
        (whether they were read from the folder of the training; None if that is unknown). Empty where the
        configuration has neither.
    """
    slices = computed.get("slices")
    if isinstance(slices, Mapping):  # the record's own patients, by their keys
        judged, trained = (set(np.asarray(slices[part])[:, 0].tolist()) for part in ("validation", "train"))
        numbers = {"cases": len(judged), "in_training": len(judged & trained), "in_validation": len(judged)}
        return {"part": "validation", **numbers, "same_folder": None}
    cases = computed.get("cases")
    if not isinstance(cases, Mapping):
        return {}
    names = [_name(case) for case in cases.get("evaluate", cases.get("validation", ()))]
    run = Path(str(computed.get("run_dir", "")))
    record = next((_read(run / file) for file in _RECORDS if (run / file).is_file()), None)
    part = settings.get("evaluate_part") or ("named" if settings.get("validation_cases") else "validation")
    found: dict[str, Any] = {"part": part, "cases": len(names), "same_folder": _same_folder(settings, run)}
    for key, listed in (("in_training", "train"), ("in_validation", "validation")):
        found[key] = None if record is None else len(set(names) & {str(name) for name in record.get(listed, ())})
    return found


def _name(case: Any) -> str:
    return next((str(case[key]) for key in _NAMES if key in case), "") if isinstance(case, Mapping) else str(case)


def _same_folder(settings: Mapping[str, Any], run: Path) -> bool | None:
    """Names alone do not tell: every copy of a public layout calls its first case 0."""
    trained = _read(run / "config.json").get("dataset_dir")
    judged = settings.get("dataset_dir")
    if not isinstance(trained, str) or not isinstance(judged, str | Path):
        return None
    return Path(trained).expanduser().resolve() == Path(judged).expanduser().resolve()


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
