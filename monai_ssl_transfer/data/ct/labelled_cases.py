"""Which labelled volumes are trained on, which validate and which are held out for the test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.data.ct.layouts import liver_cases
from monai_ssl_transfer.data.recorded_split import NO_TEST_CASE, part_to_judge, record_split, recorded_split
from monai_ssl_transfer.data.splits import explicit_split, load_or_make_split, nested_fractions
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

Case = dict[str, str]
PARTS = ("train", "validation", "test")
Names = Sequence[str | int] | None


def divide_cases(
    dataset_dir: str | Path,
    output_dir: str | Path,
    train_cases: Names = None,
    validation_cases: Names = None,
    label_fraction: float = 1.0,
    validation_fraction: float = 0.2,
    seed: int = 0,
    split_seed: int | None = None,
    test_cases: Names = None,
    test_fraction: float = 0.2,
) -> dict[str, list[Case]]:
    """Divide the cases of a liver data set, by name or by a seeded draw that is kept in `split.json`.

    The names that are used are recorded in `cases.json` for the evaluation.

    Args:
        dataset_dir: LiTS or MSD Task03 folder.
        output_dir: folder of the run.
        train_cases: names of the training cases; None takes all that are not named or drawn for another part.
        validation_cases: names of the validation cases; None draws them, or, where training cases are named, takes all
            that are not named.
        label_fraction: share of the training cases that is used.
        validation_fraction: share of the cases that a draw keeps for validation.
        seed: of the draw of the label fraction.
        split_seed: of the division; None: `seed`.
        test_cases: names of the cases that are held out; None draws them, or, where training cases are named, holds
            none out.
        test_fraction: share of the cases that a draw holds out.

    Returns:
        {"train": [...], "validation": [...], "test": [...]}, each case with "case", "image" and "label".

    Raises:
        DataError: unknown names, a case in two parts, no case to train or to validate on, or a data set that has
            changed since the draw.
    """
    draw = DrawnDivision(label_fraction, validation_fraction, seed, split_seed, test_fraction)
    named = named_parts(train_cases, validation_cases, test_cases)
    return divide_listed(liver_cases(dataset_dir), output_dir, named, draw)


@dataclass(frozen=True)
class DrawnDivision:
    """How cases are drawn: shares and seeds as in `divide_cases`."""

    label_fraction: float = 1.0
    validation_fraction: float = 0.2
    seed: int = 0
    split_seed: int | None = None
    test_fraction: float = 0.2


def named_parts(train: Names = None, validation: Names = None, test: Names = None) -> dict[str, list[str]]:
    """Names of cases by part, as text; none where a part is not named."""
    return {part: _texts(names) for part, names in zip(PARTS, (train, validation, test), strict=True)}


def divide_listed(
    cases: Sequence[dict[str, Any]],
    output_dir: str | Path,
    named: Mapping[str, Sequence[str]],
    draw: DrawnDivision,
) -> dict[str, list[dict[str, Any]]]:
    """Divide listed cases, by patient where a case names its ``"patient"``; see `divide_cases`.

    Args:
        cases: each with "case".
        output_dir: folder of the run.
        named: names by part (`named_parts`).
        draw: shares and seeds.
    """
    names = [str(case["case"]) for case in cases]
    patients = [str(case.get("patient", case["case"])) for case in cases]
    drawn = _shares_to_draw(named, draw)
    taken = {name for listed in named.values() for name in listed}
    rest = [name for name in names if name not in taken]
    listed = {part: list(named[part]) for part in PARTS}
    for part in ("train", "validation"):
        if part not in drawn:
            listed[part] = listed[part] or rest
    split = explicit_split(names, **listed, groups=patients, required=[part for part in PARTS[:2] if part not in drawn])
    if drawn:
        file = Path(output_dir) / "split.json"
        split.update(_draw(file, split["train"], patients, drawn, draw))
    elif draw.label_fraction < 1:
        kept = nested_fractions([patients[i] for i in split["train"]], None, [draw.label_fraction], draw.seed)
        split["train"] = [split["train"][i] for i in kept[draw.label_fraction]]
    if drawn.get("test") and not split["test"]:
        logger.warning(NO_TEST_CASE)
    record_split(Path(output_dir) / "cases.json", {part: [names[i] for i in split[part]] for part in PARTS})
    return {part: [cases[i] for i in split[part]] for part in PARTS}


def _shares_to_draw(named: Mapping[str, Sequence[str]], draw: DrawnDivision) -> dict[str, float]:
    """Shares of the parts that are drawn from what nobody named; of named training cases the rest is known."""
    if named["train"]:
        return {}
    shares = {} if named["validation"] else {"validation": draw.validation_fraction}
    if not named["test"] and draw.test_fraction:
        shares["test"] = draw.test_fraction
    return shares


def _draw(
    file: Path, pool: Sequence[int], patients: Sequence[str], shares: Mapping[str, float], draw: DrawnDivision
) -> dict[str, list[int]]:
    split = load_or_make_split(
        file,
        [patients[index] for index in pool],
        parts={"train": 1 - sum(shares.values()), **shares},
        seed=draw.seed if draw.split_seed is None else draw.split_seed,
        fraction=draw.label_fraction,
        fraction_seed=draw.seed,
    )
    return {part: [pool[index] for index in found] for part, found in split.items()}


def cases_to_evaluate(
    dataset_dir: str | Path,
    run_dir: str | Path,
    validation_cases: Names = None,
    test_cases: Names = None,
    part: str | None = None,
) -> dict[str, list[Case]]:
    """The cases of an evaluation: those named, else those that the training run held out.

    Args:
        dataset_dir: LiTS or MSD Task03 folder.
        run_dir: folder of the training run, with its `cases.json`.
        validation_cases: names; None takes the record of the run. The run's own validation cases are not judged in
            place of its test part.
        test_cases: names; None takes the record of the run.
        part: "train", "validation" or "test"; "all" takes every case, recorded or not (another data set); None takes
            what is named, else the test part, else (a run without one) the validation part.

    Returns:
        {"train": [...], "evaluate": [...]}; "train" is empty where there is no record.

    Raises:
        DataError: unknown part, an empty one, a name that the data set lacks, or neither names nor a record.
    """
    named = named_parts(None, validation_cases, test_cases)
    return listed_to_evaluate(liver_cases(dataset_dir), dataset_dir, run_dir, named, part)


def listed_to_evaluate(
    listed: Sequence[dict[str, Any]],
    dataset_dir: str | Path,
    run_dir: str | Path,
    named: Mapping[str, Sequence[str]],
    part: str | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """The cases of an evaluation among those listed; see `cases_to_evaluate`."""
    cases = {str(case["case"]): case for case in listed}
    record = Path(run_dir) / "cases.json"
    needed = part != "all" and not any(named.values())
    recorded: dict[str, list[str]] = {name: [] for name in PARTS}
    if needed or record.is_file():
        recorded = recorded_split(record, optional=("test",))
    part = part_to_judge(part, named, recorded)
    judged = list(cases) if part == "all" else list(named[part] or recorded[part])
    if not judged:
        raise DataError(f"{record} has no case for {part}: train with a {part}_fraction, or evaluate another part.")
    lacking = [name for name in judged if name not in cases]
    if lacking:
        raise DataError(
            f"{dataset_dir} lacks the case(s) {', '.join(lacking)}: name others with --test_cases, or evaluate the "
            "part 'all' of another data set."
        )
    train = [cases[name] for name in recorded["train"] if name in cases]
    return {"train": train, "evaluate": [cases[name] for name in judged]}


def _texts(cases: Sequence[str | int] | str | int | None) -> list[str]:
    if cases is None:
        return []
    return [str(cases)] if isinstance(cases, str | int) else [str(case) for case in cases]
