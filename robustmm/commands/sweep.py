"""``robustmm sweep``: every combination of configurations, values and seeds, as runs of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from robustmm.sweep.plan import Plan
    from robustmm.sweep.tasks import Outcome, TrainTask


@click.command("sweep")
@click.option(
    "-c", "--config", "configs", multiple=True, metavar="FILE", help="Configuration; of several, each on its own."
)
@click.argument("more", metavar="[FILE]...", nargs=-1)
@click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE[,VALUE]...",
    help="Change a key, or take values in turn; a value in [..], {..} or quotes is one, commas and all.",
)
@click.option("--seeds", default="3", show_default=True, metavar="N|A,B,...", help="Number of seeds, or which.")
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY[+N|=A,B,...]",
    help="Key that follows the seed: gets it, or it and N, or a value for each seed.",
)
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time; as many as the cores or CUDA devices carry.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the runs go; runs/sweep-<first configuration> if not given.",
)
@click.option("--extend", is_flag=True, help="Add members to the plan that the folder has.")
@click.option("--dry-run", is_flag=True, help="Check and list every member; run nothing.")
@click.option("--launcher", type=click.Choice(["local", "submitit"]), default="local", show_default=True)
@click.option(
    "--slurm", multiple=True, metavar="KEY=VALUE", help="Option of the launcher submitit, as in --slurm partition=gpu."
)
@click.option(
    "--tune",
    multiple=True,
    metavar="KEY=LOW:HIGH[:log]|A,B,...",
    help="Search this key for the best score on validation, with Optuna.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Trials of --tune, those of earlier calls included.",
)
def command(
    configs: tuple[str, ...],
    more: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: str,
    vary: tuple[str, ...],
    jobs: int | None,
    folder: Path | None,
    extend: bool,
    dry_run: bool,
    launcher: str,
    slurm: tuple[str, ...],
    tune: tuple[str, ...],
    trials: int,
) -> None:
    """Train every combination of configurations, values and seeds, a few at a time.

    All of them are checked before one runs. The same command again keeps what is done, resumes what was interrupted and
    repeats what failed.

    Exit codes: 0 done, 1 a run failed, 2 configuration or plan, 130 interrupted.
    """
    chosen = (*configs, *more)
    _check_usage(chosen, slurm=slurm, launcher=launcher, tune=tune)
    from robustmm.commands.pool_progress import raise_if_failed
    from robustmm.plugin_manager import get_plugins
    from robustmm.sweep.plan import make_plan, settle_plan
    from robustmm.sweep.pool import locked
    from robustmm.sweep.values import parse_seeds

    registry = get_plugins().registry
    folder = folder or Path("runs") / f"{'tune' if tune else 'sweep'}-{Path(chosen[0]).stem}"
    if tune:
        from robustmm.commands.sweep_tune import TuneRequest, tune_command

        numbers = parse_seeds(seeds)
        tune_command(TuneRequest(chosen, overrides, numbers, vary, tune, trials, jobs, folder), registry)
        return
    plan = make_plan(chosen, overrides, parse_seeds(seeds), vary, registry)
    if dry_run:
        for member in plan.members:
            click.echo(f"{member.name}  {' '.join(member.arguments())}")
        return
    with locked(folder) as lock:
        plan = settle_plan(folder, plan, extend=extend)
        outcomes = _run(plan, folder, lock, jobs, submit=launcher == "submitit", options=slurm)
    _show(plan, folder)
    raise_if_failed(outcomes, len(plan.members))
    click.echo(f"compare with: robustmm compare {folder}")


def _run(
    plan: Plan, folder: Path, lock: int, jobs: int | None, *, submit: bool, options: tuple[str, ...]
) -> list[Outcome]:
    from robustmm.commands.pool_progress import run_locally, watched

    tasks = tasks_of(plan, folder)
    if not submit:
        return run_locally(tasks, lock, plan.needs, jobs)
    from robustmm.sweep.submit import run_submitted

    return watched(len(tasks), lambda progress: run_submitted(tasks, folder, options, progress.start, progress.end))


def _show(plan: Plan, folder: Path) -> None:
    from rich.console import Console

    from robustmm.report.comparison_tables import rich_table
    from robustmm.sweep.summary import member_table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    console.print(rich_table(member_table(plan, folder)))


def _check_usage(chosen: tuple[str, ...], *, slurm: tuple[str, ...], launcher: str, tune: tuple[str, ...]) -> None:
    if not chosen:
        raise click.UsageError("name a configuration, as in -c configs/plain_emoji.yaml")
    if slurm and launcher != "submitit":
        raise click.UsageError("--slurm needs --launcher submitit")
    if tune and launcher != "local":
        raise click.UsageError("--tune runs its trials here; leave out --launcher")


def tasks_of(plan: Plan, folder: Path) -> list[TrainTask]:
    """A task per member."""
    from robustmm.plugin_manager import plugins_dirs
    from robustmm.sweep.tasks import TrainTask

    return [TrainTask(one.name, folder / one.name, tuple(one.arguments()), plugins_dirs()) for one in plan.members]
