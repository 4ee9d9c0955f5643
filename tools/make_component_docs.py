"""Write docs/components.md: every key of a configuration and every built-in component with its options.

python tools/make_component_docs.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel

from robustmm.commands.option_table import OptionRow, option_rows
from robustmm.config.component import Kind
from robustmm.config.schema import RunConfig
from robustmm.plugin_manager import load_plugins
from robustmm.registry import KINDS, Component, plural

PAGE = Path(__file__).parents[1] / "docs" / "components.md"
HEAD = """\
# Components and keys

Written by `python tools/make_component_docs.py`; do not edit. `robustmm list KIND NAME` prints the same for what is
installed, plugins of third parties included.

Fidelity: `code` follows official code, `part` some of it, `rebuilt` is a reconstruction from the paper, `own` has no
published system behind it."""


def page() -> str:
    """The whole page; what other distributions and the environment offer has no influence."""
    registry = load_plugins(env={}, entry_points=()).registry
    parts = [HEAD, contents(), "## Keys of a configuration", keys()]
    for kind, purpose in KINDS.items():
        parts += [f"## {title(kind)}", f"{purpose[:1].upper()}{purpose[1:]}."]
        for component in registry.all(kind):
            parts += [f"### {component.name}", *described(component)]
    return "\n\n".join(parts) + "\n"


def title(kind: str) -> str:
    """``missing_policy`` -> ``Missing policies``."""
    return plural(kind).replace("_", " ").capitalize()


def contents() -> str:
    """Links to the sections."""
    titles = ["Keys of a configuration", *map(title, KINDS)]
    return "\n".join(f"- [{text}](#{text.lower().replace(' ', '-')})" for text in titles)


def keys() -> str:
    """The table of keys, nested ones dotted."""
    return table(("key", "type", "default", "meaning"), key_rows(RunConfig, ""))


def key_rows(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """One row per key; the keys of a section follow it."""
    plain = {row.name: row for row in option_rows(section)}
    for name, field in section.model_fields.items():
        nested = next((one for one in members(field.annotation) if issubclass(one, BaseModel)), None)
        row = plain.get(name)
        if row is not None:  # a section that cannot be left out has no row, its keys have
            kind = "section" if nested else component_kind(field.annotation, field.metadata)
            kind = f"{kind} | null" if kind and type(None) in get_args(field.annotation) else kind
            yield (f"`{prefix}{name}`", kind or type_of(row), f"`{row.default_text}`", row.description)
        if nested is not None:
            yield from key_rows(nested, f"{prefix}{name}.")


def members(annotation: object) -> list[type]:
    """The classes of a type or union."""
    return [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]


def component_kind(annotation: object, metadata: Iterable[object]) -> str:
    """``fusion`` for a component section, ``name -> encoder`` in a mapping, ``list of callback``; else empty."""
    for mark in metadata:
        if isinstance(mark, Kind):
            return mark.name
    inner = next(filter(None, (component_kind(one, get_args(one)[1:]) for one in get_args(annotation))), "")
    origin = get_origin(annotation)
    container = "name -> {}" if origin is dict else "list of {}" if origin is tuple else "{}"
    return container.format(inner) if inner else ""


def described(component: Component) -> list[str]:
    """Paragraphs on one component."""
    facts = [f"Source: {component.source}. Fidelity: `{component.fidelity}`."]
    for fact in ("requires", "conflicts", "suits"):
        found = sorted(getattr(component, fact))
        if found:
            facts.append(f"{fact.capitalize()}: {', '.join(f'`{one}`' for one in found)}.")
    facts.append(f"Module: `{component.origin}`.")
    options = list(option_rows(component.options))
    return [component.summary, " ".join(facts), *([option_table(options)] if options else [])]


def option_table(rows: Sequence[OptionRow]) -> str:
    """The options of a component."""
    cells = ((f"`{row.name}`", type_of(row), f"`{row.default_text}`", row.description) for row in rows)
    return table(("option", "type", "default", "meaning"), cells)


def type_of(row: OptionRow) -> str:
    """Type and constraints."""
    return f"{row.type}, {', '.join(row.constraints)}" if row.constraints else row.type


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
