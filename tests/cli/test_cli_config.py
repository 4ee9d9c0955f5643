from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from robustmm.commands.config import command
from robustmm.errors import ConfigError, RobustmmError
from robustmm.plugin_manager import get_plugins

REGISTRY = get_plugins().registry


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def begin() -> str:
    result = config("init", "-o", "a.yaml")
    assert result.output == "wrote a.yaml\n"
    return "a.yaml"


@pytest.mark.parametrize("method", REGISTRY.names("method"))
def test_config_init__writes_a_file_that_validates_for_each_method(method: str) -> None:
    assert config("init", "--method", method).exit_code == 0
    assert config("validate", "-c", f"{method}_handwritten_6views.yaml").exit_code == 0


@pytest.mark.parametrize("dataset", REGISTRY.names("dataset"))
def test_config_init__writes_a_file_that_validates_for_each_data_set(dataset: str) -> None:
    assert config("init", "--dataset", dataset, "--method", "plain", "-o", "sub/a.yaml").exit_code == 0
    assert config("validate", "-c", "sub/a.yaml").output == "ok\n  sub/a.yaml\n"


def test_config_init__replaces_a_file_only_with_force() -> None:
    path = Path(begin())
    path.write_text("mine\n", encoding="utf-8")
    refused = config("init", "-o", "a.yaml")
    assert isinstance(refused.exception, RobustmmError)
    assert str(refused.exception) == "a.yaml exists; give --force to replace it, or another name with -o"
    assert path.read_text(encoding="utf-8") == "mine\n"
    assert config("init", "-o", "a.yaml", "--force").exit_code == 0
    assert path.read_text(encoding="utf-8") != "mine\n"


def test_config_init__refuses_an_unknown_method_and_writes_nothing() -> None:
    refused = config("init", "--method", "dmrnett")
    assert "unknown method 'dmrnett' - did you mean 'dmrnet'?" in str(refused.exception)
    assert not list(Path().iterdir())


def test_config_show__prints_a_configuration_that_shows_the_same() -> None:
    shown = config("show", "-c", begin(), "-o", "seed=7", "-o", "name=same")
    Path("b.yaml").write_text(shown.output, encoding="utf-8")
    assert "seed: 7\n" in shown.output
    assert config("show", "-c", "b.yaml").output == shown.output


def test_config_show__says_where_values_come_from() -> None:
    lines = config("show", "-c", begin(), "-o", "seed=7", "--origins").output.splitlines()
    assert any(line.startswith("seed: 7 ") and line.endswith("# -o seed=7") for line in lines)
    assert any("epochs: 20 " in line and "# a.yaml:" in line for line in lines)


def test_config_validate__shows_every_mistake() -> None:
    refused = config("validate", "-c", begin(), "-o", "seed=x", "-o", "train.epocs=3")
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.problems == (
        "-o seed=x  seed: expected a whole number at least 0, got 'x'",
        "-o train.epocs=3  train.epocs: unknown key - did you mean 'epochs'?",
    )
    assert refused.exception.exit_code == 2


def test_config_validate__lists_the_files_it_read() -> None:
    begin()
    Path("b.yaml").write_text("extends: a.yaml\nseed: 3\n", encoding="utf-8")
    assert config("validate", "-c", "b.yaml").output == "ok\n  a.yaml\n  b.yaml\n"


def test_config_schema__prints_or_writes_the_schema() -> None:
    printed = config("schema").output
    assert config("schema", "--output", "schema.json").output == ""
    assert Path("schema.json").read_text(encoding="utf-8") == printed
    assert "dmrnet" in json.loads(printed)["$defs"]["component.method"]["oneOf"][0]["enum"]
