"""The command line itself, and ``robustmm plugins``."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from plugin_workshop import offering

import robustmm
from robustmm import cli
from robustmm.cli import COMMANDS, run
from robustmm.errors import RunFailed
from robustmm.plugin_manager import set_plugins_dirs

HELLO = (
    "import click\nfrom robustmm import hookimpl\n"
    "@click.command('{name}')\ndef hello():\n    click.echo('hello there')\n"
    "@hookimpl\ndef robustmm_register_commands(register):\n    register(hello)\n"
)


@pytest.fixture(autouse=True)
def _forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LOAD_PLUGINS", "DISABLE_PLUGINS", "STRICT_PLUGINS", "PLUGINS_DIR"):
        monkeypatch.delenv(f"ROBUSTMM_{name}", raising=False)
    set_plugins_dirs()
    yield
    set_plugins_dirs()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "gate.py").write_text(offering("gate_of_a_file"), encoding="utf-8")
    return str(tmp_path)


# The program


def test_help__imports_neither_torch_nor_pydantic_nor_commands() -> None:
    code = (
        "import sys\nfrom robustmm.cli import run\nassert run(['--help']) == 0\n"
        "heavy = {'torch', 'pydantic', 'pluggy', 'rich', 'numpy', 'yaml'} & sys.modules.keys()\n"
        "commands = [name for name in sys.modules if name.startswith('robustmm.commands.')]\n"
        "print(sorted(heavy), commands)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"
    for name, row in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert row.help[:20] in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_command_table__names_click_commands(name: str) -> None:
    command = cli.group.get_command(click.Context(cli.group), name)
    assert isinstance(command, click.Command)
    assert command.help


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"robustmm, version {robustmm.__version__}\n"


def test_unknown_command__suggests_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docter"]) == 2
    assert "Error: unknown command 'docter' - did you mean 'doctor'? Known: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunFailed("loss is not finite\nat step 3"), 1, "loss is not finite\nat step 3\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_of_a_command__become_exit_codes_without_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)
    assert run(["doctor"]) == code
    assert capsys.readouterr().err.strip() == text.strip()


def test_debug__shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--debug", "list", "balancr"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "unknown kind 'balancr'" in err


def test_main__exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["robustmm", "list", "balancr"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2


# Plugins' commands


def test_plugin_command__runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hello.py").write_text(HELLO.format(name="hello"), encoding="utf-8")
    assert run(["--plugins-dir", str(tmp_path), "hello"]) == 0
    assert capsys.readouterr().out == "hello there\n"


def test_plugin_command__may_not_take_the_name_of_a_built_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hello.py").write_text(HELLO.format(name="doctor"), encoding="utf-8")
    assert run(["--plugins-dir", str(tmp_path), "hello"]) == 3
    assert capsys.readouterr().err == (
        f"command 'doctor' is offered by robustmm and by {tmp_path / 'hello.py'}; the plugin must rename it\n"
    )


# robustmm plugins


def test_plugins_list__summarises_the_built_in_ones(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--plugins-dir", folder, "plugins", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "plugin"
    assert lines[1].startswith("(built-in)")
    assert "built-in plugins with" in lines[1]
    assert lines[-1].split()[0] == "gate"
    assert lines[-1].endswith("loaded  balancer:gate_of_a_file")
    assert not any(line.startswith("ogm ") for line in lines)


def test_plugins_list__all_shows_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list", "--all"]) == 0
    assert any(
        line.startswith("ogm ") and line.endswith("balancer:ogm") for line in capsys.readouterr().out.splitlines()
    )


def test_plugins_list__shows_why_a_plugin_is_not_loaded(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path(folder, "bad.py").write_text("import no_such_module_at_all", encoding="utf-8")
    monkeypatch.setenv("ROBUSTMM_DISABLE_PLUGINS", "ogm_ge,gate")
    with caplog.at_level(logging.WARNING):
        assert run(["--plugins-dir", folder, "plugins", "list"]) == 0
    out = capsys.readouterr().out
    for name, end in (
        ("ogm_ge", "blocked  named in ROBUSTMM_DISABLE_PLUGINS"),
        ("gate", "blocked  named in ROBUSTMM_DISABLE_PLUGINS"),
        ("bad", "failed   ModuleNotFoundError: no_such_module_at_all"),
    ):
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert line.endswith(end)
    assert len(caplog.messages) == 1


def test_warning__stands_alone_on_standard_error(folder: str) -> None:
    Path(folder, "bad.py").write_text("import no_such_module_at_all", encoding="utf-8")
    code = "import sys; from robustmm.cli import run; run(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "--plugins-dir", folder, "list", "balancer"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == (
        f"plugin 'bad' ({Path(folder, 'bad.py')}) failed to load: ModuleNotFoundError: no_such_module_at_all. "
        "Its components are unavailable; the rest is loaded.\n"
    )
    assert "gate_of_a_file" in done.stdout


def test_plugins_list__json_has_every_plugin(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--plugins-dir", folder, "plugins", "list", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert records["ogm"]["module"] == "robustmm_plugins.balancing.ogm"
    assert records["gate"] == {
        "name": "gate",
        "distribution": str(Path(folder, "gate.py")),
        "version": "",
        "module": str(Path(folder, "gate.py")),
        "status": "loaded",
        "message": "",
        "components": ["balancer:gate_of_a_file"],
        "origin": str(Path(folder, "gate.py")),
    }


def test_plugins_check__a_file_says_what_it_registered(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(Path(folder, "gate.py"))
    assert run(["plugins", "check", path]) == 0
    assert capsys.readouterr().out == f"plugin 'gate' ({path}) is sound: balancer:gate_of_a_file\n"


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("ogm", "plugin 'ogm' (robustmm_plugins.balancing.ogm) is sound: balancer:ogm\n"),
        ("json.decoder", "plugin 'decoder' (json.decoder) is sound: none: it implements no hook\n"),
    ],
)
def test_plugins_check__takes_names_and_modules(word: str, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "check", word]) == 0
    assert capsys.readouterr().out == end


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("ogmm", "no plugin 'ogmm' - did you mean 'ogm'? Known: "),
        ("no_such_package.part", "plugin 'part' (no_such_package.part) failed to load: ModuleNotFoundError: no_such_p"),
        ("not_there.py", "not_there.py: no such file"),
    ],
)
def test_plugins_check__tells_what_is_wrong(word: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "check", word]) == 3
    assert capsys.readouterr().err.startswith(text)


def test_plugins_check__without_a_name_checks_all(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(folder, "bad.py").write_text("import no_such_module_at_all", encoding="utf-8")
    Path(folder, "worse.py").write_text("1 / 0", encoding="utf-8")
    assert run(["--plugins-dir", folder, "plugins", "check"]) == 3
    assert [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()] == ["plugin 'bad'", "plugin 'worse'"]


# The example for plugin authors

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_plugin"


def test_example_plugin__registers_its_fusion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--plugins-dir", str(EXAMPLE), "list", "fusion", "projected_max"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fusion projected_max: Largest feature among the present modalities")
    assert "\ndim     int   128      > 0          Width of the fused feature.\n" in out


def test_example_plugin__names_its_module_as_the_entry_point() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = project["project"]["entry-points"]["robustmm"].values()
    assert (EXAMPLE / f"{module}.py").is_file()
    assert project["tool"]["setuptools"]["py-modules"] == [module]
