"""``robustmm train -o train.accumulate=N``."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cli_runs import STOP, equal_runs, records, results, write_config, write_plugins

from robustmm.cli import run


def steps(folder: str) -> list[int]:
    return [record["step"] for record in records(Path(folder), "log")]


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 8), (2, 4), (3, 4), (9, 2)])
def test_accumulate__makes_one_update_of_several_batches(tmp_path: Path, accumulate: int, updates: int) -> None:
    """Two epochs of four batches of 8; the last group of an epoch may be smaller."""
    command = ["train", "-c", write_config(tmp_path, callbacks=["jsonl"]), "-o", f"train.accumulate={accumulate}"]
    assert run([*command, "--dry-run"]) == 0
    assert run([*command, "--folder", "made"]) == 0
    assert steps("made") == list(range(1, updates + 1))
    assert len(results(Path("made"))["rows"]) == 3


@pytest.mark.parametrize("call", [1, 3])
def test_accumulate__resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    config = write_config(tmp_path, schedule="stop", balancer="ogm_ge", method="modality_dropout")
    plugins = write_plugins(tmp_path, stop=STOP)
    command = ["--plugins-dir", plugins, "train", "-c", config, "-o", "train.accumulate=2"]
    assert run([*command, "--folder", "whole"]) == 0
    monkeypatch.setenv("STOP_AT_CALL", str(call))
    monkeypatch.setenv("STOP_SIGNAL", str(int(signal.SIGINT)))
    assert run([*command, "--folder", "parts"]) == 130
    assert steps("parts") == list(range(1, call + 1))
    monkeypatch.delenv("STOP_AT_CALL")
    assert run([*command, "--folder", "parts", "--resume"]) == 0
    assert equal_runs(Path("whole"), Path("parts"))


def test_accumulate__of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "-c", write_config(tmp_path), "-o", "train.accumulate=0"]) == 2
    assert "train.accumulate" in capsys.readouterr().err
