"""What a study has cost: time, memory and trained parameters, the pretraining included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ssl_transfer.study.report.printing import NOTHING, percent
from monai_ssl_transfer.study.report.run_folder import RunCell, RunFolder
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.tables import Table

_NOTES = (
    "Seconds are those of the clock from a run's start to its end, evaluation and robustness included. Runs that "
    "shared a "
    "machine slowed each other down, so that compare them only where they ran alike.",
    "Peak memory is the largest of the runs: of the device on a GPU, of the process on a CPU.",
)


def spent(run: RunFolder) -> Section | None:
    """Return the cost per initialisation and per setting; None where nothing ended well."""
    done = run.done()
    if not done:
        return None
    total = sum(_seconds(one.record) for one in [*run.cells]) + sum(map(_seconds, run.pretraining.values()))
    devices = ", ".join(sorted({str(one.record.get("device", "")) or "an unnamed device" for one in done}))
    failed = len(run.cells) - len(done)
    lead = f"{len(done)} runs on {devices}: {duration(total)} of computing in all"
    lead += f", {failed} failed {'run' if failed == 1 else 'runs'} counted." if failed else "."
    if run.pretraining:
        lead += f" {duration(sum(map(_seconds, run.pretraining.values())))} of it went into pretraining."
    return Section("Cost", (lead,), (_by_initialisation(run), _by_setting(done)), notes=_NOTES)


def duration(seconds: float) -> str:
    """Print a time in the unit that fits: "45 s", "12.5 min", "3.2 h", "4.1 days"."""
    for limit, unit, size in ((100.0, "s", 1.0), (6000.0, "min", 60.0), (172800.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if unit == "s" else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _by_initialisation(run: RunFolder) -> Table:
    names = list(dict.fromkeys(one.cell.initialisation for one in run.cells))
    rows = []
    for name in [*names, *(other for other in run.pretraining if other not in names)]:
        own = [one for one in run.done() if one.cell.initialisation == name]
        before = run.pretraining.get(name)
        transfer = sum(_seconds(one.record) for one in own)
        first = "none here" if before is None else duration(_seconds(before))
        whole = transfer + (_seconds(before) if before is not None else 0.0)
        rows.append((name, first, str(len(own)), duration(transfer), duration(whole)))
    header = ("initialisation", "pretraining", "runs", "transfer, all runs", "together")
    note = "Pretraining “none here”: no weights, or weights from elsewhere, whose cost is not known."
    return Table("Cost by initialisation", header, tuple(rows), 1, note)


def _by_setting(done: Sequence[RunCell]) -> Table:
    settings: dict[tuple[str, str, float, str], list[RunCell]] = {}
    for one in done:
        cell = one.cell
        settings.setdefault((cell.task, cell.protocol, cell.fraction, cell.initialisation), []).append(one)
    rows = []
    for (task, protocol, fraction, name), runs in settings.items():
        seconds = [_seconds(one.record) for one in runs]
        middle = duration(sum(seconds) / len(seconds))
        ends = f"{duration(min(seconds))} to {duration(max(seconds))}" if len(seconds) > 1 else NOTHING
        rows.append(
            (
                task,
                percent(fraction),
                protocol,
                name,
                str(len(runs)),
                middle,
                ends,
                _memory(runs),
                _count(runs, "trainable_parameters"),
                _count(runs, "training_images"),
            )
        )
    header = (
        "task",
        "labels",
        "protocol",
        "initialisation",
        "runs",
        "time of a run",
        "from to",
        "peak memory",
        "trained parameters",
        "training cases",
    )
    return Table("Cost by setting", header, tuple(rows), 4)


def _seconds(record: Mapping[str, Any]) -> float:
    return float(record.get("seconds") or 0.0)


def _memory(runs: Sequence[RunCell]) -> str:
    peak = max(float(one.record.get("peak_memory_bytes") or 0) for one in runs)
    return f"{peak / 2**30:.2f} GiB" if peak else NOTHING


def _count(runs: Sequence[RunCell], key: str) -> str:
    """A whole number of every run, or its ends where the runs differ."""
    values = sorted({int(one.record.get(key) or 0) for one in runs})
    if values == [0]:
        return NOTHING
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"
