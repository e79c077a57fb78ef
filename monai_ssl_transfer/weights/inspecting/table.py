"""An inspection as a text that fits a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from monai_ssl_transfer.weights.report import first_names, statistics_table

if TYPE_CHECKING:
    from monai_ssl_transfer.weights.inspecting.inspection import Inspection, TensorGroup
    from monai_ssl_transfer.weights.published.files import KnownFile

LABEL = 15
WIDTH = 110
ENTRIES = 4
UNKNOWN = "not known from the file"


def table_of(inspection: Inspection, names: int) -> str:
    """The table.

    Args:
        inspection: of a file.
        names: how many names to show of every group of tensors.
    """
    rows = [
        ("file", f"{inspection.file} ({inspection.size / 1e6:.1f} MB)"),
        ("format", inspection.format),
        ("sha256", inspection.sha256),
    ]
    if inspection.foreign_classes:
        rows.append(("asks for", f"{first_names(inspection.foreign_classes, 3)}: read as values, nothing was run"))
    rows += _known_rows(inspection)
    if inspection.refusal:
        rows.append(("CANNOT BE USED", inspection.refusal))
        return "\n".join([*_lines(rows), "", "what it holds", *_groups(inspection.used, names)])
    rows += _encoder_rows(inspection)
    rows += [("note", note) for note in inspection.notes]
    rows += [("WARNING", warning) for warning in inspection.warnings]
    return "\n".join(
        [
            *_lines(rows),
            "",
            "used",
            *_groups(inspection.used, names),
            "dropped" if inspection.dropped else "dropped: nothing",
            *_groups(inspection.dropped, names),
            "",
            "values of the encoder",
            *(f"  {line}" for line in statistics_table(inspection.statistics)),
        ]
    )


def _encoder_rows(inspection: Inspection) -> list[tuple[str, str]]:
    card = inspection.card
    if card is None:
        return []
    shape = [
        f"{card.in_channels} input channel{'s' * (card.in_channels > 1)}"
        + (f" ({card.channels})" if card.channels else "")
    ]
    if inspection.patch_size:
        registers = f"{inspection.registers} registers" if inspection.registers else "no registers"
        shape += [f"patches of {inspection.patch_size} pixels", registers, f"positions for {card.image_size} pixels"]
    method = str(card.method.get("name", "")) or UNKNOWN
    domain = ", ".join(f"{name} {value}" for name, value in card.data.items() if isinstance(value, str | int))
    whole = "whole: every tensor is there with its shape" if inspection.complete else first_names(inspection.gaps, 5)
    normal = f"mean {_figures(card.mean)}, SD {_figures(card.std)}" if card.mean else UNKNOWN
    return [
        ("source", inspection.source),
        ("method", method),
        ("encoder", f"{card.architecture}, {', '.join(shape)}"),
        ("complete" if inspection.complete else "NOT COMPLETE", whole),
        ("trained on", domain or UNKNOWN),
        ("normalisation", normal),
        *([("licence", card.licence)] if card.licence and inspection.known is None else []),
    ]


def _known_rows(inspection: Inspection) -> list[tuple[str, str]]:
    known, hint = inspection.known, inspection.name_hint
    if known is not None:
        return [("known file", f"yes, by its hash: {known.name}"), *_terms(known)]
    if hint is None:
        own = inspection.card is not None and inspection.card.weights_hash
        return [] if own else [("known file", "no; its licence must be looked up where it comes from")]
    if hint.sha256:
        named = f"no: it is called {hint.name} but is not that file; it is another one, or damaged"
        return [("known file", named)]
    named = f"by its name alone, which proves nothing (no hash of {hint.name} is published)"
    return [("known file", named), *_terms(hint)]


def _terms(known: KnownFile) -> list[tuple[str, str]]:
    said = {True: "allowed", False: "NOT allowed", None: "nothing found"}
    rows = [
        ("licence", known.licence),
        ("", f"handing on: {said[known.redistribution]}; commercial use: {said[known.commercial]}"),
    ]
    return rows + ([("acknowledge", known.acknowledgement)] if known.acknowledgement else [])


def _lines(rows: Iterable[tuple[str, str]]) -> list[str]:
    indent = " " * (LABEL + 1)
    lines = []
    for label, text in rows:
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"{label:<{LABEL}} ", subsequent_indent=indent, break_on_hyphens=False
        )
    return lines


def _groups(groups: Iterable[TensorGroup], names: int) -> list[str]:
    """One line for a group and, if names are wanted, a second one with its first names."""
    rows = [(group, *_row(group)) for group in groups]
    width = max((len(start) for _, start, _ in rows), default=0)
    lines = []
    for group, start, size in rows:
        lines.append(f"  {start:<{width}}{size:>27}   {group.why}".rstrip())
        if names and group.numbers:
            lines += textwrap.wrap(
                first_names(group.names, names), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return lines


def _row(group: TensorGroup) -> tuple[str, str]:
    if not group.numbers:
        return first_names(group.names, ENTRIES), ""
    return group.start, f"{len(group.names)} tensor{'s' * (len(group.names) > 1)}{group.numbers:>14,}"


def _figures(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
