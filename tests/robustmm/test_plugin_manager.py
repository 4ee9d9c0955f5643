"""The loader: who is found, what a bad plugin does to the others, and what the environment changes."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_workshop import HEADER, Workshop, offering, record_of

from robustmm.errors import PluginError
from robustmm.plugin_manager import check_plugin, find_plugins, get_plugins, load_plugins, set_plugins_dirs
from robustmm.plugin_sources import file_source

_numbers = itertools.count()


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Workshop(tmp_path, f"builtin_plugins_{next(_numbers)}")
    for name in set(sys.modules) - before:
        spec = getattr(sys.modules[name], "__spec__", None)
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


# Who is found


def test_builtins__every_module_is_a_plugin_but_those_with_an_underscore(workshop: Workshop) -> None:
    workshop.builtin("balancing.even", offering("even"))
    workshop.builtin("balancing._shared", "raise RuntimeError('a helper is not imported by the loader')")
    workshop.builtin("deep.er.odd", offering("odd"))
    plugins = workshop.load()
    assert plugins.registry.names("balancer") == ["even", "odd"]
    assert plugins.registry.get("balancer", "even").origin == f"{workshop.builtins}.balancing.even"
    record = record_of(plugins, "even")
    assert (record.distribution, record.status, record.components) == ("robustmm", "loaded", ("balancer:even",))


def test_entry_points__components_carry_their_distribution(workshop: Workshop) -> None:
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx.plugin"}, modules={"mmx.plugin": offering("gate")})
    plugins = workshop.load()
    assert plugins.registry.get("balancer", "gate").origin == "mmx-balancers 0.3"
    record = record_of(plugins, "mmx")
    assert (record.distribution, record.version, record.module) == ("mmx-balancers", "0.3", "mmx.plugin")


def test_entry_points__are_found_among_the_installed_distributions(workshop: Workshop) -> None:
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx.plugin"}, modules={"mmx.plugin": offering("gate")})
    assert "gate" in load_plugins(env={}, builtins=workshop.builtins).registry.names("balancer")


def test_plugins_dir__each_file_is_a_plugin(workshop: Workshop, tmp_path: Path) -> None:
    first = workshop.module("mine.gate", offering("gate"))
    workshop.module("mine._helper", "raise RuntimeError")
    second = workshop.module("yours.gate", offering("other"))
    plugins = workshop.load(plugins_dirs=[first.parent, second.parent, tmp_path / "mine" / "."])
    assert plugins.registry.names("balancer") == ["gate", "other"]
    assert plugins.registry.get("balancer", "gate").origin == str(first)


def test_plugins_dir__comes_from_the_environment_too(workshop: Workshop) -> None:
    folders = [str(workshop.module(f"{name}.plugin", offering(name)).parent) for name in ("left", "right")]
    plugins = workshop.load(env={"ROBUSTMM_PLUGINS_DIR": os.pathsep.join(folders)})
    assert plugins.registry.names("balancer") == ["left", "right"]


def test_plugins_dir__missing_folder_is_an_error(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"--plugins-dir .*nowhere: does not exist; name a folder that holds"):
        workshop.load(plugins_dirs=[tmp_path / "nowhere"])
    file = workshop.module("single", "")
    with pytest.raises(PluginError, match=r"single\.py: is not a folder"):
        workshop.load(plugins_dirs=[file])


def test_commands__are_collected_by_name(workshop: Workshop) -> None:
    source = (
        "import click\nfrom robustmm import hookimpl\n@click.command('hello')\ndef hello(): pass\n"
        "@hookimpl\ndef robustmm_register_commands(register):\n    register(hello)\n"
    )
    workshop.builtin("hello", source)
    plugins = workshop.load()
    assert list(plugins.commands) == ["hello"]
    offering_record = plugins.offering("command:hello")
    assert offering_record is not None
    assert offering_record.name == "hello"


# Bad plugins


def assert_bad(workshop: Workshop, caplog: pytest.LogCaptureFixture, status: str, message: str) -> None:
    """The plugin ``mmx`` has this status and reason, one warning says so, and nothing of it is kept."""
    workshop.builtin("sound", offering("sound"))
    with caplog.at_level(logging.WARNING):
        plugins = workshop.load()
    record = record_of(plugins, "mmx")
    assert (record.status, record.message, record.components) == (status, message, ())
    assert plugins.registry.names("balancer") == ["sound"]
    what = {"failed": "failed to load", "incompatible": "is incompatible"}[status]
    assert caplog.messages == [
        f"plugin 'mmx' (mmx-balancers 0.3) {what}: {message}. Its components are unavailable; the rest is loaded."
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import einops_that_is_not_there", "ModuleNotFoundError: einops_that_is_not_there"),
        ("raise ValueError('first line\\nsecond line')", "ValueError: first line second line"),
        ("raise RuntimeError", "RuntimeError"),
        ("import sys; sys.exit(4)", "SystemExit: 4"),
        ("x = (", "SyntaxError: '(' was never closed (mmx.py, line 1)"),
    ],
)
def test_import_error__is_reported_and_the_rest_is_loaded(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, source: str, message: str
) -> None:
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": source})
    assert_bad(workshop, caplog, "failed", message)


def registering(component: str) -> str:
    """A plugin that first registers something sound, then ``component``."""
    return (
        f"{HEADER}sound = Component('good', Balancer, Options, 'A test balancer.', 'standard')\n"
        "@hookimpl\ndef robustmm_register_balancers(register):\n"
        f"    register(sound)\n    register({component})\n"
    )


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (
            "Balancer",
            "balancer <class 'robustmm.balancing.balancer.Balancer'>: register a robustmm.Component, not type",
        ),
        (
            "Component('Gate-1', Balancer, Options, 'A.', 'standard')",
            "balancer 'Gate-1': a name begins with a lower case letter and has lower case letters, digits and "
            "underscores",
        ),
        (
            "Component('gate', Balancer, dict, 'A.', 'standard')",
            "balancer 'gate': options must be a subclass of robustmm.Options, not <class 'dict'>",
        ),
        ("Component('gate', 3, Options, 'A.', 'standard')", "balancer 'gate': build must be callable, not 3"),
        (
            "Component('gate', Balancer, Options, 'A.', 'standard', fidelity='exact')",
            "balancer 'gate': fidelity must be one of own, code, part, rebuilt, not 'exact'",
        ),
        ("Component('gate', Balancer, Options, ' ', 'standard')", "balancer 'gate': summary must be one line of text"),
        ("sound", "balancer 'good' is registered twice by one plugin"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_unsound_registration__keeps_nothing_of_the_plugin(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, component: str, message: str
) -> None:
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": registering(component)})
    assert_bad(workshop, caplog, "failed", message)


def test_command__must_be_a_click_command(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    source = f"{HEADER}@hookimpl\ndef robustmm_register_commands(register):\n    register('hello')\n"
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": source})
    assert_bad(workshop, caplog, "failed", "command 'hello': register a click.Command with a name")


def test_misspelt_hook__is_told_with_the_closest_name(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    source = offering("gate").replace("robustmm_register_balancers", "robustmm_register_balancer")
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": source})
    message = "unknown hook 'robustmm_register_balancer' - did you mean 'robustmm_register_balancers'?"
    assert_bad(workshop, caplog, "failed", message)


def test_unmarked_hook__is_told(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    source = offering("gate").replace("@hookimpl\n", "")
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": source})
    message = "robustmm_register_balancers is not marked as a hook; put @hookimpl above it"
    assert_bad(workshop, caplog, "failed", message)


def test_wrong_hook_arguments__are_incompatible(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    source = offering("gate").replace("balancers(register)", "balancers(registry)")
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": source})
    plugins = workshop.load()
    record = record_of(plugins, "mmx")
    assert record.status == "incompatible"
    assert "registry" in record.message
    assert "robustmm_register_balancers" in record.message
    assert plugins.registry.names("balancer") == []


def test_other_plugin_interface__is_incompatible(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    source = "ROBUSTMM_PLUGIN_API = 99\n" + offering("gate")
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": source})
    assert_bad(workshop, caplog, "incompatible", "it was written for plugin interface 99, this is 1")


def test_distribution_for_another_version__is_not_even_imported(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.install(
        "mmx-balancers", "0.3", {"mmx": "mmx"}, ["numpy", "robustmm>=99"], {"mmx": "raise SystemExit('imported')"}
    )
    assert_bad(workshop, caplog, "incompatible", "it needs robustmm>=99, this is 0.1.0")


def test_requirement__of_an_extra_or_in_odd_syntax_does_not_count(workshop: Workshop) -> None:
    requires = ["robustmm>=99; extra == 'next'", "not a requirement at all", "robustmm>=0.1"]
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, requires, {"mmx": offering("gate")})
    assert record_of(workshop.load(), "mmx").status == "loaded"


# Clashes


def test_clash__names_both_distributions(workshop: Workshop) -> None:
    workshop.builtin("balancing.gate", offering("gate"))
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": offering("gate")})
    with pytest.raises(PluginError) as caught:
        workshop.load()
    assert str(caught.value) == (
        f"balancer 'gate' is offered by {workshop.builtins}.balancing.gate and by mmx-balancers 0.3; "
        "remove one, rename it, or name its plugin in ROBUSTMM_DISABLE_PLUGINS"
    )
    assert caught.value.exit_code == 3


def test_clash__all_are_told_at_once_and_disabling_one_side_helps(workshop: Workshop) -> None:
    workshop.builtin("gate", offering("gate", "even"))
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": offering("even", "gate")})
    with pytest.raises(PluginError) as caught:
        workshop.load()
    assert len(str(caught.value).splitlines()) == 2
    kept = workshop.load(env={"ROBUSTMM_DISABLE_PLUGINS": "mmx_balancers"})
    assert kept.registry.get("balancer", "gate").origin == f"{workshop.builtins}.gate"


def test_clash__of_commands_names_both(workshop: Workshop) -> None:
    source = (
        "import click\nfrom robustmm import hookimpl\n@hookimpl\n"
        "def robustmm_register_commands(register):\n    register(click.Command('hello'))\n"
    )
    workshop.builtin("one", source)
    workshop.builtin("two", source)
    with pytest.raises(PluginError, match=r"command 'hello' is offered by \S+\.one and by \S+\.two; remove one"):
        workshop.load()


def test_same_plugin_through_two_entry_points__is_no_clash(workshop: Workshop) -> None:
    modules = {"mmx.plugin": offering("gate"), "mmx.__init__": "from mmx.plugin import robustmm_register_balancers"}
    workshop.install("mmx-balancers", "0.3", {"a": "mmx.plugin", "b": "mmx.plugin", "c": "mmx"}, modules=modules)
    # The hook builds a new Component at each call, and the two are equal.
    assert workshop.load().registry.names("balancer") == ["gate"]


def test_two_things_of_one_name_in_one_distribution__clash(workshop: Workshop) -> None:
    modules = {"one": offering("gate"), "two": offering("gate", build="lambda: Balancer()")}
    workshop.install("mmx-balancers", "0.3", {"a": "one", "b": "two"}, modules=modules)
    with pytest.raises(PluginError, match=r"'gate' is offered by mmx-balancers 0\.3 and by mmx-balancers 0\.3"):
        workshop.load()


# Environment


@pytest.fixture
def two_installed(workshop: Workshop) -> Workshop:
    workshop.builtin("balancing.even", offering("even"))
    workshop.install("mmx-balancers", "0.3", {"mmx": "mmx"}, modules={"mmx": offering("gate")})
    workshop.install("yyy", "1.0", {"why": "why"}, modules={"why": offering("why")})
    return workshop


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("mmx", ["even", "gate"]),
        ("MMX_balancers", ["even", "gate"]),
        ("mmx, yyy", ["even", "gate", "why"]),
        ("", ["even"]),
    ],
)
def test_load_plugins__limits_installed_plugins(two_installed: Workshop, listed: str, names: list[str]) -> None:
    plugins = two_installed.load(env={"ROBUSTMM_LOAD_PLUGINS": listed})
    assert plugins.registry.names("balancer") == names
    assert {record.status for record in plugins.records} == ({"loaded"} if len(names) == 3 else {"loaded", "blocked"})


@pytest.mark.parametrize("word", ["even", "balancing.even", "MODULE"])
def test_disable_plugins__blocks_a_builtin_without_importing_it(two_installed: Workshop, word: str) -> None:
    two_installed.builtin("balancing.even", "raise RuntimeError('imported')")
    word = word.replace("MODULE", f"{two_installed.builtins}.balancing.even")
    plugins = two_installed.load(env={"ROBUSTMM_DISABLE_PLUGINS": word})
    record = record_of(plugins, "even")
    assert (record.status, record.message) == ("blocked", "named in ROBUSTMM_DISABLE_PLUGINS")
    assert plugins.registry.names("balancer") == ["gate", "why"]


def test_unknown_name_in_the_environment__warns_and_names_known_ones(
    two_installed: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    two_installed.load(env={"ROBUSTMM_DISABLE_PLUGINS": "evne", "ROBUSTMM_LOAD_PLUGINS": "mmx,zzzzz"})
    assert caplog.messages == [
        "ROBUSTMM_DISABLE_PLUGINS: no plugin 'evne' - did you mean 'even'? "
        "Known: even, mmx, mmx-balancers, robustmm, why, yyy",
        "ROBUSTMM_LOAD_PLUGINS: no plugin 'zzzzz'. Known: mmx, mmx-balancers, why, yyy",
    ]


def test_strict_plugins__tells_every_bad_plugin_as_an_error(workshop: Workshop) -> None:
    workshop.builtin("broken", "raise ValueError('no')")
    workshop.builtin("old", "ROBUSTMM_PLUGIN_API = 0")
    with pytest.raises(PluginError) as caught:
        workshop.load(env={"ROBUSTMM_STRICT_PLUGINS": "1"})
    assert str(caught.value).splitlines() == [
        f"plugin 'broken' ({workshop.builtins}.broken) failed to load: ValueError: no.",
        f"plugin 'old' ({workshop.builtins}.old) is incompatible: it was written for plugin interface 0, this is 1.",
    ]
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(workshop.load(env={"ROBUSTMM_STRICT_PLUGINS": "0"}).records) == 2


# Single plugins and the plugins of the process


def test_check_plugin__raises_what_is_wrong_with_one(workshop: Workshop) -> None:
    sound = workshop.module("mine.gate", offering("gate"))
    assert check_plugin(file_source(sound)).components == ("balancer:gate",)
    broken = workshop.module("mine.broken", "import no_such_module_at_all")
    before = set(sys.modules)
    with pytest.raises(PluginError, match=r"plugin 'broken' \(.*\) failed to load: ModuleNotFoundError: no_such_mod"):
        check_plugin(file_source(broken))
    assert not [name for name in set(sys.modules) - before if name.startswith("robustmm_file")]


def test_find_plugins__finds_the_built_in_ones_without_importing_them() -> None:
    found = {source.name: source for source in find_plugins((), {}, entry_points=())}
    assert found["ogm"].module == "robustmm_plugins.balancing.ogm"
    assert all(source.distribution == "robustmm" for source in found.values())


def test_get_plugins__loads_once_until_the_folders_change(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustmm.plugin_manager.load_plugins", lambda folders: [*folders])
    set_plugins_dirs()
    try:
        assert get_plugins() is get_plugins()
        set_plugins_dirs([Path("here")])
        assert get_plugins() == ["here"]  # type: ignore[comparison-overlap] - load_plugins is replaced above
    finally:
        set_plugins_dirs()
