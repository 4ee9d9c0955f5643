"""``robustmm customise``: hold a run against models that were trained for one combination each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from robustmm.report.markup import PlainTable


@click.command("customise")
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--combinations", metavar="A,B+C,...", help="Combinations to train a model for; all that RUN has.")
@click.option("--method", default="plain", show_default=True, metavar="NAME", help="Method of these models.")
@click.option("--balancer", default="none", show_default=True, metavar="NAME", help="Balancer of these models.")
@click.option(
    "-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key of their configurations."
)
@click.option("--jobs", type=click.IntRange(1), help="Trainings at a time; as many as the machine carries.")
def command(
    folder: Path, combinations: str | None, method: str, balancer: str, overrides: tuple[str, ...], jobs: int | None
) -> None:
    """Train a model for each combination of RUN with its recipe, and set their scores beside RUN's own.

    The models lie in RUN/customised; those that are done are kept. The results join RUN's as protocol 'customised'.
    """
    from rich.console import Console

    from robustmm.commands.pool_progress import raise_if_failed, run_locally
    from robustmm.plugin_manager import get_plugins, plugins_dirs
    from robustmm.report.comparison_tables import rich_table
    from robustmm.report.html import write_report
    from robustmm.report.results import write_protocol
    from robustmm.sweep.coverage import check_samples
    from robustmm.sweep.customised import CUSTOMISED, CustomiseRequest, customised_record, plan_customised
    from robustmm.sweep.pool import locked
    from robustmm.sweep.tasks import Needs, TrainTask

    chosen = tuple(part.strip() for part in combinations.split(",")) if combinations else ()
    request = CustomiseRequest(folder, chosen, method, balancer, overrides)
    planned = plan_customised(request, get_plugins().registry)
    check_samples(request, planned, get_plugins().registry)
    tasks = [
        TrainTask(
            one.combination,
            one.folder,
            ("-c", str(folder / "config.yaml"), *(part for text in one.overrides for part in ("-o", text))),
            plugins_dirs(),
        )
        for one in planned
    ]
    with locked(folder / CUSTOMISED) as lock:
        outcomes = run_locally(tasks, lock, Needs.of(one.config.train for one in planned), jobs)
    raise_if_failed(outcomes, len(tasks))
    record = customised_record(request, planned)
    facts = ("run", "dataset", "split", "method", "balancer", "missing_policy", "seed")
    write_protocol(folder, CUSTOMISED, record, row_facts={key: record[key] for key in facts})
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    console.print(rich_table(customised_table(record)))
    click.echo(f"report      {write_report(folder)}")
    click.echo(f"results     {folder / 'results.json'}")


def customised_table(record: Mapping[str, Any]) -> PlainTable:
    """Unified, customised and difference of the main score by combination, and their means."""
    from robustmm.report.markup import PlainTable
    from robustmm.report.tables import number, signed

    score = record["score"]

    def line(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
        own, unified = row["customised"][score], row["unified"][score]
        return name, number(unified), number(own), signed(own, unified)

    rows = [line(f"{row['combination']}{'  DEGENERATE' if row['degenerate'] else ''}", row) for row in record["rows"]]
    means = line(f"mean of {len(rows)}", record["means"])
    header = ("combination", f"unified {score}", "customised", "customised minus unified")
    return PlainTable(record["title"], header, (*rows, means), rules=frozenset({len(rows)}))
