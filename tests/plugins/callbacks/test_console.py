"""The console: plain lines where nobody watches, the same lines in train.log."""

from __future__ import annotations

from pathlib import Path

import pytest
from robustmm_plugins.callbacks.console import Console

from robustmm import RunInfo

RECORD = {
    "score": "accuracy",
    "validation/mean/accuracy": 0.5,
    "validation/worst/accuracy": None,
    "validation/complete/accuracy": 0.75,
    "degenerate": [],
    "improved": True,
}
LINE = (
    "epoch   0  step      4  loss   1.2500  mean/accuracy 0.5000  worst/accuracy none  complete/accuracy 0.7500  best"
)


def info(folder: Path, *, epochs: int = 2, start_step: int = 0) -> RunInfo:
    facts = {"data": "[synthetic] of a very long name, " + "x" * 200}
    return RunInfo(folder, "tiny", epochs, 4, start_step // 4, start_step, facts)


def test_console__without_a_terminal_writes_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(every=1)
    console.on_run_start(info(tmp_path))
    for step in range(1, 5):
        console.on_step(step, 0)
    console.on_log(4, {"loss/total": 1.25, "lr": 0.1})
    console.on_epoch_end(0, 4, RECORD)
    console.on_message("stopped early: no progress in mean/accuracy")
    console.on_run_end("done")
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = [
        "data        [synthetic] of a very long name, " + "x" * 200,
        LINE,
        "stopped early: no progress in mean/accuracy",
    ]
    assert shown.err.splitlines() == lines
    assert (tmp_path / "train.log").read_text().splitlines() == lines


def test_console__in_a_terminal_keeps_colours_and_bar_out_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    console = Console(every=1)
    assert console.console.is_terminal
    console.on_run_start(info(tmp_path))
    console.on_step(3, 0)
    console.on_epoch_end(0, 4, RECORD)
    console.on_run_end("done")
    assert "\x1b[" in capsys.readouterr().err
    log = (tmp_path / "train.log").read_text()
    assert "\x1b" not in log
    assert LINE.replace("loss   1.2500  ", "") in log.splitlines()


def test_console__every_third_epoch_and_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(every=3)
    console.on_run_start(info(tmp_path, epochs=5))
    for epoch in range(5):
        console.on_epoch_end(epoch, 4 * epoch, RECORD)
    console.on_run_end("done")
    shown = [line.split()[1] for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert shown == ["2", "4"]


def test_console__names_degenerate_combinations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(every=1)
    console.on_run_start(info(tmp_path))
    console.on_epoch_end(0, 4, RECORD | {"degenerate": ["rgb", "rgb+depth"], "improved": False})
    console.on_run_end("done")
    shown = capsys.readouterr().err
    assert "degenerate (one answer for everything): rgb, rgb+depth" in shown
    assert "best" not in shown


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("interrupted", "interrupted at step 3; --resume continues from the last checkpoint"),
        ("failed", "failed at step 3; FAILED in the run folder has the traceback"),
    ],
)
def test_console__says_how_a_run_ended(
    tmp_path: Path, status: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(every=1)
    console.on_run_start(info(tmp_path))
    console.on_step(3, 0)
    console.on_run_end(status)
    assert capsys.readouterr().err.splitlines()[-1] == text
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == text


def test_console__a_resumed_run_goes_on_in_the_log(tmp_path: Path) -> None:
    for start in (0, 6):
        console = Console(every=1)
        console.on_run_start(info(tmp_path, start_step=start))
        console.on_run_end("done")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert lines[0] == lines[1]
    assert lines[2] == "resumed     at epoch 1, step 6"
