"""How far a long walk over data is: a bar where standard error is a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import click

#: Between two lines where there is no terminal.
SECONDS = 10.0

Item = TypeVar("Item")


def track(label: str, items: Sequence[Item]) -> Iterator[Item]:
    """Hand on items one by one and show on standard error how many are done; see `robustmm.Track`."""
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True)
    if console.is_terminal:
        yield from bar(items, label, console=console, transient=True)
    else:
        yield from _with_lines(label, items)


def _with_lines(label: str, items: Sequence[Item]) -> Iterator[Item]:
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            click.echo(f"{label}: {done} of {len(items)}", err=True)
        yield item
