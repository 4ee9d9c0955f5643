"""A run that was stopped and resumed ends as one that was not: ``robustmm train --resume``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runs import STOP, equal_runs, in_child, records, results, write_config, write_plugins
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustmm.cli import run

#: Two epochs of four steps; MMANet's teacher trains for as many before.
STEPS = 8
MMANET = {"name": "mmanet", "warmup_epochs": 1, "mining_first": 0, "mining_last": 0}


class Stopper:
    """Runs one configuration to its end, and again with a stop on the way.

    Args:
        folder: For everything.
        changes: Of the configuration.
    """

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.config = write_config(folder, schedule="stop", **changes)
        self.plugins = write_plugins(folder, stop=STOP)

    def arguments(self, folder: str, *more: str) -> list[str]:
        return ["--plugins-dir", self.plugins, "train", "-c", self.config, "--folder", folder, *more]

    def train(self, folder: str, *more: str) -> int:
        """Run in this process; the plugin is read anew and counts from 1."""
        return run(self.arguments(folder, *more))


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int, number: signal.Signals) -> None:
    monkeypatch.setenv("STOP_AT_CALL", str(call))
    monkeypatch.setenv("STOP_SIGNAL", str(int(number)))


# Asked to stop


@pytest.mark.parametrize(
    ("number", "call"), [(signal.SIGINT, 1), (signal.SIGINT, 4), (signal.SIGINT, 6), (signal.SIGTERM, 6)]
)
@pytest.mark.parametrize(
    ("method", "balancer"),
    [
        ("plain", "none"),
        ("modality_dropout", "ogm_ge"),
        ("dmrnet", "ogm"),
    ],
)
def test_resume__after_a_signal_ends_as_if_there_had_been_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, call: int, method: str, balancer: str
) -> None:
    stopper = Stopper(tmp_path, method=method, balancer=balancer)
    assert stopper.train("whole") == 0
    stop_at(monkeypatch, call, number)
    assert stopper.train("parts") == 130
    assert Path("parts/checkpoints/last.safetensors").exists()
    assert not Path("parts/DONE").exists()
    assert len(records(Path("parts"), "log")) == call
    monkeypatch.delenv("STOP_AT_CALL")
    assert stopper.train("parts", "--resume") == 0
    assert equal_runs(Path("whole"), Path("parts"))
    assert Path("parts/DONE").exists()


@pytest.mark.parametrize("call", [3, STEPS + 2, STEPS + 6])
def test_resume__mmanet_stopped_while_its_teacher_trains_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    stopper = Stopper(tmp_path, method=MMANET)
    assert stopper.train("whole") == 0
    stop_at(monkeypatch, call, signal.SIGINT)
    assert stopper.train("parts") == 130
    assert Path("parts/checkpoints/last.safetensors").exists() == (call > STEPS)
    monkeypatch.delenv("STOP_AT_CALL")
    assert stopper.train("parts", "--resume") == 0
    assert equal_runs(Path("whole"), Path("parts"))
    teacher = "checkpoints/teacher/best.safetensors"
    assert Path("whole", teacher).read_bytes() == Path("parts", teacher).read_bytes()


# Killed


@pytest.mark.parametrize(
    ("method", "call"),
    [("plain", 2), ("dmrnet", 6), (MMANET, 3), (MMANET, STEPS - 1), (MMANET, STEPS + 6)],
    ids=["before any checkpoint", "in an epoch", "teacher's first epoch", "teacher's last epoch", "after the teacher"],
)
def test_resume__after_kill_9_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, call: int
) -> None:
    stopper = Stopper(tmp_path, method=method, balancer="ogm_ge" if method == "plain" else "none")
    assert stopper.train("whole") == 0
    kill = {"STOP_AT_CALL": str(call), "STOP_SIGNAL": str(int(signal.SIGKILL))}
    arguments = stopper.arguments(str(tmp_path / "parts"))
    assert in_child(arguments, kill, tmp_path / "output.txt") == -signal.SIGKILL, Path("output.txt").read_text()
    assert not Path("parts/results.json").exists()
    assert stopper.train("parts", "--resume") == 0
    assert equal_runs(Path("whole"), Path("parts"))


def test_resume__after_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """The whole way with a program of its own: a signal from outside at any moment, then --resume elsewhere."""
    config = write_config(tmp_path, train={"epochs": 60}, callbacks=["console", "jsonl"])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robustmm", "train", "-c", config, "-o", "evaluation.unimodal=false"]
    with subprocess.Popen([*command, "--folder", "parts"], env=environment, stderr=subprocess.PIPE) as program:
        log, patience = Path("parts/metrics.jsonl"), time.monotonic() + 300
        while not (log.exists() and log.stat().st_size > 3000):
            assert program.poll() is None, program.communicate()[1]
            assert time.monotonic() < patience
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        said = (program.communicate(timeout=300)[1] or b"").decode()
        assert program.returncode == 130, said
    assert "--resume continues from the last checkpoint" in said
    assert "Traceback" not in said
    steps = [record["step"] for record in records(Path("parts"), "log")]
    assert len(steps) < 240
    assert run([*command[3:], "--folder", "parts", "--resume"]) == 0
    assert run([*command[3:], "--folder", "whole"]) == 0
    assert equal_runs(Path("whole"), Path("parts"))
    log_lines = Path("parts/train.log").read_text().splitlines()
    # The epoch of an epoch's last step depends on the moment of the signal: before or after its validation.
    (resumed,) = (line for line in log_lines if line.startswith("resumed"))
    assert resumed.endswith(f", step {steps[-1]}")


# What there is to resume


def test_resume__takes_the_newest_unfinished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopper = Stopper(tmp_path)
    arguments = ["--plugins-dir", stopper.plugins, "train", "-c", stopper.config]
    stop_at(monkeypatch, 3, signal.SIGINT)
    assert run(arguments) == 130
    (folder,) = Path("runs/tiny").iterdir()
    monkeypatch.delenv("STOP_AT_CALL")
    assert run([*arguments, "--resume"]) == 0
    assert [path.name for path in Path("runs/tiny").iterdir()] == [folder.name]
    assert (folder / "DONE").exists()


def test_resume__nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert run(["train", "-c", config, "--resume"]) == 2
    text = f"nothing to resume: no unfinished run of 'tiny' with seed 0 under {Path('runs/tiny')}; start one without"
    assert text in capsys.readouterr().err
    assert run(["train", "-c", config, "--folder", "nowhere", "--resume"]) == 2
    assert "nothing to resume: nowhere is not a run folder (no config.yaml)" in capsys.readouterr().err
    assert not Path("nowhere").exists()
    assert run(["train", "-c", config]) == 0
    assert run(["train", "-c", config, "--resume"]) == 2
    assert "(1 finished)" in capsys.readouterr().err


def test_resume__finished_run_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "-c", write_config(tmp_path), "--folder", "made"]
    assert run(arguments) == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path("made").rglob("*")}
    capsys.readouterr()
    assert run([*arguments, "--resume"]) == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path("made").rglob("*")} == before
    shown = capsys.readouterr()
    assert "made is finished; there is nothing to resume" in shown.err
    assert "mean" in shown.out


def test_resume__other_configuration_is_refused_key_by_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "-c", write_config(tmp_path), "--folder", "made"]
    assert run(arguments) == 0
    capsys.readouterr()
    other = ["-o", "optimizer.lr=0.5", "-o", "method={name: dmrnet, kl_weight: 0.25}", "-o", "train.epochs=7"]
    assert run([*arguments, *other, "--resume"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "made began with another configuration; start a new run, or give the same one:"
    assert "  optimizer.lr: began with 0.01, given 0.5" in lines
    assert "  train.epochs: began with 2, given 7" in lines
    assert "  method.name: began with plain, given dmrnet" in lines
    assert "  method.kl_weight: began with nothing, given 0.25" in lines


def test_resume__damaged_checkpoint_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopper = Stopper(tmp_path)
    stop_at(monkeypatch, 3, signal.SIGINT)
    assert stopper.train("made") == 130
    monkeypatch.delenv("STOP_AT_CALL")
    last = Path("made/checkpoints/last.safetensors")
    last.write_bytes(last.read_bytes()[:100])
    assert stopper.train("made", "--resume") == 2
    assert f"{last} is damaged or not a safetensors file" in capsys.readouterr().err


def age_events(folder: Path) -> None:
    """Let event files look a minute old: readers take them in the order of the second in their names."""
    for path in folder.iterdir():
        stamp = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(stamp, str(int(stamp) - 60))))


@pytest.mark.parametrize(
    ("call", "number"),
    [(6, signal.SIGINT), (6, signal.SIGKILL), (3, signal.SIGKILL)],
    ids=["stopped", "killed", "killed before any checkpoint"],
)
def test_resume__records_stand_once_in_both_logs(tmp_path: Path, call: int, number: signal.Signals) -> None:
    stopper = Stopper(tmp_path)
    environment = {"STOP_AT_CALL": str(call), "STOP_SIGNAL": str(int(number))}
    code = in_child(stopper.arguments(str(tmp_path / "made")), environment, tmp_path / "output.txt")
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL), Path("output.txt").read_text()
    age_events(Path("made/tb"))
    assert stopper.train("made", "--resume") == 0
    lines = records(Path("made"))
    assert [line["step"] for line in lines if line["kind"] == "log"] == list(range(1, STEPS + 1))
    assert [(line["kind"], line.get("status")) for line in lines if line["kind"] == "end"] == [("end", "done")]
    assert results(Path("made"))["rows"]
    events = EventAccumulator("made/tb")
    events.Reload()
    assert [event.step for event in events.Scalars("loss/total")] == list(range(1, STEPS + 1))
    assert [event.step for event in events.Scalars("validation/mean/accuracy")] == [4, 8]
