"""Paths that cannot be written or are no run: one line, no traceback."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import pytest
import torch
from cli_runs import write_config

from robustmm.cli import run
from robustmm.engine import checkpoint
from robustmm.errors import CheckpointError
from robustmm.plugin_sources import folder_sources


def test_train__names_a_path_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    config = write_config(tmp_path, method="plain")
    assert run(["train", "-c", config, "--folder", str(tmp_path / "file" / "run")]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert str(tmp_path / "file") in shown
    assert "Not a directory" in shown


def test_evaluate__says_that_a_folder_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(tmp_path)]) == 2
    assert f"{tmp_path} is no run folder: it has no config.yaml" in capsys.readouterr().err


def test_checkpoint__is_readable_as_other_files_are(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        checkpoint.save(tmp_path / "last.safetensors", {"weights": {"a": torch.zeros(1)}})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "last.safetensors").stat().st_mode) == 0o644


def test_checkpoint__names_the_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise checkpoint.SafetensorError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"last.safetensors cannot be written: No space left on device"):
        checkpoint.save(tmp_path / "last.safetensors", {"weights": {}})


def test_plugins_dir__leaves_out_tests_and_helpers(tmp_path: Path) -> None:
    for name in ("gate.py", "test_gate.py", "conftest.py", "_shared.py"):
        (tmp_path / name).write_text("")
    assert [source.name for source in folder_sources([tmp_path])] == ["gate"]


def test_run__shows_warnings_without_their_source_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert run(["--version"]) == 0
    assert warnings.formatwarning("no effect", UserWarning, "file.py", 1) == "warning: no effect\n"
