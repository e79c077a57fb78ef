"""Files that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_ssl_transfer.data.audit.catalogue import CHECKS, refusal_check
from monai_ssl_transfer.data.audit.facts import ScanFacts
from monai_ssl_transfer.data.audit.findings import Finding, finding
from monai_ssl_transfer.data.audit.records import Record


def damaged_files(records: Sequence[Record]) -> Iterator[Finding]:
    """Images, labels and slices of series that an ingest refuses, in its words."""
    for one in records:
        if one.other:
            continue
        if one.facts.problem is not None:
            yield _refusal(one.facts.problem, one.shown)
        if one.facts.label is not None and one.facts.label.problem is not None:
            yield _refusal(one.facts.label.problem, one.item.shown_label or one.shown)
        if isinstance(one.facts, ScanFacts) and one.facts.problem is None:
            yield from _left_out(one, one.facts)


def _refusal(problem: tuple[str, str], shown: str) -> Finding:
    code, sentence = problem
    return finding(code if code in CHECKS else "damaged", f"{shown}: {sentence}", [shown])


def _left_out(one: Record, facts: ScanFacts) -> Iterator[Finding]:
    """Slices of a DICOM series that an ingest leaves out, one finding per reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for path, code, sentence in facts.refused:
        reasons.setdefault((refusal_check(code), sentence), []).append(Path(path).name)
    for (check, sentence), names in sorted(reasons.items()):
        telling = f"{one.shown}: {len(names)} of its files ({sorted(names)[0]} ...): {sentence}"
        yield finding(check, telling, [one.shown])
