"""``robustmm report``: write the page of a run again."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write report.html of RUN from its results, and print where it is."""
    from robustmm.report.html import write_report

    click.echo(write_report(folder))
