"""Tables of a report as HTML."""

from __future__ import annotations

import html

from monai_ssl_transfer.study.report.tables import Table


def html_table(table: Table) -> str:
    """Return a table with its title and note as HTML; it scrolls within itself where it is too wide."""

    def line(cells: tuple[str, ...], tag: str, shown: bool = False) -> str:
        texts = "".join(
            f"<{tag}{' class=name' if index < table.names else ''}>{html.escape(minus_signs(cell))}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr{' class=shown' if shown else ''}>{texts}</tr>"

    rows = "".join(line(row, "td", index in table.bold) for index, row in enumerate(table.rows))
    note = f"<p class='note'>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f"<h3>{html.escape(table.title)}</h3><div class='scroll' tabindex='0'><table><thead>{line(table.header, 'th')}"
        f"</thead><tbody>{rows}</tbody></table></div>{note}"
    )


def minus_signs(cell: str) -> str:
    """Return a text with a true minus sign where a number begins with a hyphen."""
    return " ".join(
        word.replace("-", "−", 1) if word.lstrip("(")[:1] == "-" and word.lstrip("(")[1:2].isdigit() else word
        for word in cell.split(" ")
    )
