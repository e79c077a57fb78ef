"""The demo's one HTML page: what was run, the table, the curves, the contours."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .9em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;padding:.1em .3em}
.verdict{background:#f3f7ff;border-left:4px solid #3a8ee8;padding:.7em 1em}
"""


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; every cell is escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(header, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def write_page(file: Path, title: str, sections: Mapping[str, str]) -> None:
    """Write a self-contained page of ``heading -> HTML`` sections."""
    body = "".join(f"<h2>{html.escape(heading)}</h2>{content}" for heading, content in sections.items())
    file.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body><h1>{html.escape(title)}</h1>{body}</body></html>",
        encoding="utf-8",
    )
