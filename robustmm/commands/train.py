"""``robustmm train``: train, evaluate every combination, say where everything lies."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from robustmm.commands.options import config_options


@click.command("train")
@config_options
@click.option("--resume", is_flag=True, help="Continue the newest unfinished run of this configuration and seed.")
@click.option("--dry-run", is_flag=True, help="Build everything, train on one batch, evaluate one; write nothing.")
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run folders go.",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Use this run folder instead of a new one."
)
@click.option("--overwrite", is_flag=True, help="Replace the run in --folder.")
def command(
    configs: tuple[str, ...],
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    runs: Path,
    folder: Path | None,
    overwrite: bool,
) -> None:
    """Train a model and evaluate it on every combination of modalities.

    Exit codes: 0 done, 1 run failed, 2 configuration or data, 3 plugins, 130 interrupted (a checkpoint was written).
    """
    if sys.stderr.isatty():
        click.echo("loading torch and plugins ...", err=True)
    from robustmm import run
    from robustmm.commands.evaluate import show_run
    from robustmm.config.load import load_config
    from robustmm.engine.run_folder import RunFolder
    from robustmm.plugin_manager import get_plugins

    registry = get_plugins().registry
    loaded = load_config(configs, overrides, registry)
    if dry_run:
        click.echo(run.dry_run(loaded.config, registry))
        return
    request = run.RunRequest(loaded, root=runs, folder=folder, resume=resume, overwrite=overwrite)
    finished = resume and folder is not None and RunFolder(folder).done
    made = run.train(request, registry)
    if finished:
        click.echo(f"{folder} is finished; there is nothing to resume", err=True)
    show_run(made)
