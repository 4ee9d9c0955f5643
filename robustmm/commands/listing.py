"""``robustmm list``: the kinds, the components of a kind, one component with its options."""

from __future__ import annotations

import json
from typing import Any

import click

from robustmm.commands.option_table import OptionRow, option_rows
from robustmm.commands.printing import print_table
from robustmm.plugin_manager import get_plugins
from robustmm.registry import KINDS, Component, Registry, find_kind, plural

#: What the word in ``fidelity`` says of an implementation.
FIDELITY = {
    "own": "no published system behind it",
    "code": "follows official code",
    "part": "follows the official code that was released, in part",
    "rebuilt": "reconstructed from the paper",
}


@click.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str | None, name: str | None, as_json: bool) -> None:
    """List the kinds, the components of KIND, or the options of the component NAME.

    \b
    robustmm list
    robustmm list balancers
    robustmm list balancer ogm_ge
    """
    known = None if kind is None else find_kind(kind)  # a mistyped kind is told before the plugins are imported
    registry = get_plugins().registry
    if known is None:
        _list_kinds(registry, as_json)
    elif name is None:
        _list_components(registry, known, as_json)
    else:
        _show(known, registry.get(known, name), as_json)


def _list_kinds(registry: Registry, as_json: bool) -> None:
    counts = {kind: len(registry.names(kind)) for kind in KINDS}
    if as_json:
        rows = [
            {"kind": kind, "plural": plural(kind), "count": counts[kind], "description": text}
            for kind, text in KINDS.items()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(("kind", "count", "what it is"), [(kind, str(counts[kind]), text) for kind, text in KINDS.items()])
    click.echo("\n'robustmm list KIND' shows the components of a kind.")


def _list_components(registry: Registry, kind: str, as_json: bool) -> None:
    components = list(registry.all(kind))
    if as_json:
        click.echo(json.dumps([describe(kind, component) for component in components], indent=2))
        return
    print_table((kind, "fidelity", "summary"), [(c.name, c.fidelity, c.summary) for c in components])
    click.echo(f"\n'robustmm list {kind} NAME' shows one with its options.")


def describe(kind: str, component: Component) -> dict[str, Any]:
    """Everything there is to say of a component, as JSON shows it."""
    return {
        "kind": kind,
        "name": component.name,
        "summary": component.summary,
        "source": component.source,
        "fidelity": component.fidelity,
        "origin": component.origin,
        "requires": sorted(component.requires),
        "conflicts": sorted(component.conflicts),
        "provides": sorted({f"{kind}:{component.name}", *component.provides}),
        "suits": sorted(component.suits),
        "options": [row.as_dict() for row in option_rows(component.options)],
    }


def _show(kind: str, component: Component, as_json: bool) -> None:
    facts = describe(kind, component)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{kind} {component.name}: {component.summary}\n")
    click.echo(f"source:    {component.source}")
    click.echo(f"fidelity:  {component.fidelity} ({FIDELITY[component.fidelity]})")
    click.echo(f"origin:    {component.origin}")
    for fact in ("requires", "conflicts", "provides", "suits"):
        if facts[fact]:
            click.echo(f"{fact + ':':<10} {', '.join(facts[fact])}")
    _show_options(list(option_rows(component.options)))


def _show_options(rows: list[OptionRow]) -> None:
    if not rows:
        click.echo("\nIt has no options.")
        return
    click.echo("\noptions:")
    print_table(
        ("option", "type", "default", "constraints", "description"),
        [(row.name, row.type, row.default_text, ", ".join(row.constraints), row.description) for row in rows],
    )
