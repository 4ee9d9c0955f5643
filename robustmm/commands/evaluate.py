"""``robustmm evaluate``: score a trained run on every combination of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from robustmm.engine.run_folder import RunFolder

#: As `robustmm.config.evaluation.ProtocolName`, which imports pydantic: not for --help.
PROTOCOLS = ("combinations", "expected", "missing-rate", "corruption", "noise", "calibration", "latency")


def _with_hyphens(word: str) -> str:
    """A protocol may be written with underscores, as its section in configurations is."""
    return word.replace("_", "-")


@click.command("evaluate", context_settings={"token_normalize_func": _with_hyphens})
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
@click.option(
    "-p",
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(PROTOCOLS),
    help="Measure by this protocol; may be repeated. As it stands the run's evaluation.protocols.",
)
@click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key below evaluation, as in -o evaluation.missing_rate.seeds=3; may be repeated.",
)
@click.option(
    "--masks",
    metavar="FILE",
    help="Mask file of another run, eval/masks.npz, for the protocol missing-rate.",
)
@click.option(
    "--adapter",
    metavar="NAME",
    help="Measure with this test-time adapter, beside the results without one, which stay as they are.",
)
@click.option(
    "--adapter-option",
    "adapter_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the adapter, as in --adapter-option lr=1e-3; may be repeated.",
)
def command(
    folder: Path,
    accelerator: str | None,
    pictures: int | None,
    protocols: tuple[str, ...],
    overrides: tuple[str, ...],
    masks: str | None,
    adapter: str | None,
    adapter_options: tuple[str, ...],
) -> None:
    """Score the selected weights of RUN on the test part, in one pass on one device.

    Each protocol has a JSON and a CSV file in RUN/eval, and all are in results.json and report.html. What is recorded
    of each sample is kept, so that nothing is predicted twice; a pass that is stopped goes on where it was.
    """
    if adapter is None and adapter_options:
        raise click.UsageError("--adapter-option needs --adapter NAME; 'robustmm list adapter' shows the names")
    if adapter is not None and pictures is not None:
        raise click.UsageError("--pictures shows the model without adapter; leave out --adapter or --pictures")
    if adapter is not None and (protocols or masks):
        raise click.UsageError("an adapter is measured on all combinations alone; leave out --adapter or the protocols")
    _check_overrides(overrides)
    from robustmm import evaluation
    from robustmm.engine.run_folder import RunFolder
    from robustmm.plugin_manager import get_plugins

    made = RunFolder(folder)
    made.require()
    registry = get_plugins().registry
    if masks is not None:
        _refuse_what_masks_say(overrides)
        overrides = (*overrides, f"evaluation.missing_rate.masks={masks}")
    if adapter is None:
        from robustmm.commands.progress import track

        evaluation.evaluate(
            made,
            registry,
            accelerator=accelerator,
            pictures=pictures,
            protocols=protocols or None,
            overrides=overrides,
            track=track,
        )
    else:
        chosen = [f"evaluation.adapter={adapter}", *(f"evaluation.adapter.{text}" for text in adapter_options)]
        chosen += overrides
        evaluation.evaluate_with_adapter(made, registry, chosen, accelerator=accelerator)
    show_run(made, protocols or None)


def _check_overrides(overrides: tuple[str, ...]) -> None:
    """A trained run's data and model are what they are."""
    for text in overrides:
        if not text.startswith("evaluation."):
            raise click.UsageError(f"-o {text}: a trained run stays as it is; change keys below evaluation")


def _refuse_what_masks_say(overrides: tuple[str, ...]) -> None:
    """A mask file has rates, patterns and draws of its own."""
    for text in overrides:
        key = text.partition("=")[0]
        if key.startswith("evaluation.missing_rate."):
            raise click.UsageError(f"-o {text}: --masks brings rates and patterns of its own; leave one of them out")


def show_run(folder: RunFolder, asked: Sequence[str] | None = None) -> None:
    """Print the tables of the run, and where its files are.

    Args:
        folder: Of the run.
        asked: Protocols whose tables are printed; None prints all.
    """
    from rich.console import Console

    from robustmm.report.protocol_tables import protocol_table
    from robustmm.report.results import COMBINATIONS, adapted_records, read_results
    from robustmm.report.tables import combination_table, number

    if not _first_process():
        return
    protocols = read_results(folder.results)["protocols"]
    record = protocols[COMBINATIONS]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    if asked is None or COMBINATIONS in asked:
        console.print(combination_table(record))
        _print_degenerate(console, record)
    for adapted in adapted_records(protocols) if asked is None else ():
        console.print(combination_table(adapted, before=record))
        _print_degenerate(console, adapted)
    for name in PROTOCOLS:
        if name != COMBINATIONS and name in protocols and (asked is None or name in asked):
            console.print(protocol_table(name, protocols[name]))
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
        f"({number(selection['value'])})",
        soft_wrap=True,
    )
    for label, path in (
        ("report", folder.path / "report.html"),
        ("pictures", folder.path / "eval" / "pictures.png"),
        ("results", folder.results),
        ("tables", folder.path / "eval"),
        ("predictions", folder.path / "eval" / "predictions.npz"),
        ("model card", folder.checkpoints / "MODEL_CARD.md"),
        ("tensorboard", folder.path / "tb"),
    ):
        if path.exists():
            shown = {"tensorboard": f"tensorboard --logdir {path}", "tables": f"{path / '*.csv'}"}.get(label, str(path))
            console.print(f"{label:<12}{shown}", soft_wrap=True, markup=False)


def _print_degenerate(console: Console, record: Mapping[str, Any]) -> None:
    for row in record["degenerate"]:
        console.print(f"degenerate: {row} gives one answer for everything; it counts as chance in mean and worst")


def _first_process() -> bool:
    from robustmm import distributed

    return distributed.rank() == 0
