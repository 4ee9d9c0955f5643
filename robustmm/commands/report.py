"""``robustmm report``: write the page of a run again, and its tables."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--tables",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write a table of each protocol into this folder, as Markdown, CSV and LaTeX.",
)
def command(folder: Path, tables: Path | None) -> None:
    """Write report.html of RUN from its results, and print where it is."""
    from robustmm.engine.run_folder import RunFolder
    from robustmm.report.exported_tables import write_tables
    from robustmm.report.html import write_report

    RunFolder(folder).require()
    click.echo(write_report(folder))
    if tables is not None:
        for path in write_tables(folder, tables):
            click.echo(path)
