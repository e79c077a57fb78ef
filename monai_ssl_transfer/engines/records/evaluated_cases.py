"""Which cases an evaluation judged, and whether the judged run had trained on them or chosen its epoch by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_RECORDS = ("frames.json", "cases.json")
_PATIENTS = "patients.json"
_PARTS = ("train", "validation", "test")
_NAMED = ("test_cases", "validation_cases")
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
    run = Path(str(computed.get("run_dir", "")))
    slices = computed.get("slices")
    if isinstance(slices, Mapping):
        return _evaluated_slices(settings, slices, run)
    cases = computed.get("cases")
    if not isinstance(cases, Mapping):
        return {}
    names = [_name(case) for case in cases.get("evaluate", cases.get("validation", ()))]
    record = next((_read(run / file) for file in _RECORDS if (run / file).is_file()), None)
    same_folder = _same_folder(settings, run)
    part = _part(settings, set(names), record if same_folder is not False else None)
    found: dict[str, Any] = {"part": part, "cases": len(names), "same_folder": same_folder}
    for key, listed in (("in_training", "train"), ("in_validation", "validation")):
        found[key] = None if record is None else len(set(names) & {str(name) for name in record.get(listed, ())})
    return found


def _part(settings: Mapping[str, Any], names: set[str], record: Mapping[str, Any] | None) -> str:
    """The part that was judged: as asked for, or the recorded one of which these are the cases."""
    asked, named = settings.get("evaluate_part"), any(settings.get(name) for name in _NAMED)
    if asked and (asked == "all" or not named):
        return str(asked)
    for part in ("test", "validation"):
        if record is not None and names == {str(name) for name in record.get(part, ())}:
            return part
    return "named" if named else "validation"


def _evaluated_slices(settings: Mapping[str, Any], slices: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Slices are those of the record's own patients, by their keys, unless a store is judged as a whole."""
    judged, trained, validated, held_out = (
        {int(row[0]) for row in np.asarray(slices.get(part, ()))} for part in ("evaluate", *_PARTS)
    )
    asked = settings.get("evaluate_part") or ("test" if held_out and judged == held_out else "validation")
    found: dict[str, Any] = {"part": str(asked), "cases": len(judged)}
    known = asked != "all" or (run / _PATIENTS).is_file()
    found["in_training"] = len(judged & trained) if known else None
    found["in_validation"] = len(judged & validated) if known else None
    return found | {"same_folder": None}


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
