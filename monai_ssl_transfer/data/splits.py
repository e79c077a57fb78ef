"""Splits by group (patient, sequence), stratified, with nested fractions; written once as JSON and reused.

Everything follows from the names of the groups and the seed, never from the order in which cases are listed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

DEFAULT_PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}
REQUIRED = ("train", "validation")  # never empty where they are asked for; the others may be in tiny data sets
_VERSION = 1


@dataclass(frozen=True)
class Groups:
    """What is split: the groups, their members and their classes.

    Args:
        members: indices of the items of every group.
        classes: classes (strata) that occur in every group; one empty text where there are no strata.
        stratum: the class that a group counts for: its rarest one, counted in groups.
    """

    members: dict[str, list[int]]
    classes: dict[str, frozenset[str]]
    stratum: dict[str, str]

    @classmethod
    def collect(cls, groups: Sequence[Any] | np.ndarray, strata: Sequence[Any] | np.ndarray | None) -> Groups:
        """Gather items by group.

        Raises:
            DataError: there is nothing to split, or groups and strata differ in length.
        """
        if len(groups) == 0:
            raise DataError("There are no cases to split: check the data set's folder.")
        if strata is not None and len(strata) != len(groups):
            raise DataError(f"There are {len(groups)} cases but {len(strata)} strata: give one stratum per case.")
        members: dict[str, list[int]] = defaultdict(list)
        found: dict[str, set[str]] = defaultdict(set)
        for index, group in enumerate(groups):
            name = str(group)
            members[name].append(index)
            found[name].add("" if strata is None else str(strata[index]))
        frequency = Counter(one for names in found.values() for one in names)
        stratum = {group: min(names, key=lambda one: (frequency[one], one)) for group, names in found.items()}
        return cls(dict(members), {group: frozenset(names) for group, names in found.items()}, stratum)

    def fingerprint(self) -> str:
        """Hash of the groups, their sizes and classes; the same in whatever order the items come."""
        content = sorted((group, len(items), sorted(self.classes[group])) for group, items in self.members.items())
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def shuffled(self, seed: int) -> list[str]:
        """The groups in an order that follows from their names and the seed alone."""
        return sorted(self.members, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())

    def indices(self, groups: Sequence[str]) -> list[int]:
        """Indices of the items of some groups, ascending."""
        return sorted(index for group in groups for index in self.members[group])


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
    parts = _draw(collected, _checked_shares(fractions), seed)
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
        DataError: a share is out of range, or there is nothing to draw from.
    """
    collected = Groups.collect(groups, strata)
    sequence = _nested_order(collected, collected.shuffled(seed))
    return {share: collected.indices(_prefix(collected, sequence, share)) for share in fractions}


def load_or_make_split(
    path: str | Path,
    groups: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray | None = None,
    *,
    parts: Mapping[str, float] | None = None,
    seed: int = 0,
    fraction: float = 1.0,
) -> dict[str, list[int]]:
    """Read a split from its file, or draw it and write the file.

    Args:
        path: JSON file next to the run.
        groups: group (patient, sequence) of every item.
        strata: class of every item, or None.
        parts: share of every part; default 70 % train, 15 % validation, 15 % test.
        seed: source of the draw.
        fraction: share of the train groups to use; shares nest and are not part of the file, so that runs with different
            fractions have the same validation and test items.

    Returns:
        Indices by part, ascending.

    Raises:
        DataError: the file was written for other cases or settings or is damaged, or no split is possible.
    """
    path, shares = Path(path), _checked_shares(parts or DEFAULT_PARTS)
    collected = Groups.collect(groups, strata)
    wanted = {"version": _VERSION, "seed": seed, "parts": shares, "data": collected.fingerprint()}
    if path.exists():
        drawn = _read(path, wanted, collected)
    else:
        drawn = _draw(collected, shares, seed)
        drawn["train"] = _nested_order(collected, drawn["train"])
        _write(path, {**wanted, "groups": drawn})
    train = _prefix(collected, drawn["train"], fraction)
    return {part: collected.indices(train if part == "train" else names) for part, names in drawn.items()}


def explicit_split(
    cases: Sequence[Any],
    *,
    train: Sequence[Any],
    validation: Sequence[Any],
    test: Sequence[Any] = (),
    groups: Sequence[Any] | None = None,
) -> dict[str, list[int]]:
    """Turn lists of case names into indices.

    Args:
        cases: names of all cases, e.g. ``["0", "1017", "2001"]``; numbers are taken as their text.
        train: names of the cases to train on.
        validation: names of the cases to validate on.
        test: names of the cases to test on.
        groups: group of every case; None where every case is its own.

    Returns:
        Indices by part in the order of the lists.

    Raises:
        DataError: an unknown name, a case or group in two parts, or no case to train or to validate on.
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
    empty = [part for part in REQUIRED if not split[part]]
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


def _draw(groups: Groups, shares: dict[str, float], seed: int) -> dict[str, list[str]]:
    """Divide the groups of every stratum, the rarest first, each part getting the rounded share."""
    needed = sum(1 for part in REQUIRED if shares.get(part))
    if len(groups.members) < needed:
        raise DataError(
            f"The data set has only {len(groups.members)} group (patient): at least {needed} are needed to train and to "
            "validate, add cases."
        )
    by_stratum: dict[str, list[str]] = defaultdict(list)
    for group in groups.shuffled(seed):
        by_stratum[groups.stratum[group]].append(group)
    drawn: dict[str, list[str]] = {part: [] for part in shares}
    done = 0
    for _, members in sorted(by_stratum.items(), key=lambda item: (len(item[1]), item[0])):
        done += len(members)
        start = 0
        for part, count in _rounded(len(members), done, shares, drawn).items():
            drawn[part].extend(members[start : start + count])
            start += count
    _fill_empty(groups, shares, drawn)
    _check_classes(groups, drawn["train"])
    return drawn


def _rounded(count: int, done: int, shares: dict[str, float], drawn: dict[str, list[str]]) -> dict[str, int]:
    """How many of a stratum's groups each part gets: every share rounded up or down, so that the totals fit best.

    Args:
        count: groups of the stratum.
        done: groups of this and of all earlier strata.
        shares: share by part.
        drawn: what the parts have from earlier strata.
    """
    exact = {part: round(count * share, 9) for part, share in shares.items()}
    counts = {part: int(value) for part, value in exact.items()}
    behind = {part: done * share - len(drawn[part]) - counts[part] for part, share in shares.items()}
    order = list(shares)
    candidates = [part for part in order if exact[part] > counts[part]]
    candidates.sort(key=lambda part: (-behind[part], order.index(part)))
    if counts["train"] == 0 and "train" in candidates:  # every class must be learnt
        candidates.remove("train")
        candidates.insert(0, "train")
    for part in candidates[: count - sum(counts.values())]:
        counts[part] += 1
    return counts


def _fill_empty(groups: Groups, shares: dict[str, float], drawn: dict[str, list[str]]) -> None:
    """Give empty parts a group of the fullest part, one that the fullest part can spare if there is any."""
    asked = [part for part in shares if shares[part]]
    for part in sorted(asked, key=lambda part: part not in REQUIRED):
        if drawn[part]:
            continue
        donors = [other for other in asked if len(drawn[other]) > 1]
        if part in REQUIRED:
            donors = donors or [other for other in asked if other not in REQUIRED and drawn[other]]
        for donor in sorted(donors, key=lambda other: -len(drawn[other])):
            spare = _spare(groups, drawn[donor], must=part in REQUIRED or donor != "train")
            if spare is not None:
                drawn[donor].remove(spare)
                drawn[part].append(spare)
                break


def _spare(groups: Groups, members: list[str], must: bool) -> str | None:
    """The member whose classes are the most frequent ones; None if a class would be lost and nothing ``must`` be given."""
    frequency = Counter(one for group in members for one in groups.classes[group])
    best = max(reversed(members), key=lambda group: min(frequency[one] for one in groups.classes[group]))
    if min(frequency[one] for one in groups.classes[best]) < 2 and not must:
        return None
    return best


def _check_classes(groups: Groups, train: Sequence[str]) -> None:
    everything = {one for classes in groups.classes.values() for one in classes}
    missing = sorted(everything - {one for group in train for one in groups.classes[group]})
    if missing:
        raise DataError(
            f"No group (patient) of class {', '.join(missing)} is left to train on: add cases of it, "
            "or give the lists of cases yourself."
        )


def _nested_order(groups: Groups, candidates: Sequence[str]) -> list[str]:
    """An order whose every beginning is stratified: first one group of every class, then whichever stratum is behind."""
    waiting: dict[str, list[str]] = defaultdict(list)
    for group in candidates:
        waiting[groups.stratum[group]].append(group)
    total = {stratum: len(members) for stratum, members in waiting.items()}
    order = _one_of_every_class(groups, candidates)
    for group in order:
        waiting[groups.stratum[group]].remove(group)
    queues = {stratum: members[::-1] for stratum, members in waiting.items()}
    taken = Counter(groups.stratum[group] for group in order)
    while len(order) < len(candidates):
        share = (len(order) + 1) / len(candidates)
        behind = max((s for s in queues if queues[s]), key=lambda s: (total[s] * share - taken[s], s))
        order.append(queues[behind].pop())
        taken[behind] += 1
    return order


def _one_of_every_class(groups: Groups, candidates: Sequence[str]) -> list[str]:
    frequency = Counter(one for group in candidates for one in groups.classes[group])
    chosen: list[str] = []
    covered: set[str] = set()
    for one in sorted(frequency, key=lambda name: (frequency[name], name)):
        if one not in covered:
            chosen.append(next(group for group in candidates if one in groups.classes[group]))
            covered |= groups.classes[chosen[-1]]
    return chosen


def _prefix(groups: Groups, order: list[str], fraction: float) -> list[str]:
    """The first groups of a nested order: the share asked for, and at least one group of every class."""
    if not 0 < fraction <= 1:
        raise DataError(f"The fraction of the training cases is {fraction:g}: choose a number above 0 and up to 1.")
    count = max(1, round(fraction * len(order)))
    least = len(_one_of_every_class(groups, order))
    if count < least:
        logger.warning(
            "%g %% of %d training groups are %d: %d are used, so that there is one of every class",
            100 * fraction,
            len(order),
            count,
            least,
        )
    return order[: max(count, least)]


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
            f"{path} was written for other cases than the {len(groups.members)} groups found now: restore the cases, or "
            "remove the file to draw a new split."
        )
    if not (same["seed"] and same["parts"]):
        raise DataError(
            f"{path} was drawn with seed {content['seed']} and shares {content['parts']}: use these, or remove the file to "
            "draw a new split."
        )
    return drawn


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write the file at once: several ranks may do so together, and each writes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
