"""The study's question answered first: which initialisation to use, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monai_ssl_transfer.study.report.printing import amount, interval, place
from monai_ssl_transfer.study.statistics.analysis import ALPHA, Compared, FamilyResult

_NAMED = 3


@dataclass(frozen=True)
class Recommendation:
    """What to do after a family of comparisons with one reference.

    Args:
        family: its name.
        advice: one short sentence.
        reason: what it rests on.
        certainty: how far the advice can be trusted, sentence by sentence.
    """

    family: str
    advice: str
    reason: str
    certainty: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """What a candidate has shown against the reference."""

    name: str
    better: tuple[Compared, ...]
    worse: tuple[Compared, ...]
    total: int


def recommendations(result: FamilyResult) -> list[Recommendation]:
    """Turn a family into advice, one piece for every reference in it.

    A candidate is advised only where half of its differences or more survive Holm in its favour and none against it,
    and the reference only where half of every candidate's or more survive against the candidate.
    Where nothing is shown there is no advice, but the difference nearest to it is named as what it is.
    """
    found = []
    for reference in dict.fromkeys(one.comparison.reference.initialisation for one in result.compared):
        chosen = [
            (one, p)
            for one, p in zip(result.compared, result.holm, strict=True)
            if one.comparison.reference.initialisation == reference
        ]
        advice, reason = _advice([_record(name, chosen) for name in _candidates(chosen)], chosen, reference)
        found.append(Recommendation(result.family.name, advice, reason, _certainty(result, chosen, reference)))
    return found


def _candidates(chosen: Sequence[tuple[Compared, float]]) -> list[str]:
    return list(dict.fromkeys(one.comparison.candidate.initialisation for one, _ in chosen))


def _record(name: str, chosen: Sequence[tuple[Compared, float]]) -> _Record:
    own = [(one, p) for one, p in chosen if one.comparison.candidate.initialisation == name]
    shown = [one for one, p in own if p < ALPHA]
    better = tuple(one for one in shown if one.candidate_is_better)
    worse = tuple(one for one in shown if not one.candidate_is_better)
    return _Record(name, better, worse, len(own))


def _advice(records: Sequence[_Record], chosen: Sequence[tuple[Compared, float]], reference: str) -> tuple[str, str]:
    """The advice in few words, and what it rests on."""
    winners = sorted((r for r in records if r.better and not r.worse), key=lambda r: -len(r.better))
    mixed = [r for r in records if r.better and r.worse]
    losers = [r for r in records if r.worse and not r.better]
    against = [f"{r.name} is worse in {len(r.worse)} of {r.total}." for r in losers]
    against += [
        f"{r.name} is better than {reference} in {_where(r.better, r.total)}, but worse in {_where(r.worse, r.total)}."
        for r in mixed
    ]
    if winners:
        counts = [f"{r.name} is better in {_where(r.better, r.total)}, worse in none{_open(r)}." for r in winners]
        return _use(winners, reference), " ".join([*counts, *_among(winners, chosen), *against])
    if mixed:
        rest = f"Where nothing is shown, nothing speaks against {reference}."
        return "It depends on the setting.", " ".join([*against, rest])
    if losers:
        return _keep(records, reference), " ".join(["No candidate is shown to be better.", *against])
    return _nothing_shown(chosen, reference)


def _use(winners: Sequence[_Record], reference: str) -> str:
    """Advise those that are shown to be better in half of their comparisons or more: one finding in many is not it."""
    broad = [r.name for r in winners if 2 * len(r.better) >= r.total]
    if broad:
        return f"Use {' or '.join(broad)} rather than {reference}."
    names = " and ".join(f"{r.name} in {len(r.better)} of {r.total} comparisons" for r in winners)
    return f"Mostly undecided; better than {reference}: {names}."


def _keep(records: Sequence[_Record], reference: str) -> str:
    """Advise the reference only where every candidate is shown to be worse in half of its comparisons or more."""
    if all(2 * len(r.worse) >= r.total for r in records):
        return f"Keep {reference}."
    names = " and ".join(f"{r.name} in {len(r.worse)} of {r.total} comparisons" for r in records if r.worse)
    return f"Mostly undecided; worse than {reference}: {names}."


def _open(record: _Record) -> str:
    rest = record.total - len(record.better)
    return f" and undecided in {rest}" if rest else ""


def _among(winners: Sequence[_Record], chosen: Sequence[tuple[Compared, float]]) -> list[str]:
    """Several candidates are better than the reference: which of them has the higher means, which is no test."""
    if len(winners) < 2:
        return []
    settings: dict[object, dict[str, Compared]] = {}
    for one, _ in chosen:
        key = one.comparison.reference, one.comparison.metric
        if one.difference is not None:
            settings.setdefault(key, {})[one.comparison.candidate.initialisation] = one
    names = [r.name for r in winners]
    together = [found for found in settings.values() if all(name in found for name in names)]
    first = dict.fromkeys(names, 0)
    for found in together:
        best = max(names, key=lambda name: _gain(found[name]))
        first[best] += 1
    leader = max(names, key=lambda name: first[name])
    return [
        f"Between them nothing is tested here; {leader} has the best mean in {first[leader]} of {len(together)} "
        "settings."
    ]


def _gain(one: Compared) -> float:
    if one.difference is None:
        return -math.inf
    return one.difference.value if one.metric.larger_is_better else -one.difference.value


def _where(shown: Sequence[Compared], total: int) -> str:
    """Count comparisons, and name them where they are few."""
    named = "; ".join(f"{place(one.comparison.candidate)}: {one.metric.name}" for one in shown[:_NAMED])
    return f"{len(shown)} of {total} comparisons" + (f" ({named})" if len(shown) <= _NAMED else "")


def _nothing_shown(chosen: Sequence[tuple[Compared, float]], reference: str) -> tuple[str, str]:
    """No difference survives: say so, and what was the nearest of them in its own spread."""
    run = [one for one, _ in chosen if one.difference is not None]
    if not run:
        return "Nothing can be said.", f"No comparison with {reference} was run."
    tested = [one for one in run if math.isfinite(one.p)]
    if not tested:
        return (
            "Nothing can be said.",
            f"No comparison with {reference} has two runs on either side that differ among themselves.",
        )
    nearest = min(tested, key=lambda one: one.p)
    side = "better" if nearest.candidate_is_better else "worse"
    return (
        f"Undecided: no difference from {reference} is shown.",
        f"Of {len(chosen)} comparisons the nearest to one is {nearest.comparison.candidate.initialisation}, {side} in "
        f"{place(nearest.comparison.candidate)} by {_by(nearest)}: a guess, not a finding.",
    )


def _by(one: Compared) -> str:
    difference, metric = one.difference, one.metric
    if difference is None:
        raise ValueError("a comparison that was not run has no size")
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    ends = interval(difference.low, difference.high, metric)
    return f"{amount(abs(difference.value), metric)}{unit} of {metric.name} (95 % interval of the difference {ends})"


def _certainty(result: FamilyResult, chosen: Sequence[tuple[Compared, float]], reference: str) -> tuple[str, ...]:
    run = [one.difference for one, _ in chosen if one.difference is not None]
    if not run:
        return ()
    counts = sorted({n for difference in run for n in (difference.candidate.n, difference.reference.n)})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sentences = [
        f"How sure: {seeds} {'seed' if counts[-1] == 1 else 'seeds'} per cell; at most a 5 % risk that any finding "
        f"among these {len(result.compared)} comparisons is wrong (Holm), if they were declared before the runs and "
        "runs are about normally distributed.",
        "Seeds repeat the training on the task. Where one pretrained encoder served all of them, this is about that "
        "encoder: another pretraining by the same method may differ.",
    ]
    largest = _largest([one for one, p in chosen if p < ALPHA])
    if largest is not None:
        name = largest.comparison.candidate.initialisation
        side = "better" if largest.candidate_is_better else "worse"
        sentences.append(
            f"Clearest finding: {name} is {side} in {place(largest.comparison.candidate)} by {_by(largest)}."
        )
    sentences += _over_cases(chosen)
    sentences += _no_worse(result, reference)
    return tuple(sentences)


def _largest(shown: Sequence[Compared]) -> Compared | None:
    return min(shown, key=lambda one: one.p) if shown else None


def _over_cases(chosen: Sequence[tuple[Compared, float]]) -> list[str]:
    """Whether what is shown over seeds also holds over the patients of the test set."""
    shown = [one for one, p in chosen if p < ALPHA]
    judged = [(one, one.cases) for one in shown if one.cases is not None]
    if not shown:
        return []
    if not judged:
        return ["There are no values per case: how far this holds for other patients is not known."]
    agree = sum(
        math.isfinite(cases.low)
        and (cases.low > 0 or cases.high < 0)
        and (cases.value > 0) == (one.difference.value > 0)
        for one, cases in judged
        if one.difference is not None
    )
    groups = min(cases.groups for _, cases in judged)
    few = ", fewer than ten in at least one, where it is too narrow" if groups < 10 else ""
    return [
        f"Other patients: in {agree} of {len(judged)} findings with values per case, the interval over patients{few} "
        "excludes 0 too (same models, uncorrected)."
    ]


def _no_worse(result: FamilyResult, reference: str) -> list[str]:
    """How often a candidate is shown to be no worse than the reference by the stated margin."""
    parts = []
    pairs = [
        (one, p)
        for one, p in zip(result.compared, result.holm_no_worse, strict=True)
        if one.metric.margin and one.comparison.reference.initialisation == reference
    ]
    for name in _candidates(pairs):
        own = [p for one, p in pairs if one.comparison.candidate.initialisation == name]
        parts.append(f"{name} in {sum(p < ALPHA for p in own)} of {len(own)}")
    if not parts:
        return []
    return [f"No worse than {reference} by the margin stated beforehand (Holm): {'; '.join(parts)}."]
