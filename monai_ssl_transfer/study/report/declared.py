"""What was fixed before the runs: seeds, families, margins, and the tuning that every initialisation got."""

from __future__ import annotations

from monai_ssl_transfer.study.planning.identity import CODE
from monai_ssl_transfer.study.report.printing import amount
from monai_ssl_transfer.study.report.run_folder import RunFolder
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.statistics.analysis import Analysis


def _codes(run: RunFolder) -> list[str]:
    """Tell where runs of a study were made by several states of the package's code."""
    found = {str((one.record.get("identity") or {}).get(CODE)) for one in run.done()}
    if len(found) < 2:
        return []
    return [
        f"Its runs were made by {len(found)} states of the package's code: what differs between them may come from "
        "that. `study run` without --any-code runs again what the present code has not made."
    ]


def declared(run: RunFolder, analysis: Analysis) -> Section:
    """Return the statement of what the study set out to do."""
    declaration = analysis.declaration
    seeds = sorted({seed for one in declaration.cells for seed in one.seeds})
    runs = sum(len(one.seeds) for one in declaration.cells)
    budget = str(run.settings.get("budget") or "").strip()
    first = (
        f"Tuning, the same for every initialisation: {budget.rstrip('.')}."
        if budget
        else "No tuning budget was stated: it is not known whether one initialisation was tuned more than another."
    )
    families = "; ".join(
        f"“{one.name}” ({len(one.comparisons)} {'comparison' if len(one.comparisons) == 1 else 'comparisons'}: "
        f"{one.description.rstrip('.')})"
        for one in declaration.families
    )
    margins = [one for one in declaration.metrics if one.margin]
    stated = "; ".join(
        f"{one.name} {amount(one.margin or 0.0, one)}{f' {one.difference_unit}' if one.difference_unit else ''}"
        for one in margins
    )
    return Section(
        "What was declared",
        (
            first,
            f"{runs} runs: {len(declaration.cells)} cells, {'seed' if len(seeds) == 1 else 'seeds'} "
            f"{', '.join(map(str, seeds))}.",
            *_codes(run),
            f"Families that are corrected together: {families or 'none'}.",
            f"Largest differences that do not matter: {stated}."
            if margins
            else "No margin was stated, so nothing can be shown to be no worse.",
        ),
        notes=("study.yaml and study.json in the study's folder hold the whole of it.",),
    )
