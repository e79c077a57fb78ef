"""Which labelled volumes are trained on and which are kept for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.data.ct.layouts import liver_cases
from monai_ssl_transfer.data.recorded_split import record_split, recorded_split
from monai_ssl_transfer.data.splits import explicit_split, load_or_make_split, nested_fractions
from monai_ssl_transfer.errors import DataError

Case = dict[str, str]


def divide_cases(
    dataset_dir: str | Path,
    output_dir: str | Path,
    train_cases: Sequence[str | int] | None = None,
    validation_cases: Sequence[str | int] | None = None,
    label_fraction: float = 1.0,
    validation_fraction: float = 0.2,
    seed: int = 0,
    split_seed: int | None = None,
) -> dict[str, list[Case]]:
    """Divide the cases of a liver data set, by name or by a seeded draw that is kept in `split.json`.

    The names that are used are recorded in `cases.json` for the evaluation.

    Args:
        dataset_dir: LiTS or MSD Task03 folder.
        output_dir: folder of the run.
        train_cases: names of the training cases; None takes all that are not named for validation.
        validation_cases: names of the validation cases; None takes all that are not named for training.
        label_fraction: share of the training cases that is used.
        validation_fraction: share of the cases that a draw keeps for validation.
        seed: of the draw of the label fraction.
        split_seed: of the division; None: `seed`.

    Returns:
        {"train": [...], "validation": [...]}, each case with "case", "image" and "label".

    Raises:
        DataError: unknown names, a case on both sides, an empty side, or a data set that has changed since the draw.
    """
    draw = DrawnDivision(label_fraction, validation_fraction, seed, split_seed)
    return divide_listed(liver_cases(dataset_dir), output_dir, train_cases, validation_cases, draw)


@dataclass(frozen=True)
class DrawnDivision:
    """How cases are drawn: shares and seeds as in `divide_cases`."""

    label_fraction: float = 1.0
    validation_fraction: float = 0.2
    seed: int = 0
    split_seed: int | None = None


def divide_listed(
    cases: Sequence[dict[str, Any]],
    output_dir: str | Path,
    train_cases: Sequence[str | int] | None,
    validation_cases: Sequence[str | int] | None,
    draw: DrawnDivision,
) -> dict[str, list[dict[str, Any]]]:
    """Divide listed cases, by patient where a case names its ``"patient"``; see `divide_cases`."""
    names = [str(case["case"]) for case in cases]
    patients = [str(case.get("patient", case["case"])) for case in cases]
    if train_cases is None and validation_cases is None:
        parts = {"train": 1 - draw.validation_fraction, "validation": draw.validation_fraction}
        file = Path(output_dir) / "split.json"
        seed, share = draw.seed if draw.split_seed is None else draw.split_seed, draw.label_fraction
        split = load_or_make_split(file, patients, parts=parts, seed=seed, fraction=share, fraction_seed=draw.seed)
    else:
        train = _named(train_cases) or [name for name in names if name not in _named(validation_cases)]
        validation = _named(validation_cases) or [name for name in names if name not in train]
        split = explicit_split(names, train=train, validation=validation, groups=patients)
        share = draw.label_fraction
        if share < 1:
            kept = nested_fractions([patients[i] for i in split["train"]], None, [share], draw.seed)[share]
            split["train"] = [split["train"][i] for i in kept]
    record_split(Path(output_dir) / "cases.json", {part: [names[i] for i in found] for part, found in split.items()})
    return {part: [cases[i] for i in split[part]] for part in ("train", "validation")}


def cases_to_evaluate(
    dataset_dir: str | Path, run_dir: str | Path, validation_cases: Sequence[str | int] | None = None
) -> dict[str, list[Case]]:
    """The cases of an evaluation: those named, else those that the training run kept for validation.

    Args:
        dataset_dir: LiTS or MSD Task03 folder.
        run_dir: folder of the training run, with its `cases.json`.
        validation_cases: names; None takes the record of the run.

    Returns:
        As `divide_cases`; "train" is empty where there is no record.

    Raises:
        DataError: a name that the data set lacks, or neither names nor a record.
    """
    return listed_to_evaluate(liver_cases(dataset_dir), dataset_dir, run_dir, validation_cases)


def listed_to_evaluate(
    listed: Sequence[dict[str, Any]],
    dataset_dir: str | Path,
    run_dir: str | Path,
    validation_cases: Sequence[str | int] | None,
) -> dict[str, list[dict[str, Any]]]:
    """The cases of an evaluation among those listed; see `cases_to_evaluate`."""
    cases = {str(case["case"]): case for case in listed}
    record = Path(run_dir) / "cases.json"
    recorded = recorded_split(record) if record.is_file() or validation_cases is None else {"train": []}
    wanted = {"train": recorded["train"], "validation": _named(validation_cases) or recorded["validation"]}
    lacking = [name for name in wanted["validation"] if name not in cases]
    if lacking:
        raise DataError(f"{dataset_dir} lacks the case(s) {', '.join(lacking)}: name others with --validation_cases.")
    return {part: [cases[name] for name in names if name in cases] for part, names in wanted.items()}


def _named(cases: Sequence[str | int] | str | int | None) -> list[str]:
    if cases is None:
        return []
    return [str(cases)] if isinstance(cases, str | int) else [str(case) for case in cases]
