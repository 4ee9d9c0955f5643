"""``robustmm doctor`` finds what is broken and says how to repair it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from robustmm.cli import run
from robustmm.commands import doctor
from robustmm.errors import PluginError, RobustmmError
from robustmm.plugin_manager import LoadedPlugins, PluginRecord
from robustmm.registry import Registry


@pytest.fixture(autouse=True)
def _sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing is wrong, whatever this one is like."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTMM_DATA", raising=False)
    monkeypatch.setattr(doctor, "import_torchvision", lambda _: None)
    monkeypatch.setattr("robustmm.plugin_manager.get_plugins", lambda: LoadedPlugins(Registry(), {}, ()))


def findings(capsys: pytest.CaptureFixture[str], exit_code: int) -> dict[str, tuple[bool, str]]:
    assert run(["doctor", "--json"]) == exit_code
    return {row["subject"]: (row["ok"], row["text"]) for row in json.loads(capsys.readouterr().out)}


def raising(error: Exception) -> Callable[..., object]:
    def call(*_: object, **__: object) -> object:
        raise error

    return call


def test_doctor__sound_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = findings(capsys, 0)
    assert {"robustmm", "python", "cpu", "requirements", "lightning", "torch", "torchvision", "plugins"} <= set(found)
    assert all(ok for ok, _ in found.values())
    assert found["folder"] == (True, f"{tmp_path} can be written")


def test_doctor__prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTMM_DATA", "nowhere")
    assert run(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["subject", "state", "finding"]
    assert lines[-1].split()[:2] == ["data", "BROKEN"]


def test_doctor__explains_torchvision(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "import_torchvision", raising(RobustmmError("different builds")))
    assert findings(capsys, 1)["torchvision"] == (False, "different builds")


def test_doctor__tells_bad_plugins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bad = PluginRecord("mmx", "mmx-balancers", "0.3", "mmx", "failed", "ValueError: no", origin="mmx-balancers 0.3")
    blocked = PluginRecord("gate", "gates", "1", "gate", "blocked")
    monkeypatch.setattr("robustmm.plugin_manager.get_plugins", lambda: LoadedPlugins(Registry(), {}, (bad, blocked)))
    found = findings(capsys, 1)
    assert found["plugins"] == (True, "0 loaded, 1 blocked, 1 not usable")
    assert found["plugin mmx"] == (False, "plugin 'mmx' (mmx-balancers 0.3) failed to load: ValueError: no.")


def test_doctor__goes_on_after_a_check_that_raises(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustmm.plugin_manager.get_plugins", raising(PluginError("balancer 'gate' is offered twice")))
    found = findings(capsys, 1)
    assert found["plugins"] == (False, "PluginError: balancer 'gate' is offered twice")
    assert found["folder"][0]


def test_doctor__tells_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", raising(OSError(30, "Read-only file system")))
    text = f"{tmp_path} cannot be written (Read-only file system); runs go to 'runs' below the current folder"
    assert findings(capsys, 1)["folder"] == (False, text)


def test_doctor__tells_a_data_folder_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUSTMM_DATA", str(tmp_path))
    assert findings(capsys, 0)["data"] == (True, f"ROBUSTMM_DATA={tmp_path}")
    monkeypatch.setenv("ROBUSTMM_DATA", "nowhere")
    assert findings(capsys, 1)["data"][1].startswith("ROBUSTMM_DATA=nowhere is not a folder; set it to")


def test_unmet__compares_the_installed_version() -> None:
    assert doctor.unmet(Requirement("pluggy>=1.0")) == ""
    assert doctor.unmet(Requirement("pluggy>=999")).endswith("does not meet >=999")
    assert doctor.unmet(Requirement("no-such-distribution-at-all")) == "no-such-distribution-at-all is not installed"
