"""``robustmm plugins``: what was found, what became of it, and a check for one plugin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import click

from robustmm.commands.printing import print_table
from robustmm.errors import PluginError, did_you_mean
from robustmm.plugin_manager import PluginRecord, check_plugin, find_plugins, get_plugins
from robustmm.plugin_sources import PluginSource, file_source


@click.group()
def command() -> None:
    """List plugins and what became of them, or check one."""


@command.command("list")
@click.option("--all", "show_all", is_flag=True, help="Show each built-in plugin too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every plugin included.")
def list_plugins(show_all: bool, as_json: bool) -> None:
    """Show every plugin with its distribution, status and components."""
    records = get_plugins().records
    if as_json:
        click.echo(json.dumps([as_dict(record) for record in records], indent=2))
        return
    shown = [record for record in records if show_all or not _is_plain_builtin(record)]
    summarised = [record for record in records if record not in shown]
    rows = [(r.name, r.distribution, r.version, r.status, r.message or _components(r)) for r in shown]
    if summarised:
        count = sum(len(record.components) for record in summarised)
        builtin = summarised[0]
        text = f"{len(summarised)} built-in plugins with {count} components; --all shows each"
        rows.insert(0, ("(built-in)", builtin.distribution, builtin.version, "loaded", text))
    print_table(("plugin", "distribution", "version", "status", "components or reason"), rows)


def _is_plain_builtin(record: PluginRecord) -> bool:
    return record.distribution == "robustmm" and record.status == "loaded"


def _components(record: PluginRecord) -> str:
    return ", ".join(record.components) or "none: it implements no hook"


def as_dict(record: PluginRecord) -> dict[str, object]:
    """A record as JSON shows it."""
    names = [field.name for field in dataclasses.fields(record) if field.name != "error"]
    return {name: getattr(record, name) for name in names}


@command.command()
@click.argument("plugin", metavar="[NAME|PATH]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(plugin: str | None, as_json: bool) -> None:
    """Import one plugin, run its registration and nothing else, and print what it registered.

    NAME is a plugin, a distribution or a module; PATH is a plugin file. Without either, every plugin is checked one by
    one. Ends with exit code 3 if something is wrong; 'robustmm --debug plugins check' shows the traceback.
    """
    sources = find_plugins() if plugin is None else _sources_named(plugin)
    checked = [check_plugin(source) for source in sources] if plugin is not None else _check_all(sources)
    if as_json:
        click.echo(json.dumps([as_dict(record) for record in checked], indent=2))
        return
    for record in checked:
        click.echo(f"plugin '{record.name}' ({record.origin}) is sound: {_components(record)}")


def _check_all(sources: Sequence[PluginSource]) -> list[PluginRecord]:
    """Check every plugin before complaining, so that one run shows all that is wrong."""
    checked, problems = [], []
    for source in sources:
        try:
            checked.append(check_plugin(source))
        except PluginError as error:
            problems.append(str(error))
    if problems:
        raise PluginError("\n".join(problems))
    get_plugins()  # sound one by one; here two that offer one name are found
    return checked


def _sources_named(word: str) -> list[PluginSource]:
    path = Path(word)
    if path.suffix == ".py" or path.is_file():
        if not path.is_file():
            raise PluginError(f"{word}: no such file")
        return [file_source(path)]
    sources = find_plugins()
    named = [source for source in sources if source.answers_to(word)]
    if named:
        return named
    if "." in word:  # a module that no entry point names yet
        return [PluginSource(word.rpartition(".")[2], word, "", word, word, partial(import_module, word))]
    known = sorted({source.name for source in sources})
    raise PluginError(f"no plugin '{word}'{did_you_mean(word, known) or '.'} Known: {', '.join(known)}")
