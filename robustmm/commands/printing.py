"""Tables on standard output: drawn by rich in a terminal, plain aligned columns elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header; the first column, which holds names, is never cut or wrapped."""
    console = Console()
    if console.is_terminal:
        console.print(_rich_table(header, rows))
    else:
        click.echo(plain_table(header, rows))


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(header):
        table.add_column(title, no_wrap=number == 0, overflow="fold", min_width=8 if number else None)
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, since brackets in a cell are not markup
    return table


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell, two spaces apart, without trailing blanks."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
