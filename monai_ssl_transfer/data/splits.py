"""Splits by group (patient, sequence), stratified, with nested fractions; written once as JSON and reused.

Everything follows from the names of the groups and the seed, never from the order in which cases are listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.data.stratified_draw import REQUIRED, Groups, draw, nested_order, prefix
from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

DEFAULT_PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}
_VERSION = 1


def grouped_split(
    groups: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray | None,
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, list[int]]:
    """Split items so that no group is on two sides and every stratum is divided as the whole.

    A stratum of n groups gives a part of share p between n p - 1 and n p + 1 groups, except where tiny data sets would
    leave a part empty.

    Args:
        groups: group (patient, sequence) of every item.
        strata: class of every item, or None.
        fractions: share of every part; they add up to 1.
        seed: source of the draw.

    Returns:
        Indices by part, ascending. ``train`` and ``validation`` are never empty.

    Raises:
        DataError: too few groups, or a class would be missing from ``train``.
    """
    collected = Groups.collect(groups, strata)
    parts = draw(collected, _checked_shares(fractions), seed)
    return {part: collected.indices(names) for part, names in parts.items()}


def nested_fractions(
    groups: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray | None,
    fractions: Sequence[float],
    seed: int,
) -> dict[float, list[int]]:
    """Draw a share of the groups, stratified, so that each smaller share lies within each larger one.

    Args:
        groups: group of every item.
        strata: class of every item, or None.
        fractions: shares in (0, 1].
        seed: source of the draw.

    Returns:
        Indices by share, ascending; at least one group of every class.

    Raises:
        DataError: a share is out of range or too small for a group of every class, or there is nothing to draw from.
    """
    collected = Groups.collect(groups, strata)
    sequence = nested_order(collected, collected.shuffled(seed))
    return {share: collected.indices(prefix(collected, sequence, share)) for share in fractions}


def load_or_make_split(
    path: str | Path,
    groups: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray | None = None,
    *,
    parts: Mapping[str, float] | None = None,
    seed: int = 0,
    fraction: float = 1.0,
    fraction_seed: int | None = None,
) -> dict[str, list[int]]:
    """Read a split from its file, or draw it and write the file.

    Args:
        path: JSON file next to the run.
        groups: group (patient, sequence) of every item.
        strata: class of every item, or None.
        parts: share of every part; default 70 % train, 15 % validation, 15 % test.
        seed: source of the draw.
        fraction: share of the train groups to use; shares nest and are not part of the file, so that runs with
            different fractions have the same validation and test items.
        fraction_seed: source of the draw of that share; None or ``seed``: the order in the file.

    Returns:
        Indices by part, ascending.

    Raises:
        DataError: the file was written for other cases or settings or is damaged, or no split is possible, or the
            share is too small for a group of every class.
    """
    path, shares = Path(path), _checked_shares(parts or DEFAULT_PARTS)
    collected = Groups.collect(groups, strata)
    wanted = {"version": _VERSION, "seed": seed, "parts": shares, "data": collected.fingerprint()}
    if path.exists():
        drawn = _read(path, wanted, collected)
    else:
        drawn = draw(collected, shares, seed)
        drawn["train"] = nested_order(collected, drawn["train"])
        _write(path, {**wanted, "groups": drawn})
    order = drawn["train"]
    if fraction_seed is not None and fraction_seed != seed:
        members = set(order)
        order = nested_order(collected, [one for one in collected.shuffled(fraction_seed) if one in members])
    train = prefix(collected, order, fraction)
    return {part: collected.indices(train if part == "train" else names) for part, names in drawn.items()}


def explicit_split(
    cases: Sequence[Any],
    *,
    train: Sequence[Any],
    validation: Sequence[Any],
    test: Sequence[Any] = (),
    groups: Sequence[Any] | None = None,
    required: Sequence[str] = REQUIRED,
) -> dict[str, list[int]]:
    """Turn lists of case names into indices.

    Args:
        cases: names of all cases, e.g. ``["0", "1017", "2001"]``; numbers are taken as their text.
        train: names of the cases to train on.
        validation: names of the cases to validate on.
        test: names of the cases to test on.
        groups: group of every case; None where every case is its own.
        required: parts that must have a case.

    Returns:
        Indices by part in the order of the lists.

    Raises:
        DataError: an unknown name, a case or group in two parts, or no case for a required part.
    """
    place = {str(case): index for index, case in enumerate(cases)}
    owner: dict[str, str] = {}
    split: dict[str, list[int]] = {}
    for part, listed in (("train", train), ("validation", validation), ("test", test)):
        names = [str(name) for name in ([listed] if isinstance(listed, str | int) else listed)]
        unknown = [name for name in names if name not in place]
        if unknown:
            known = ", ".join(list(place)[:20]) + (", ..." if len(place) > 20 else "")
            raise DataError(
                f"The {part} list names {', '.join(unknown)}, which the data set lacks: choose among {known}."
            )
        split[part] = [place[name] for name in names]
        for name in names:
            group = name if groups is None else str(groups[place[name]])
            if owner.setdefault(group, part) != part:
                raise DataError(f"{group} is listed for {owner[group]} and for {part}: keep it in one of them.")
        if len(set(names)) < len(names):
            raise DataError(f"The {part} list names a case twice: list every case once.")
    empty = [part for part in required if not split[part]]
    if empty:
        raise DataError(f"No case is listed for {' and '.join(empty)}: name at least one.")
    return split


def _checked_shares(parts: Mapping[str, float]) -> dict[str, float]:
    shares = {part: float(share) for part, share in parts.items()}
    if not shares.get("train") or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        listed = ", ".join(f"{part} {share:g}" for part, share in shares.items())
        raise DataError(
            f"The shares of a split ({listed}) must be positive, add up to 1 and include train: correct them."
        )
    return shares


def _read(path: Path, wanted: dict[str, Any], groups: Groups) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        drawn = {part: [str(group) for group in content["groups"][part]] for part in content["parts"]}
        same = {key: content[key] == value for key, value in wanted.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a split written by this program ({error!r}): remove it to draw it again."
        ) from error
    listed = sorted(group for names in drawn.values() for group in names)
    if not same["data"] or not same["version"] or listed != sorted(groups.members):
        raise DataError(
            f"{path} was written for other cases than the {len(groups.members)} groups found now: restore the cases, "
            "or remove the file to draw a new split."
        )
    if not (same["seed"] and same["parts"]):
        raise DataError(
            f"{path} was drawn with seed {content['seed']} and shares {content['parts']}: use these, or remove "
            "the file to draw a new split."
        )
    return drawn


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write the file at once: several ranks may do so together, and each writes the same."""
    write_durably(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))
