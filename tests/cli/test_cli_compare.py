"""``robustmm compare`` in process, on run folders that were written, not trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_runs import write_group

from robustmm.cli import run


@pytest.fixture(autouse=True)
def _two_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_group(Path("runs"), "plain", [0.0, 0.0, 0.0, 0.0])
    write_group(Path("runs"), "drop", [0.05, 0.06, 0.04, 0.05], method__name="modality_dropout")


def test_compare__shows_tables_and_writes_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "runs", "--reference", "plain", "--out", "made"]) == 0
    shown = capsys.readouterr().out
    assert "combinations on test, accuracy of demo" in shown
    assert "minus plain, by seed; p after Holm" in shown
    assert "rgb+depth" in shown
    assert "note: 4 seeds. Intervals of means: percentile bootstrap over seeds, 9999 resamples, seed 0" in shown
    assert "modality_dropout is better than plain in mean by 0.0500 (p 0.001)" in shown
    assert shown.splitlines()[-1] == "made/comparison.html"
    assert json.loads(Path("made/comparison.json").read_text())["reference"] == "plain"


def test_compare__refusals_come_at_once_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    write_group(Path("more"), "dmrnet", [0.1, 0.1], method__name="dmrnet", model__missing_policy={"name": "token"})
    assert run(["compare", "runs/plain", "more", "--out", "made"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.partition(":")[0] for line in captured.err.splitlines()] == [
        "dmrnet",
        "dmrnet",
        "model.missing_policy.name differs (zero_feature, token), so scores do not compare; if it is what is compared, "
        "say so with --by model.missing_policy",
    ]
    assert not Path("made").exists()


def test_compare__damaged_results_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/plain/s0/results.json").write_text("{")
    assert run(["compare", "runs"]) == 2
    assert "runs/plain/s0/results.json is damaged" in capsys.readouterr().err


def test_report__of_a_folder_without_a_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "runs"]) == 2
    assert capsys.readouterr().err == "runs is no run folder: it has no config.yaml\n"
