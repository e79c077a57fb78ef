"""Which photographs are trained on, which validate and which are held out for the test."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, read_names, refuse_same_names
from monai_ssl_transfer.data.recorded_split import record_split, recorded_split
from monai_ssl_transfer.data.splits import load_or_make_split, nested_fractions
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
HELD_OUT_FILES = "held_out_files"
"""Key in ``frames.json``: the ends of the paths (`path_end`) of what is held out for the test or left out."""

Names = Sequence[str] | str | Path | None


def divide_frames(
    cases: Sequence[Case],
    output_dir: str | Path,
    label_fraction: float = 1.0,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
    split_seed: int = 0,
    stratum: str | None = None,
    test_groups: Names = None,
    validation_groups: Names = None,
    test_fold: int | None = None,
) -> dict[str, list[Case]]:
    """Divide photographs by group, so that no scene, sequence or video is on two sides.

    The draw follows from ``split_seed`` and is kept in ``split.json``; ``seed`` draws the label fraction from the
    training groups (smaller fractions lie within larger ones), so that repetitions share validation and test. The names
    that are used are recorded in ``frames.json``, with the classes that a part lacks and the files that no pretraining
    may see; the log tells every part's size.

    Args:
        cases: with "name" and "group".
        output_dir: folder of the run.
        label_fraction: share of the training groups that is used.
        validation_fraction: share of the groups (that are not named) that is kept for validation.
        test_fraction: likewise, held out; 0 for none.
        seed: of the label fraction.
        split_seed: of the division.
        stratum: key of the class that every part shall have its share of ("class", or "label" where it is a class; of
            the path of a mask it counts whether there is one); None for none.
        test_groups: groups or cases that are held out instead of a drawn share: a list, or a text file of one name per
            line. Cases of the same group that are not named are left out altogether.
        validation_groups: likewise for validation.
        test_fold: number of the fold of an official split file ("fold" of the cases) that is held out.

    Returns:
        {"train": [...], "validation": [...], "test": [...]} in the order of the cases.

    Raises:
        DataError: too few groups, a class that no training group shows, an unknown name, a name in two parts, or a data
            set that has changed since the draw.
    """
    _check(cases, stratum)
    named = {
        "test": _named_cases(cases, test_groups, "test_groups") | _fold(cases, test_fold),
        "validation": _named_cases(cases, validation_groups, "validation_groups"),
    }
    split, left_out = _place_named(cases, named)
    rest = [i for i in range(len(cases)) if i not in left_out and not any(i in found for found in split.values())]
    shares = {"validation": validation_fraction, "test": test_fraction}
    wanted = {part: share for part, share in shares.items() if not split[part] and share}
    split.update(_drawn(cases, rest, wanted, Path(output_dir) / "split.json", split_seed, stratum))
    split["train"] = _fraction_of(cases, split["train"], label_fraction, seed, stratum)
    chosen = {part: [cases[index] for index in sorted(split[part])] for part in PARTS}
    lacking = _classes_lacking(chosen, cases, stratum)
    record = {part: [case["name"] for case in found] for part, found in chosen.items()}
    record.update({f"{part}_groups": [case["group"] for case in found] for part, found in chosen.items()})
    record["left_out"] = [cases[index]["name"] for index in sorted(left_out)]
    record[HELD_OUT_FILES] = [path_end(cases[index]["image"]) for index in sorted(split["test"] | left_out)]
    record.update({f"{part}_lacks": classes for part, classes in lacking.items()})
    record_split(Path(output_dir) / "frames.json", record)
    _report(chosen, lacking, stratum)
    return chosen


def path_end(path: str | Path) -> str:
    """The last three parts of a path, which tell a file wherever the data set lies: ``normal/images/98.png``."""
    return "/".join(Path(path).absolute().parts[-3:])


def frames_to_evaluate(cases: Sequence[Case], run_dir: str | Path, part: str = "test") -> dict[str, list[Case]]:
    """The photographs that a training run recorded.

    Args:
        cases: as for `divide_frames`.
        run_dir: folder of the training run, with its ``frames.json``.
        part: "train", "validation" or "test"; "all" takes every case, recorded or not (another data set).

    Returns:
        {"train": [...], "evaluate": [...]}; "train" holds what there still is of the training cases. The groups are
        those of the training run: its near-duplicates are not looked for again.

    Raises:
        DataError: unknown part, no record, an empty part, or a recorded case that is no longer there.
    """
    if part == "all":
        return {"train": [], "evaluate": list(cases)}
    if part not in PARTS:
        raise DataError(f"the part '{part}' is unknown: choose one of {', '.join((*PARTS, 'all'))}.")
    record = Path(run_dir) / "frames.json"
    recorded = recorded_split(record, PARTS, [f"{one}_groups" for one in PARTS])
    by_name = {case["name"]: case for case in cases}
    if not recorded[part]:
        raise DataError(f"{record} has no case for {part}: train with a {part}_fraction, or evaluate another part.")
    lacking = [name for name in recorded[part] if name not in by_name]
    if lacking:
        raise DataError(
            f"{record} lists {lacking[0]} for {part}, which the data set lacks ({len(lacking)} such): give the data "
            "set of the run, or evaluate the part 'all' of another one."
        )
    for one in PARTS:
        for name, group in zip(recorded[one], recorded[f"{one}_groups"], strict=False):  # older records have no groups
            if name in by_name:
                by_name[name] = {**by_name[name], "group": group}
    train = [by_name[name] for name in recorded["train"] if name in by_name]
    return {"train": train, "evaluate": [by_name[name] for name in recorded[part]]}


def _check(cases: Sequence[Case], stratum: str | None) -> None:
    if not cases:
        raise DataError("There are no photographs to divide: check the data set's folder.")
    refuse_same_names(cases)
    if stratum is not None and not all(stratum in case for case in cases):
        raise DataError(f"The cases have no '{stratum}' to divide by: choose another stratum, or null.")


def _stratum_of(case: Case, stratum: str) -> str:
    value = case[stratum]
    if stratum == "label" and isinstance(value, str):
        return "with mask" if value else "without mask"
    return str(value)


def _named_cases(cases: Sequence[Case], names: Names, argument: str) -> set[int]:
    """Indices of the cases that are named, by their own name or by their group's."""
    if names is None:
        return set()
    listed = read_names(names) if isinstance(names, str | Path) else [str(name) for name in names]
    # a case's own name comes first: near-duplicate groups are called after one of their cases
    by_name: dict[str, list[int]] = {case["name"]: [index] for index, case in enumerate(cases)}
    by_group: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        by_group[case["group"]].append(index)
    unknown = [name for name in listed if name not in by_name and name not in by_group]
    if unknown:
        raise DataError(f"{argument} names {unknown[0]}, which is neither a case nor a group: correct the name.")
    return {index for name in listed for index in by_name.get(name, by_group.get(name, ()))}


def _fold(cases: Sequence[Case], fold: int | None) -> set[int]:
    if fold is None:
        return set()
    found = {index for index, case in enumerate(cases) if case.get("fold") == fold}
    if not found:
        known = sorted({case["fold"] for case in cases if "fold" in case})
        remedy = f"choose one of {known}" if known else "give the split file when listing the cases"
        raise DataError(f"No case is of fold {fold}: {remedy}.")
    return found


def _place_named(cases: Sequence[Case], named: dict[str, set[int]]) -> tuple[dict[str, set[int]], set[int]]:
    """Put named cases where they shall be; unnamed ones of their groups must not be trained on.

    Returns:
        Indices by part, and those that are left out.
    """
    both = named["test"] & named["validation"]
    if both:
        raise DataError(f"{cases[min(both)]['name']} is named for test and for validation: keep it in one of them.")
    owner = {cases[index]["group"]: index for index in named["test"]}
    across = sorted(index for index in named["validation"] if cases[index]["group"] in owner)
    if across:
        one, other = cases[across[0]], cases[owner[cases[across[0]]["group"]]]
        raise DataError(
            f"{one['name']} is named for validation and {other['name']} of the same group {one['group']} for test: "
            "name both for one part, or make every photograph its own group with duplicate_threshold null."
        )
    groups = {cases[index]["group"] for found in named.values() for index in found}
    placed = named["test"] | named["validation"]
    left_out = {index for index, case in enumerate(cases) if case["group"] in groups} - placed
    if left_out:
        logger.warning(
            "%d photographs are left out: they show the scenes of named test or validation photographs", len(left_out)
        )
    return {part: set(named.get(part, ())) for part in PARTS}, left_out


def _drawn(
    cases: Sequence[Case], rest: list[int], wanted: dict[str, float], file: Path, seed: int, stratum: str | None
) -> dict[str, set[int]]:
    """Draw the parts that were not named from the rest of the cases."""
    if not rest:
        raise DataError("No photograph is left to train on: name fewer for test and validation.")
    if not wanted:
        return {"train": set(rest)}
    parts = {"train": 1 - sum(wanted.values()), **wanted}
    groups = [cases[index]["group"] for index in rest]
    strata = None if stratum is None else [_stratum_of(cases[index], stratum) for index in rest]
    split = load_or_make_split(file, groups, strata, parts=parts, seed=seed)
    return {part: {rest[i] for i in found} for part, found in split.items()}


def _fraction_of(
    cases: Sequence[Case], train: Iterable[int], fraction: float, seed: int, stratum: str | None
) -> set[int]:
    chosen = sorted(train)
    groups = [cases[index]["group"] for index in chosen]
    strata = None if stratum is None else [_stratum_of(cases[index], stratum) for index in chosen]
    return {chosen[i] for i in nested_fractions(groups, strata, [fraction], seed)[fraction]}


def _classes_lacking(chosen: dict[str, list[Case]], cases: Sequence[Case], stratum: str | None) -> dict[str, list[str]]:
    """Classes that a part shows nothing of, by part; a part that was not asked for lacks none.

    Raises:
        DataError: nothing is left to learn a class from.
    """
    if stratum is None:
        return {part: [] for part in chosen}
    everything = {_stratum_of(case, stratum) for case in cases}
    lacking = {
        part: sorted(everything - {_stratum_of(case, stratum) for case in found}) if found else []
        for part, found in chosen.items()
    }
    if lacking["train"]:
        raise DataError(
            f"No photograph of {stratum} {', '.join(lacking['train'])} is left to train on: name fewer of it for test "
            "and validation, or add cases."
        )
    return lacking


def _report(chosen: dict[str, list[Case]], lacking: dict[str, list[str]], stratum: str | None) -> None:
    """Log the size of every part and the classes that one lacks."""
    for part, found in chosen.items():
        logger.info("%s: %d photographs of %d groups", part, len(found), len({case["group"] for case in found}))
        if lacking[part]:
            logger.warning(
                "%s has no photograph of %s %s (too few groups): its figures say nothing about it",
                part,
                stratum,
                ", ".join(lacking[part]),
            )
