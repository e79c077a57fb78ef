"""How well a ranking without fine-tuning predicted the fine-tuned one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.declaration import Metric
from monai_ssl_transfer.study.report.printing import NOTHING, amount, fixed, p_value
from monai_ssl_transfer.study.report.run_folder import RANKING, RunFolder, read_json
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.tables import Table
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Analysis
from monai_ssl_transfer.study.statistics.rank_agreement import Agreement, agreement, over_single_seeds

_FEWEST = 3
TIE = "tie"
_NAMES = {"knn": "kNN", "logme": "LogME", "h_score": "H-score"}


@dataclass(frozen=True)
class _Predicted:
    """A score against the trained results of one task and protocol."""

    cell: Cell
    metric: Metric
    score: str
    found: Agreement
    singles: Sequence[float]
    top: str
    best: str
    lost: float


def ranking_section(run: RunFolder, analysis: Analysis) -> Section | None:
    """Return Kendall's tau of every score, task and trained protocol; None where no ranking was made."""
    files = sorted((run.folder / RANKING).glob("*.json"))
    if not files:
        return None
    rows: list[_Predicted] = []
    for file in files:
        content = read_json(file)
        try:
            task, scores = str(content["task"]), {name: dict(one) for name, one in content["scores"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{file} is no ranking: delete it and run the study again.") from error
        rows += _of_task(run, analysis, task, scores)
    if not rows:
        few = f"The encoders were ranked, but fewer than {_FEWEST} of them were also trained in one setting."
        return Section("Ranking without fine-tuning", (few,))
    return Section("Ranking without fine-tuning", (_words(rows),), (_table(rows),), notes=_NOTES)


def _of_task(
    run: RunFolder, analysis: Analysis, task: str, scores: Mapping[str, Mapping[str, float]]
) -> Iterator[_Predicted]:
    """Every trained protocol of a task at its largest fraction, in its first metric."""
    trained = {(one.cell.task, one.cell.protocol) for one in run.done() if one.record.get("kind") != "probe"}
    declared = [one for one in analysis.declaration.cells if one.cell.task == task]
    for protocol in dict.fromkeys(one.cell.protocol for one in declared):
        own = [one for one in declared if one.cell.protocol == protocol]
        if (task, protocol) not in trained or not own[0].metrics:
            continue
        cell = replace(own[0].cell, fraction=max(one.cell.fraction for one in own), initialisation="")
        metric = analysis.declaration.metric(own[0].metrics[0])
        runs = {
            name: [value * (1 if metric.larger_is_better else -1) for value in values]
            for name in scores
            if (values := list(analysis.results.per_seed(replace(cell, initialisation=name), metric.name).values()))
        }
        for score in dict.fromkeys(key for one in scores.values() for key in one):
            usable = {name: float(scores[name][score]) for name in runs if _finite(scores[name].get(score))}
            if len(usable) >= _FEWEST:
                yield _predicted(cell, metric, score, usable, {name: runs[name] for name in usable})


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _predicted(
    cell: Cell, metric: Metric, score: str, usable: Mapping[str, float], runs: Mapping[str, Sequence[float]]
) -> _Predicted:
    means = {name: sum(values) / len(values) for name, values in runs.items()}
    found = agreement(list(usable.values()), [means[name] for name in usable])
    top, best = _first(usable), _first(means)
    lost = max(means.values()) - means[top] if top in means else float("nan")
    return _Predicted(cell, metric, score, found, over_single_seeds(usable, runs), top, best, lost)


def _first(values: Mapping[str, float]) -> str:
    """The encoder with the largest value; nobody where two share it."""
    largest = max(values.values())
    names = [name for name, value in values.items() if value == largest]
    return names[0] if len(names) == 1 else TIE


def _words(rows: Sequence[_Predicted]) -> str:
    parts = []
    for score in dict.fromkeys(row.score for row in rows):
        own = [row for row in rows if row.score == score]
        hits = sum(row.top == row.best != TIE for row in own)
        parts.append(f"{_NAMES.get(score, score)} in {hits} of {len(own)}")
    sizes = sorted({row.found.n for row in rows})
    least = max(row.found.smallest_p for row in rows)
    few = (
        f" With {sizes[0]} encoders even a perfect order has p = {p_value(least)}: tau is then a description, no "
        "evidence."
        if least >= 0.05
        else ""
    )
    return f"Settings in which the encoder ranked first was also the best one after training: {', '.join(parts)}.{few}"


def _table(rows: Sequence[_Predicted]) -> Table:
    header = (
        "task",
        "protocol",
        "metric",
        "score",
        "encoders",
        "Kendall tau",
        "p",
        "smallest p possible",
        "tau of single seeds",
        "ranked first",
        "trained best",
        "lost by the ranking",
    )
    lines = []
    for row in rows:
        found = row.found
        singles = NOTHING
        if len(row.singles) > 1:
            singles = f"{fixed(row.singles[0], 2, signed=True)} to {fixed(row.singles[-1], 2, signed=True)}"
        p = p_value(found.p) + ("" if found.exact else " (scipy)")
        numbers = (str(found.n), fixed(found.tau, 2, signed=True), p, p_value(found.smallest_p), singles)
        names = (row.cell.task, row.cell.protocol, row.metric.name, _NAMES.get(row.score, row.score))
        lines.append((*names, *numbers, row.top, row.best, amount(row.lost, row.metric)))
    return Table("Scores of frozen embeddings against trained means", header, tuple(lines), 4)


_NOTES = (
    "Kendall's tau-b between the score of the frozen encoder, which saw all training labels, and the mean over seeds "
    "after training with the largest share of the labels that was declared for it; p is "
    "two-sided over all orders of the encoders (up to 8 of them), uncorrected. An interval of tau is not given: its "
    "formulas "
    "need many more encoders than a study has.",
    "“tau of single seeds”: smallest and largest tau with one run per encoder instead of the mean. Where it is wide, "
    "the "
    "trained order itself is not settled. “lost by the ranking”: best trained mean less that of the encoder ranked "
    "first.",
)
