"""Which declared runs have no value, and why."""

from __future__ import annotations

from collections.abc import Sequence

from monai_ssl_transfer.study.report.printing import place
from monai_ssl_transfer.study.report.run_folder import RunCell, RunFolder
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Analysis


def reasons(run: RunFolder, analysis: Analysis) -> list[str]:
    """Say for every declared run without a value what became of it, runs of the same fate together."""
    known = {(one.cell, one.seed): one for one in run.cells}
    missing: dict[tuple[Cell, int], list[str]] = {}
    for one in analysis.missing:
        for seed in one.seeds:
            missing.setdefault((one.cell, seed), []).append(one.metric)
    together: dict[str, list[str]] = {}
    for (cell, seed), metrics in missing.items():
        name = f"{cell.initialisation} in {place(cell)}, seed {seed}"
        together.setdefault(_fate(known.get((cell, seed)), metrics), []).append(name)
    return [f"{fate}: {'; '.join(names)}." for fate, names in together.items()]


def _fate(one: RunCell | None, metrics: Sequence[str]) -> str:
    if one is None:
        return "Not run to its end"
    if one.done:
        without = f"without a defined {', '.join(metrics)}"
        return f"Ended well {without}, or after the table was written (`study run` mends that)"
    reason = str(one.record.get("reason") or "no reason was recorded").strip().rstrip(".")
    attempts = int(one.record.get("attempts") or 1)
    return f"Failed{f' in each of {attempts} attempts' if attempts > 1 else ''} ({reason})"
