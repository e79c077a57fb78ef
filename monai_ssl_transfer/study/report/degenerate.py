"""Cells whose seeds change nothing."""

from __future__ import annotations

from monai_ssl_transfer.study.report.printing import place
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Analysis

_SAME = 1e-12


def degenerate(analysis: Analysis) -> Section | None:
    """Name the cells of two runs or more that all gave the same value: there a seed is a repetition, not a sample."""
    found: dict[Cell, list[str]] = {}
    for one in analysis.declaration.cells:
        for metric in one.metrics:
            values = list(analysis.results.per_seed(one.cell, metric).values())
            if len(values) > 1 and max(values) - min(values) <= _SAME * max(1.0, abs(values[0])):
                found.setdefault(one.cell, []).append(metric)
    if not found:
        return None
    names = "; ".join(
        f"{cell.initialisation} in {place(cell)} ({', '.join(metrics)})" for cell, metrics in found.items()
    )
    return Section(
        "Seeds without effect",
        (
            f"All seeds of these cells gave the same value: {names}. Either nothing in them is random, or their runs "
            "happen "
            "to agree.",
            "A spread of 0 over such seeds says nothing about other training runs. Where both sides have none there "
            "is no p "
            "over seeds (it counts as 1); where one side has none, the p rests on the other side's spread alone. "
            "Read the "
            "comparison over the cases of the test set instead.",
        ),
    )
