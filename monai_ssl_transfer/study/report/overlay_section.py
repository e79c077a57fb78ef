"""Contours of truth and prediction: every initialisation on the same cases."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_ssl_transfer.study.cell_values import values_of
from monai_ssl_transfer.study.report.printing import fixed, place
from monai_ssl_transfer.study.report.run_folder import RunCell, RunFolder, read_json
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Analysis

PICTURES, PICTURE_LIST = "overlays", "cases.json"
_METRIC = "dice"
TRUTH_COLOUR, PREDICTION_COLOUR = "rgb(60,255,60)", "rgb(70,170,255)"


@dataclass(frozen=True)
class _Looked:
    """One run of one initialisation."""

    run: RunCell
    dice: Mapping[str, float]
    files: Mapping[str, Path]


def overlay_section(run: RunFolder, analysis: Analysis) -> Section | None:
    """Return the pictures of every task with kept overlays; None where no evaluation kept them.

    A task is shown at its largest fraction, in the first protocol and seed that most initialisations have.
    """
    kept = [one for one in run.done() if (one.evaluation / PICTURES / PICTURE_LIST).is_file()]
    order = list(dict.fromkeys(one.cell.initialisation for one in analysis.declaration.cells))
    parts = []
    for task in dict.fromkeys(one.cell.task for one in kept):
        chosen = _chosen([one for one in kept if one.cell.task == task])
        looked = {one.cell.initialisation: _looked(one) for one in chosen}
        named = {name: looked[name] for name in [*order, *looked] if name in looked}
        cases = same_cases({name: one.dice for name, one in named.items()})
        if cases:
            parts.append(_task(named, cases))
    if not parts:
        return None
    key = (
        f"<p><span class='contour' style='background:{TRUTH_COLOUR}'>truth</span> "
        f"<span class='contour' style='background:{PREDICTION_COLOUR}'>prediction</span> of photographs; of volumes, "
        "truth solid and prediction dashed, in the colours that the picture names.</p>"
    )
    note = (
        "Best, median and worst case by the mean Dice of the initialisations shown, and the case on which they "
        "differ most. One "
        "seed of each: these pictures are examples, the tables are the result."
    )
    return Section("Predictions on the same cases", pictures=key + "".join(parts), notes=(note,))


def same_cases(dice: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Choose cases that every initialisation has judged.

    Args:
        dice: initialisation -> case -> Dice.

    Returns:
        "best", "median", "worst" (by the mean over initialisations) and, with two initialisations or more,
        "differ most", to a case; a case that is chosen already is not chosen again.
    """
    common = set.intersection(*(set(one) for one in dice.values())) if dice else set()
    mean = {case: sum(one[case] for one in dice.values()) / len(dice) for case in common}
    order = sorted(common, key=lambda case: (-mean[case], case))
    if not order:
        return {}
    found = {"best": order[0]}
    if len(order) > 2:
        found["median"] = order[len(order) // 2]
    if len(order) > 1:
        found["worst"] = order[-1]
    spread = {case: max(one[case] for one in dice.values()) - min(one[case] for one in dice.values()) for case in order}
    rest = [case for case in order if case not in found.values()]
    if len(dice) > 1 and rest:
        found["differ most"] = max(rest, key=lambda case: spread[case])
    return found


def _chosen(runs: Sequence[RunCell]) -> list[RunCell]:
    """Runs of one setting and seed: of the largest fraction, that which most initialisations have."""
    largest = max(one.cell.fraction for one in runs)
    settings: dict[tuple[str, str, int], list[RunCell]] = {}
    for one in runs:
        if one.cell.fraction == largest:
            settings.setdefault((one.cell.study, one.cell.protocol, one.seed), []).append(one)
    return max(settings.values(), key=len)


def _looked(one: RunCell) -> _Looked:
    folder = one.evaluation / PICTURES
    files = {case: folder / Path(file).name for case, file in read_json(folder / PICTURE_LIST).items()}
    rows = values_of(one.folder)
    dice = {row["case"]: float(row["value"]) for row in rows if row["metric"] == _METRIC and row["case"] in files}
    return _Looked(one, {case: value for case, value in dice.items() if files[case].is_file()}, files)


def _task(looked: Mapping[str, _Looked], cases: Mapping[str, str]) -> str:
    first = next(iter(looked.values())).run
    where = place(Cell("", first.cell.task, "", first.cell.protocol, first.cell.fraction))
    rows = []
    for kind, case in cases.items():
        figures = "".join(_figure(name, one, case) for name, one in looked.items())
        heading = "They differ most" if kind == "differ most" else kind.capitalize()
        rows.append(f"<p class='case'><b>{heading}</b>: {html.escape(case)}</p><div class='looked'>{figures}</div>")
    return f"<h3>{html.escape(where)}, seed {first.seed}</h3>{''.join(rows)}"


def _figure(name: str, one: _Looked, case: str) -> str:
    source = base64.b64encode(one.files[case].read_bytes()).decode()
    words = html.escape(f"{name}: Dice {fixed(one.dice[case], 3)}")
    return f"<figure><img alt='{words}' src='data:image/jpeg;base64,{source}'><figcaption>{words}</figcaption></figure>"
