"""``robustmm data``: which data sets there are, and whether one is as it should be."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustmm.commands.printing import print_table
from robustmm.errors import ConfigError, RobustmmError

if TYPE_CHECKING:
    from robustmm.config.component import ComponentSection
    from robustmm.data.dataset import DataSplits
    from robustmm.data.survey import Survey
    from robustmm.registry import Component, Registry


@click.group("data")
def command() -> None:
    """List data sets, and check one."""


@dataclass(frozen=True)
class Listed:
    """A registered data set.

    Args:
        name: As in configurations.
        state: ``shipped`` with its plugin, ``here``, ``not here``, ``needs options`` or ``broken``.
        summary: One line.
        modalities: Each with kind and shape; empty where the data are not here.
        parts: Part -> samples.
        classes: How many.
        licence: As the data set states it.
        problem: Why it is not here and how to obtain it, or the options it needs.
    """

    name: str
    state: str
    summary: str
    modalities: tuple[str, ...] = ()
    parts: dict[str, int] | None = None
    classes: int = 0
    licence: str = ""
    problem: str = ""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_data(as_json: bool) -> None:
    """List data sets: modalities, sizes, licence, and what to do where the data are not here.

    Each is built with its default options.
    """
    from robustmm.plugin_manager import get_plugins

    registry = get_plugins().registry
    listed = [look_at(component, registry) for component in registry.all("dataset")]
    if as_json:
        click.echo(json.dumps([asdict(one) for one in listed], indent=2))
    else:
        click.echo("\n\n".join("\n".join(_block(one)) for one in listed))


def look_at(component: Component, registry: Registry) -> Listed:
    """Build a data set with its default options and say what it is."""
    required = [name for name, field in component.options.model_fields.items() if field.is_required()]
    if required:
        return Listed(component.name, "needs options", component.summary, problem=f"needs {', '.join(required)}")
    try:
        splits = _build(component.name, registry)
    except RobustmmError as error:
        return Listed(component.name, "not here", component.summary, problem=str(error))
    except Exception as error:  # a plugin may raise anything; the other data sets are listed all the same
        problem = f"{type(error).__name__}: {error}"
        return Listed(component.name, "broken", component.summary, problem=problem)
    return Listed(
        component.name,
        "shipped" if _is_shipped(component) else "here",
        component.summary,
        tuple(_modality_texts(splits)),
        {name: len(part) for name, part in _parts(splits).items()},
        len(splits.classes),
        str(splits.notes.get("licence", "not stated")),
    )


def _is_shipped(component: Component) -> bool:
    """Whether the plugin brings the data: a folder ``embedded/NAME`` beside its module."""
    try:
        module = Path(inspect.getfile(component.build))
    except TypeError:  # what builds it is no function or class
        return False
    return module.with_name("embedded").joinpath(component.name).is_dir()


def _block(one: Listed) -> Iterator[str]:
    yield f"{one.name}  ({one.state})"
    yield f"  {one.summary}"
    if one.problem:
        yield f"  {one.problem}"
    if one.parts is not None:
        sizes = ", ".join(f"{count} {name}" for name, count in one.parts.items())
        yield f"  {'; '.join(one.modalities)}"
        yield f"  {sizes}; {one.classes} classes; licence: {one.licence}"


@command.command("check")
@click.argument("name", required=False)
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option; may be repeated.")
@click.option("-c", "--config", "configs", multiple=True, metavar="FILE", help="Check the data set of a configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context, name: str | None, options: tuple[str, ...], configs: tuple[str, ...], as_json: bool
) -> None:
    """Read every sample of the data set NAME, or of that of a configuration, and say what is there.

    Counts samples per class and what is missing per modality; finds samples that cannot be read, shapes that are not
    as declared, values that are not finite, labels out of range and ids that stand twice. Ends with exit code 1 if
    something is wrong. What a data set counts as absent because it cannot be read is listed, and is not wrong.

    \b
    robustmm data check smartwatch_imu -o test_subject=3
    robustmm data check -c my_manifest.yaml
    """
    from robustmm.data.survey import survey
    from robustmm.plugin_manager import get_plugins

    if (name is None) == (not configs):
        raise click.UsageError("give the NAME of a data set, or a configuration with -c")
    registry = get_plugins().registry
    section = _section(name, options, registry) if name is not None else _configured(configs, options, registry)
    splits = _build(section, registry)
    found = survey(splits, _track)
    if as_json:
        click.echo(json.dumps(_as_dict(section.name, splits, found), indent=2))
    else:
        _print(section.name, splits, found)
    if found.problems:
        ctx.exit(1)


def _build(section: ComponentSection | str, registry: Registry) -> DataSplits:
    from robustmm.build import Builder

    splits: DataSplits = Builder(registry).component("dataset", "dataset", section)()
    return splits


def _configured(configs: Sequence[str], overrides: Sequence[str], registry: Registry) -> ComponentSection:
    from robustmm.config.load import load_config

    return load_config(configs, overrides, registry).config.data.dataset


def _section(name: str, texts: Sequence[str], registry: Registry) -> ComponentSection:
    """The data set with options given as ``key=value`` or ``key.sub=value``, where the value is YAML.

    Raises:
        ConfigError: everything that is wrong with them.
    """
    from robustmm.config.component import ComponentSection, check_options
    from robustmm.config.tree import dotted

    component = registry.get("dataset", name)
    given, problems = read_options(texts)
    options, found = check_options(component, given)
    problems += [f"{name}.{dotted(one.path)}: {one.text}" if one.path else f"{name}: {one.text}" for one in found]
    if options is None or problems:
        raise ConfigError(problems)
    return ComponentSection("dataset", name, options)


def read_options(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Options as a mapping, and what is wrong with how they are written."""
    from robustmm.config.document import parse
    from robustmm.config.tree import Node, Origin, assign, plain

    start = Origin("-o")
    root, problems = Node({}, start, start), []
    for text in texts:
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or "" in path:
            problems.append(f"-o {text}: expected key=value")
            continue
        leaf, wrong = parse(value, f"-o {text}")
        problems += [f"-o {text}: {problem.text}" for problem in wrong]
        try:
            root = root if leaf is None else assign(root, path, leaf)
        except RobustmmError as error:
            problems.append(f"-o {text}: {error}")
    mapping: dict[str, Any] = plain(root)
    return mapping, problems


def _track(part: str, indices: range) -> Iterable[int]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(indices, part, console=console, transient=True, disable=not console.is_terminal)


def _parts(splits: DataSplits) -> dict[str, Any]:
    from robustmm.data.survey import parts_of

    return parts_of(splits)


def _modality_texts(splits: DataSplits) -> Iterator[str]:
    for modality in splits.modalities:
        yield f"{modality.name} {modality.kind} {'x'.join(map(str, modality.shape))}"


def _print(name: str, splits: DataSplits, found: Survey) -> None:
    from robustmm.data.survey import first_few

    header = tuple(found.parts)
    click.echo(f"{name}: {', '.join(f'{part.samples} {key}' for key, part in found.parts.items())}; {splits.task}\n")
    print_table(
        ("modality", "kind", "shape", *(f"missing in {part}" for part in header)),
        [
            (m.name, m.kind, "x".join(map(str, m.shape)), *(str(part.missing[m.name]) for part in found.parts.values()))
            for m in splits.modalities
        ],
    )
    click.echo()
    counts = [part.per_class.tolist() for part in found.parts.values()]
    rows = [
        (label, *(str(count) for count in row))
        for label, row in zip(splits.classes, zip(*counts, strict=True), strict=True)
    ]
    print_table(("class", *header), rows)
    click.echo()
    for key, value in splits.notes.items():
        click.echo(f"{key}: {value}")
    unreadable = [f"{key}: {text}" for key, part in found.parts.items() for text in part.unreadable]
    if unreadable:
        click.echo("\nunreadable, counted as absent:\n  " + "\n  ".join(first_few(unreadable)))
    sound = "nothing else is wrong" if unreadable else "nothing is wrong"
    click.echo("\nwrong:\n  " + "\n  ".join(found.problems) if found.problems else f"\n{sound}")


def _as_dict(name: str, splits: DataSplits, found: Survey) -> dict[str, Any]:
    return {
        "name": name,
        "task": splits.task,
        "classes": list(splits.classes),
        "modalities": [{"name": m.name, "kind": m.kind, "shape": list(m.shape)} for m in splits.modalities],
        "parts": {
            key: {
                "samples": part.samples,
                "readable": part.readable,
                "per_class": part.per_class.tolist(),
                "missing": {m.name: part.missing[m.name] for m in splits.modalities},
                "unreadable": list(part.unreadable),
            }
            for key, part in found.parts.items()
        },
        "notes": dict(splits.notes),
        "problems": found.problems,
    }
