"""Tables as Markdown, CSV and LaTeX text; cells come as plain text and are escaped here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

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
    "†": r"\dag{}",
    "<": r"$<$",
    ">": r"$>$",
}


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; the first column names the rows.

    Args:
        title: Of the whole.
        header: One text per column.
        rows: As wide as the header.
        bold: (row, column) of cells in bold.
        rules: Rows before which a line is drawn.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    rules: frozenset[int] = frozenset()


def turned(table: PlainTable) -> PlainTable:
    """Rows as columns; lines between rows are left out."""
    columns = zip(table.header, *table.rows, strict=True)
    header, *rows = columns
    bold = frozenset((column - 1, row + 1) for row, column in table.bold)
    return PlainTable(table.title, header, tuple(rows), bold)


def to_markdown(table: PlainTable) -> str:
    """A pipe table under its title."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

    ruler = "|---|" + "---:|" * (len(table.header) - 1)
    rows = [
        line([f"**{cell}**" if (y, x) in table.bold else cell for x, cell in enumerate(row)])
        for y, row in enumerate(table.rows)
    ]
    return "\n".join([f"**{escape_markdown(table.title)}**", "", line(table.header), ruler, *rows]) + "\n"


def escape_markdown(text: str) -> str:
    """A cell that neither ends early nor breaks its line."""
    return " ".join(text.split()).replace("|", r"\|")


def to_latex(table: PlainTable) -> str:
    """A ``tabular`` with booktabs rules, under a comment with its title; needs ``\\usepackage{booktabs}``."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = []
    for y, row in enumerate(table.rows):
        body += [r"\midrule"] if y in table.rules else []
        cells = [escape_latex(cell) for cell in row]
        body.append(line([rf"\textbf{{{cell}}}" if (y, x) in table.bold else cell for x, cell in enumerate(cells)]))
    columns = "l" + "r" * (len(table.header) - 1)
    head = [f"% {' '.join(table.title.split())}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    head += [line([escape_latex(cell) for cell in table.header]), r"\midrule"]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it; minus signs of numbers become real ones."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return re.sub(r"(?<![\w}])-(?=\d)", "$-$", escaped)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated lines; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
