"""The pages for readers: links resolve, commands and names exist, blocks do what the text around them says."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import robustmm
import robustmm.testing
from robustmm import cli, hookspecs
from robustmm.config.load import load_config
from robustmm.errors import ConfigError
from robustmm.plugin_manager import load_plugins
from robustmm.registry import KINDS, Registry, hook_name

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ROOT / "docs" / "components.md"
IN_PLUGINS_GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
WRITTEN = [page for page in PAGES if page != GENERATED]
BASE = """\
data: {dataset: {name: synthetic, samples: 16, modalities: 3}}
model: {encoders: {vector: {name: mlp, hidden: [4]}}}
method: plain
optimizer: adamw
train: {epochs: 1}
callbacks: []
"""


class Block(NamedTuple):
    """A fenced block: its page, language, the name in its first line, and text."""

    page: str
    language: str
    name: str
    text: str


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in the order of the pages."""
    found = []
    for page in WRITTEN:
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            if match[1] == language:
                name = re.match(r"# (\S+)\n", match[2])
                found.append(Block(page.name, language, name[1] if name else "", match[2]))
    return found


def block(language: str, name: str) -> Block:
    """The block whose first line is ``# name``."""
    return next(one for one in blocks(language) if one.name == name)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What links into a page may name after ``#``."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def registry() -> Registry:
    return load_plugins(env={}, entry_points=()).registry


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links__resolve(page: Path) -> None:
    targets = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]
    for target in targets:
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), f"{page.name}: {target} does not exist"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target} names no heading"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_paths_in_text__exist(page: Path) -> None:
    folders = "robustmm|plugins|tests|tools|configs|examples|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(page)):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_names_of_the_package__exist(page: Path) -> None:
    for dotted in re.findall(r"\brobustmm\.([A-Z]\w+)", page.read_text(encoding="utf-8")):
        assert hasattr(robustmm, dotted), f"{page.name}: robustmm.{dotted}"


def commands(page: Path) -> Iterator[str]:
    """Command lines of ``robustmm`` in shell blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    for body in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        yield from (line for line in body.splitlines() if line.startswith("robustmm "))
    yield from (match for match in re.findall(r"`(robustmm [^`]+)`", prose(page)))


def parse(line: str) -> None:
    """Go down the commands of a line and parse the options of each.

    Raises:
        click.UsageError: no such command or option.
    """
    arguments = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    command: click.Command = cli.group
    context = click.Context(command)
    while True:
        _, rest, _ = command.make_parser(context).parse_args(list(arguments))
        if not isinstance(command, click.Group) or not rest:
            return
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"no command '{rest[0]}'")
        command, arguments = found, rest[1:]
        context = click.Context(command, parent=context)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_commands__exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        try:
            parse(line)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: '{line}': {error.format_message()}")


def test_commands__are_found_on_the_pages_and_wrong_ones_refused() -> None:
    assert len(list(commands(ROOT / "README.md"))) >= 10
    with pytest.raises(click.UsageError, match="no command 'trian'"):
        parse("robustmm trian -c a.yaml")
    with pytest.raises(click.UsageError, match="--resmue"):
        parse("robustmm train --resmue")


def test_every_command__is_named_on_some_page() -> None:
    everything = "\n".join(page.read_text(encoding="utf-8") for page in WRITTEN)
    for name in cli.COMMANDS:
        assert f"robustmm {name}" in everything


def test_make_targets__exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in WRITTEN:
        named = re.findall(r"(?:^|`)make (\w+)", page.read_text(encoding="utf-8"), re.M)
        assert set(named) <= targets, page.name


def test_readme__begins_with_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("```sh\n")[2].partition("```")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


@pytest.fixture
def written_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every YAML block under its name."""
    for one in blocks("yaml"):
        if one.name != "fragment":
            (tmp_path / one.name).write_text(one.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMPLETE = [one.name for one in blocks("yaml") if one.name not in ("fragment", "bad.yaml")]
FRAGMENTS = [one for one in blocks("yaml") if one.name == "fragment"]


def test_yaml_blocks__are_all_named() -> None:
    assert all(one.name for one in blocks("yaml"))
    assert len(COMPLETE) >= 3
    assert len(FRAGMENTS) >= 3


@pytest.mark.parametrize("name", COMPLETE)
def test_yaml_block__is_a_valid_configuration(name: str, written_configs: Path, registry: Registry) -> None:
    assert load_config([name], [], registry).config.name == Path(name).stem


@pytest.mark.parametrize("number", range(len(FRAGMENTS)))
def test_yaml_fragment__fits_on_a_configuration(number: int, tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    (tmp_path / "part.yaml").write_text(FRAGMENTS[number].text, encoding="utf-8")
    load_config([tmp_path / "base.yaml", tmp_path / "part.yaml"], [], registry)


def test_error_example__is_what_is_printed(written_configs: Path, registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["bad.yaml"], ["train.epochs=none"], registry)
    (shown,) = blocks("text")
    assert str(caught.value) == shown.text.rstrip("\n")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every Python block as the file that its first line names, importable."""
    for one in blocks("python"):
        path = tmp_path / one.name
        path.parent.mkdir(exist_ok=True)
        path.write_text(one.text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "my_plugins"))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


PLUGINS = [one.name for one in blocks("python") if one.name.startswith("my_plugins/")]


def test_python_blocks__are_all_named() -> None:
    assert all(one.name for one in blocks("python"))
    assert len(PLUGINS) >= 4


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_block__keeps_its_contract(name: str, workshop: Path) -> None:
    module = importlib.import_module(Path(name).stem)
    for kind, component in robustmm.testing.offered(module):
        robustmm.testing.check_component(kind, component)


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_block__loads_from_a_folder(name: str, workshop: Path) -> None:
    loaded = load_plugins([workshop / "my_plugins"], {}, entry_points=())
    record = next(one for one in loaded.records if one.name == Path(name).stem)
    assert record.status == "loaded"
    assert record.components


def test_balancer_example__is_one_short_file_with_a_test_that_passes(workshop: Path) -> None:
    assert len(block("python", "my_plugins/equal_norm.py").text.splitlines()) <= 40
    names = runpy.run_path(str(workshop / "test_equal_norm.py"))
    names["test_factors__bring_norms_to_their_mean"]()
    (cases,) = names["test_contracts"].pytestmark
    assert len(cases.args[1]) > 5


def test_component_note__is_sound(workshop: Path) -> None:
    names = runpy.run_path(str(workshop / "notes" / "component.py"))
    fields = inspect.signature(robustmm.Component).parameters
    written = re.findall(r"^    (\w+)=", block("python", "notes/component.py").text, re.M)
    assert written == [name for name in fields if name != "origin"]
    assert names["component"].fidelity == "own"


def test_python_api_example__trains(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop / "configs").mkdir()
    (workshop / "configs" / "plain_handwritten.yaml").write_text(BASE, encoding="utf-8")
    monkeypatch.chdir(workshop)
    runpy.run_path("api.py")
    folder, score = capsys.readouterr().out.split()[-2:]
    assert (Path(folder) / "DONE").is_file()
    assert 0 <= float(score) <= 1


def test_toml_block__names_the_entry_point_group() -> None:
    (project,) = (tomllib.loads(one.text)["project"] for one in blocks("toml"))
    assert project["entry-points"] == {"robustmm": {"equal_norm": "equal_norm"}}


@pytest.mark.parametrize("kind", KINDS)
def test_plugins_guide__shows_each_hook_with_its_signature(kind: str) -> None:
    hook = getattr(hookspecs, hook_name(kind))
    build = re.search(r"``(build\(.*?)``", inspect.getdoc(hook) or "")
    assert build is not None
    row = next(line for line in IN_PLUGINS_GUIDE.splitlines() if line.startswith(f"| `{kind}` |"))
    assert f"`{hook_name(kind)}{signature(hook)}`" in row
    assert f"`{build[1]}`" in row


def signature(hook: Callable[..., Any]) -> str:
    """Parameter names in brackets."""
    return f"({', '.join(inspect.signature(hook).parameters)})"


def test_plugins_guide__shows_the_hook_for_commands() -> None:
    assert f"`robustmm_register_commands{signature(hookspecs.robustmm_register_commands)}`" in IN_PLUGINS_GUIDE


def test_plugins_guide__names_every_member_of_a_balancer_but_its_state() -> None:
    members = [name for name, value in vars(robustmm.Balancer).items() if inspect.isfunction(value)]
    for name in set(members) - {"state_dict", "load_state_dict"}:
        assert f"`{name}(" in IN_PLUGINS_GUIDE, name


def test_plugins_guide__names_every_variable() -> None:
    documented = set(
        re.findall(r"``(ROBUSTMM_\w+)``", inspect.getdoc(importlib.import_module("robustmm.plugin_manager")) or "")
    )
    assert len(documented) == 4
    for variable in documented:
        assert f"`{variable}`" in IN_PLUGINS_GUIDE


def test_components_page__is_what_the_registry_gives() -> None:
    spec = importlib.util.spec_from_file_location("make_component_docs", ROOT / "tools" / "make_component_docs.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert GENERATED.read_text(encoding="utf-8") == tool.page(), "run python tools/make_component_docs.py"


@pytest.mark.parametrize("kind", ["method", "balancer", "dataset", "fusion"])
def test_readme__lists_every_component_with_its_fidelity(kind: str, registry: Registry) -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for component in registry.all(kind):
        row = next((one for one in rows if one.startswith(f"| `{component.name}` |")), None)
        assert row is not None, f"README has no row for {kind} {component.name}"
        assert kind == "dataset" or row.endswith(f"| {component.fidelity} |")


def test_missing_page__lists_every_policy_and_sampler(registry: Registry) -> None:
    text = (ROOT / "docs" / "missing.md").read_text(encoding="utf-8")
    for name in [*registry.names("missing_policy"), *registry.names("sampler")]:
        assert f"| `{name}` |" in text, name


def test_data_page__lists_every_data_set_and_manifest_option(registry: Registry) -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    options = registry.get("dataset", "manifest").options
    column = importlib.import_module("robustmm_plugins.datasets.manifest").ColumnOptions
    rows = {*registry.names("dataset"), *options.model_fields, *column.model_fields} - {"manifest"}
    for name in rows:
        assert f"| `{name}` |" in text, name
