"""``robustmm data``: which data sets there are, whether one is as it should be, and bringing one into its form."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustmm.commands.data_text import joined, print_survey, survey_record
from robustmm.commands.progress import track
from robustmm.errors import ConfigError, RobustmmError

if TYPE_CHECKING:
    from robustmm.config.component import ComponentSection
    from robustmm.data.dataset import DataSplits
    from robustmm.registry import Component, Registry


@click.group("data")
def command() -> None:
    """List data sets, check one, and prepare one."""


@dataclass(frozen=True)
class Listed:
    """A registered data set.

    Args:
        name: As in configurations.
        state: ``shipped`` with its plugin, ``here``, ``not here``, ``needs options`` or ``broken``.
        summary: One line.
        modalities: Each with kind and shape; empty where the data are not here.
        parts: Part -> samples.
        classes: How many; of regression the target quantities.
        task: That fits.
        licence: As the data set states it.
        problem: Why it is not here and how to obtain it, or the options it needs.
    """

    name: str
    state: str
    summary: str
    modalities: tuple[str, ...] = ()
    parts: dict[str, int] | None = None
    classes: int = 0
    task: str = ""
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
        splits.task,
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
        yield f"  {sizes}; {_targets(one)}; licence: {one.licence}"


def _targets(one: Listed) -> str:
    if one.task == "regression":
        return f"{one.classes} target {'quantity' if one.classes == 1 else 'quantities'}"
    return f"{one.classes} classes"


@command.command("check")
@click.argument("name", required=False)
@click.argument("root", required=False)
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option; may be repeated.")
@click.option("-c", "--config", "configs", multiple=True, metavar="FILE", help="Check the data set of a configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    name: str | None,
    root: str | None,
    options: tuple[str, ...],
    configs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read every sample of the data set NAME, or of that of a configuration, and say what is there.

    Counts samples or pixels per class, or shows the range of the targets of regression, counts what is missing per
    modality, and shows sizes and values; finds samples that cannot be read, shapes that are not as declared, values
    that are not finite, labels out of range and ids that stand twice. Ends with exit code 1 if something is wrong. What
    a data set counts as absent because it cannot be read is listed, and is not wrong. ROOT is short for -o root=ROOT.

    \b
    robustmm data check smartwatch_imu -o test_subject=3
    robustmm data check nyuv2 /data/nyuv2
    robustmm data check -c my_manifest.yaml
    """
    from robustmm.data.survey import survey
    from robustmm.plugin_manager import get_plugins

    if (name is None) == (not configs):
        raise click.UsageError("give the NAME of a data set, or a configuration with -c")
    if root is not None:
        options = (f"root={json.dumps(root)}", *options)
    registry = get_plugins().registry
    section = _section(name, options, registry) if name is not None else _configured(configs, options, registry)
    splits = _build(section, registry)
    found = survey(splits, track)
    if as_json:
        click.echo(json.dumps(survey_record(section.name, splits, found), indent=2))
    else:
        print_survey(section.name, splits, found)
    if found.problems:
        ctx.exit(1)


@command.command("prepare")
@click.argument("name")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
def prepare(name: str, source: Path, target: Path) -> None:
    """Bring the data set NAME from folder SOURCE, as it is published, into folder TARGET, as it is read.

    What is in TARGET already and whole is kept, so that a second call goes on where the first was stopped. In the end
    everything is read back once.

    \b
    robustmm data prepare nyuv2 ~/downloads/nyuv2 /data/nyuv2
    """
    from robustmm.plugin_manager import get_plugins

    registry = get_plugins().registry
    component = registry.get("dataset", name)
    if component.prepare is None:
        able = [one.name for one in registry.all("dataset") if one.prepare is not None]
        known = f"; those that have: {', '.join(able)}" if able else ""
        raise ConfigError([f"data set '{name}' has nothing to prepare, it is read as it is published{known}"])
    click.echo(component.prepare(source, target, track))


def _build(section: ComponentSection | str, registry: Registry) -> DataSplits:
    from robustmm.builder import Builder

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


def _parts(splits: DataSplits) -> dict[str, Any]:
    from robustmm.data.survey import parts_of

    return parts_of(splits)


def _modality_texts(splits: DataSplits) -> Iterator[str]:
    for modality in splits.modalities:
        yield f"{modality.name} {modality.kind} {joined(modality.shape)}"
