"""A part of a report that is there only for a study that was run here: words, tables, pictures."""

from __future__ import annotations

from dataclasses import dataclass

from monai_ssl_transfer.study.report.tables import Table


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Args:
        title: its heading.
        paragraphs: words, of every format.
        tables: of every format.
        pictures: HTML that needs nothing else; left out of Markdown and LaTeX.
        notes: small print below, of every format.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: str = ""
    notes: tuple[str, ...] = ()
