"""``robustmm evaluate``: score a trained run on every combination of modalities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from robustmm.engine.run_folder import RunFolder


@click.command("evaluate")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "gpu", "cuda", "mps"]),
    help="Evaluate on this kind of device instead of the one that the run was trained on.",
)
@click.option(
    "--pictures",
    type=click.IntRange(0, 32),
    help="Test samples on the picture sheet of dense prediction instead of the run's evaluation.pictures; 0: no sheet.",
)
def command(folder: Path, accelerator: str | None, pictures: int | None) -> None:
    """Score the selected weights of RUN on every combination of the test part, in one pass on one device."""
    from robustmm import evaluation
    from robustmm.engine.run_folder import RunFolder
    from robustmm.plugin_manager import get_plugins

    made = RunFolder(folder)
    made.require()
    evaluation.evaluate(made, get_plugins().registry, accelerator=accelerator, pictures=pictures)
    show_run(made)


def show_run(folder: RunFolder) -> None:
    """Print the table of the run, and where its files are."""
    from rich.console import Console

    from robustmm.report.results import read_results
    from robustmm.report.tables import combination_table

    if not _first_process():
        return
    record = read_results(folder.results)["protocols"]["combinations"]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    console.print(combination_table(record))
    for row in record["degenerate"]:
        console.print(f"degenerate: {row} predicts one class for everything; it counts as chance in mean and worst")
    short = [row for row in record["rows"] if row["excluded"] or row["incomplete"]]
    if short:
        console.print(
            f"incomplete data: {len(short)} of {len(record['rows'])} combinations leave samples out or predict some "
            "from fewer modalities, so rows stand on different samples; the CSV and the report have the counts",
            soft_wrap=True,
        )
    selection = record["selection"]
    console.print(
        f"weights of epoch {selection['epoch']}, selected by {selection['metric']} on {selection['part']} "
        f"({selection['value']:.4f})",
        soft_wrap=True,
    )
    for label, path in (
        ("report", folder.path / "report.html"),
        ("pictures", folder.path / "eval" / "pictures.png"),
        ("results", folder.results),
        ("table", folder.path / "eval" / "combinations.csv"),
        ("tensorboard", folder.path / "tb"),
    ):
        if path.exists():
            shown = f"tensorboard --logdir {path}" if label == "tensorboard" else str(path)
            console.print(f"{label:<12}{shown}", soft_wrap=True, markup=False)


def _first_process() -> bool:
    from robustmm import distributed

    return distributed.rank() == 0
