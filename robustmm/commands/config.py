"""``robustmm config``: show, check and begin configuration files."""

from __future__ import annotations

from pathlib import Path

import click

from robustmm.commands.options import config_options
from robustmm.errors import RobustmmError


@click.group("config")
def command() -> None:
    """Show, check and begin configuration files."""


@command.command("show")
@config_options
@click.option("--origins", is_flag=True, help="Say beside each value where it comes from.")
def show(configs: tuple[str, ...], overrides: tuple[str, ...], origins: bool) -> None:
    """Print the merged configuration with every default."""
    from robustmm.config.load import load_config
    from robustmm.config.render import to_yaml
    from robustmm.plugin_manager import get_plugins

    loaded = load_config(configs, overrides, get_plugins().registry)
    click.echo(to_yaml(loaded.config, loaded.provenance if origins else None), nl=False)


@command.command("validate")
@config_options
def validate(configs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check a configuration, and print ok and the files it was read from.

    Everything that is wrong is printed at once, one line each, and the exit code is 2.
    """
    from robustmm.config.load import display, load_config
    from robustmm.plugin_manager import get_plugins

    loaded = load_config(configs, overrides, get_plugins().registry)
    click.echo("\n".join(["ok", *(f"  {display(path)}" for path in loaded.sources)]))


@command.command("schema")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def schema(output: Path | None) -> None:
    """Print the JSON schema of configuration files, for completion and checks in an editor."""
    import json

    from robustmm.config.render import json_schema
    from robustmm.plugin_manager import get_plugins

    text = json.dumps(json_schema(get_plugins().registry), indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


@command.command("init")
@click.option("--dataset", metavar="NAME", help="Data set; 'robustmm list datasets' shows all.")
@click.option("--method", metavar="NAME", help="Method; 'robustmm list methods' shows all.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; by default METHOD_DATASET.yaml in the current folder.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(dataset: str | None, method: str | None, output: Path | None, force: bool) -> None:
    """Write a commented configuration to begin with."""
    from robustmm.config.load import display, load_config
    from robustmm.config.starter import DEFAULT_DATASET, DEFAULT_METHOD, PLACEHOLDER, starter
    from robustmm.plugin_manager import get_plugins

    registry = get_plugins().registry
    dataset, method = dataset or DEFAULT_DATASET, method or DEFAULT_METHOD
    path = output or Path(f"{method}_{dataset}.yaml")
    text = starter(dataset, method, display(path), registry)
    if path.exists() and not force:
        raise RobustmmError(f"{display(path)} exists; give --force to replace it, or another name with -o")
    _write(path, text)
    load_config([path], [], registry)
    fill_in = f"; fill in {PLACEHOLDER}" if PLACEHOLDER in text else ""
    click.echo(f"wrote {display(path)}{fill_in}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RobustmmError(f"cannot write {path}: {error.strerror}") from error
