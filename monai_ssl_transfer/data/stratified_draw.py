"""Drawing groups for the parts of a split: by stratum, rounded fairly, in an order that every prefix represents.

Everything follows from the names of the groups and the seed, never from the order in which cases are listed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_ssl_transfer.errors import DataError

REQUIRED = ("train", "validation")  # never empty where they are asked for; the others may be in tiny data sets


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


def draw(groups: Groups, shares: dict[str, float], seed: int) -> dict[str, list[str]]:
    """Divide the groups of every stratum, the rarest first, each part getting the rounded share.

    Args:
        groups: what to divide.
        shares: share of every part, adding up to 1.
        seed: source of the draw.

    Returns:
        Groups by part.

    Raises:
        DataError: too few groups, or a class would be missing from ``train``.
    """
    needed = sum(1 for part in REQUIRED if shares.get(part))
    if len(groups.members) < needed:
        raise DataError(
            f"The data set has only {len(groups.members)} group (patient): at least {needed} are needed to train "
            "and to validate, add cases."
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
    """The member whose classes are the most frequent; None if a class would be lost and nothing ``must`` be given."""
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


def nested_order(groups: Groups, candidates: Sequence[str]) -> list[str]:
    """An order whose every prefix is stratified: first one group of every class, then whichever stratum is behind."""
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


def prefix(groups: Groups, order: list[str], fraction: float) -> list[str]:
    """The first groups of a nested order: the share asked for, in which every class has a group."""
    if not 0 < fraction <= 1:
        raise DataError(f"The fraction of the training cases is {fraction:g}: choose a number above 0 and up to 1.")
    count, least = round(fraction * len(order)), len(_one_of_every_class(groups, order))
    if count < least:
        raise DataError(
            f"{100 * fraction:g} % of {len(order)} training groups (patients) are {count}, too few for one of every "
            f"class: take a fraction of {math.ceil(1000 * least / len(order)) / 1000:g} or more."
        )
    return order[:count]
