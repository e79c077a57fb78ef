"""A report as Markdown and its tables as LaTeX."""

from __future__ import annotations

from monai_ssl_transfer.study.report.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
    "“": "``",
    "”": "''",
}


def markdown_table(table: Table) -> str:
    """Return a table with its title and note as Markdown."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---" if index < table.names else "---:" for index in range(len(table.header))) + "|"
    rows = [
        line(tuple(f"**{cell}**" for cell in row) if index in table.bold else row)
        for index, row in enumerate(table.rows)
    ]
    note = f"\n\n{table.note}" if table.note else ""
    return "\n".join([f"### {table.title}", "", line(table.header), rule, *rows]) + note + "\n"


def latex_table(table: Table) -> str:
    """Return a table as LaTeX for the packages booktabs and longtable, which breaks over pages."""

    def line(cells: tuple[str, ...], bold: bool = False) -> str:
        texts = (latex_text(cell) for cell in cells)
        return " & ".join(rf"\textbf{{{text}}}" if bold else text for text in texts) + r" \\"

    columns = "l" * table.names + "r" * (len(table.header) - table.names)
    rows = [line(row, index in table.bold) for index, row in enumerate(table.rows)]
    caption = latex_text(f"{table.title}. {table.note}".strip())
    head = [
        rf"\begin{{longtable}}{{{columns}}}",
        rf"\caption{{{caption}}} \\",
        r"\toprule",
        line(table.header),
        r"\midrule",
    ]
    return "\n".join([*head, r"\endhead", *rows, r"\bottomrule", r"\end{longtable}"]) + "\n"


def latex_text(text: str) -> str:
    """Escape what LaTeX would read as a command; minus signs before numbers become those of mathematics."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    words = escaped.split(" ")
    return " ".join(f"${word}$" if word[:1] in "+-" and word[1:2].isdigit() else word for word in words)
