"""The answer of a study in words, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.study.report.printing import amount, interval, p_value, place
from monai_ssl_transfer.study.statistics.analysis import ALPHA, Compared, FamilyResult


@dataclass(frozen=True)
class Answer:
    """What a family of comparisons shows.

    Args:
        family: its name.
        verdict: what that means for each candidate.
        lead: how much is shown of how many.
        shown: one sentence per difference that survives Holm, the better ones first.
        not_shown: what is not shown, and what could have been found.
        no_worse: what is shown to be no worse by a stated margin; empty where none was stated.
    """

    family: str
    verdict: str
    lead: str
    shown: tuple[str, ...]
    not_shown: str
    no_worse: str


def answer(result: FamilyResult) -> Answer:
    """Put a family's result into words."""
    shown = result.shown()
    better = [pair for pair in shown if pair[0].candidate_is_better]
    worse = [pair for pair in shown if not pair[0].candidate_is_better]
    total, compared = len(result.compared), [one for one in result.compared if one.difference is not None]
    uncorrected = sum(one.p < ALPHA for one in compared)
    against = " or ".join(dict.fromkeys(one.comparison.reference.initialisation for one in result.compared))
    lead = (
        f"Of {total} comparisons with {against}, {_count(len(shown))} shown after Holm's correction at 5 %: "
        f"in {_number(len(better))} the candidate is better, in {_number(len(worse))} it is worse. "
        f"{uncorrected} raw p {'is' if uncorrected == 1 else 'are'} below 0.05."
    )
    ordered = sorted(better, key=lambda pair: pair[1]) + sorted(worse, key=lambda pair: pair[1])
    return Answer(
        result.family.name,
        _verdict(result, against),
        lead,
        tuple(_sentence(one, p) for one, p in ordered),
        _not_shown(result),
        _no_worse(result),
    )


def _verdict(result: FamilyResult, against: str) -> str:
    """For each candidate in how many settings it is better, worse or undecided."""
    names = dict.fromkeys(one.comparison.candidate.initialisation for one in result.compared)
    parts = []
    for name in names:
        own = [
            (one.candidate_is_better, p < ALPHA)
            for one, p in zip(result.compared, result.holm, strict=True)
            if one.comparison.candidate.initialisation == name
        ]
        better, worse = own.count((True, True)), own.count((False, True))
        parts.append(f"{name} is better in {better}, worse in {worse} and undecided in {len(own) - better - worse}")
    if not any(one.candidate_is_better for one, _ in result.shown()):
        parts.append(f"nothing here speaks for leaving {against}")
    return f"Against {against}: {'; '.join(parts)}."


def _sentence(one: Compared, holm: float) -> str:
    difference, metric = one.difference, one.metric
    if difference is None:
        raise ValueError("a comparison that was not run shows nothing")
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    seeds = f"{difference.candidate.n} and {difference.reference.n} seeds"
    return (
        f"{one.comparison.candidate.initialisation} is {'better' if one.candidate_is_better else 'worse'} than "
        f"{one.comparison.reference.initialisation} by {amount(abs(difference.value), metric)}{unit} of "
        f"{metric.name} in {place(one.comparison.candidate)} (95 % interval of the difference "
        f"{interval(difference.low, difference.high, metric)}; p Holm {p_value(holm)}; {seeds})."
    )


def _no_worse(result: FamilyResult) -> str:
    """What is no worse than its reference by the stated margin, corrected within the family."""
    with_margin = [(one, p) for one, p in zip(result.compared, result.holm_no_worse, strict=True) if one.metric.margin]
    if not with_margin:
        return ""
    shown = [
        f"{one.comparison.candidate.initialisation} in {place(one.comparison.candidate)} ({one.metric.name}, margin "
        f"{amount(one.metric.margin or 0.0, one.metric)}, p Holm {p_value(p)})"
        for one, p in with_margin
        if p < ALPHA
    ]
    listed = "; ".join(shown) if shown else "none"
    return f"No worse than the reference by the stated margin ({len(with_margin)} tests): {listed}."


def _not_shown(result: FamilyResult) -> str:
    """What did not survive, the nearest of it, and how small a difference could have been found."""
    rest = [(one, p) for one, p in zip(result.compared, result.holm, strict=True) if p >= ALPHA]
    if not rest:
        return "Nothing was left undecided."
    run = [(one, p) for one, p in rest if one.difference is not None]
    parts = [f"Not shown: the other {len(rest)}; that is no evidence of equality."]
    if len(run) < len(rest):
        absent = len(rest) - len(run)
        parts.append(
            f"{absent} of them {'was not run and counts' if absent == 1 else 'were not run and count'} as p = 1."
        )
    if run:
        nearest, p = min(run, key=lambda pair: (pair[1], pair[0].p))
        side = "better" if nearest.candidate_is_better else "worse"
        parts.append(
            f"Nearest: {nearest.comparison.candidate.initialisation}, {side} {nearest.metric.name} in "
            f"{place(nearest.comparison.candidate)} (p Holm {p_value(p)}, raw {p_value(nearest.p)})."
        )
    parts += _findable([one for one, _ in run])
    return " ".join(parts)


def _findable(rest: Sequence[Compared]) -> list[str]:
    """How large the undecided differences would have had to be, for each unit that is printed."""
    sentences = []
    for ruler in dict.fromkeys(one.metric.ruler for one in rest):
        measured = [one for one in rest if one.metric.ruler == ruler and math.isfinite(one.smallest)]
        if measured:
            values = [one.smallest for one in measured]
            metric = measured[0].metric
            low, middle, high = (
                amount(float(value), metric) for value in (min(values), np.median(values), max(values))
            )
            spread = f" (median; {low} to {high})" if low != high else ""
            name = f" {ruler}" if metric.difference_unit else f" of {ruler}"
            sentences.append(
                "With these seeds and spreads a true difference is found with 80 % probability, before any correction, "
                f"only from {middle}{name} on{spread}."
            )
    return sentences


def _count(number: int) -> str:
    return "none is" if number == 0 else f"{number} {'is' if number == 1 else 'are'}"


def _number(number: int) -> str:
    return "none" if number == 0 else str(number)
