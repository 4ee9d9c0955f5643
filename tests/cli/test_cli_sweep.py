"""``robustmm sweep`` in process; its children are real where a training is what matters, and stand-ins elsewhere."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from cli_runs import STOP, write_config, write_plugins
from fake_training import use_fake_training

from robustmm.cli import run


@pytest.fixture
def config(tmp_path: Path) -> str:
    return write_config(tmp_path)


def test_sweep__resumes_what_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins = write_plugins(tmp_path, stop=STOP)
    config = write_config(tmp_path, schedule="stop")
    arguments = ["--plugins-dir", plugins, "sweep", "-c", config, "--seeds", "4,", "--folder", "made"]
    monkeypatch.setenv("STOP_AT_CALL", "6")
    monkeypatch.setenv("STOP_SIGNAL", str(int(signal.SIGKILL)))
    assert run(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "1 of 1 runs failed; the same command tries them again:",
        "  tiny/s4: ended by signal 9 (made/tiny/s4.log)",
    ]
    assert Path("made/tiny/s4/checkpoints/last.safetensors").exists()
    monkeypatch.delenv("STOP_AT_CALL")
    assert run(arguments) == 0
    assert Path("made/tiny/s4/DONE").exists()
    assert "resumed     at epoch 1, step 4" in Path("made/tiny/s4/train.log").read_text()
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert any(row[:3] == ["tiny", "4", "done"] for row in rows)


def test_sweep__every_member_ends_and_the_next_call_keeps_them(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = use_fake_training(monkeypatch)
    arguments = ["sweep", config, "-o", "method.name=plain,modality_dropout", "--seeds", "3", "--folder", "made"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert len(asked) == 6
    assert "6 of 6" in captured.err
    assert "done after" in captured.err
    assert "made, accuracy on test" in captured.out
    assert "mean of 3" in captured.out
    assert captured.out.splitlines()[-1] == "compare with: robustmm compare made"
    assert run(arguments) == 0
    assert len(asked) == 6
    assert capsys.readouterr().err == ""
    assert run(["compare", "made"]) == 0
    assert "no difference from plain is significant" in capsys.readouterr().out


def test_sweep__one_failed_member_and_exit_code_1(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = use_fake_training(monkeypatch)
    assert run(["sweep", "-c", config, "-o", "train.epochs=1,13", "--seeds", "2", "--folder", "made"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-3:] == [
        "2 of 4 runs failed; the same command tries them again:",
        "  tiny-epochs=13/s0: RunFailed: loss 'task' is nan at step 3 (made/tiny-epochs=13/s0.log)",
        "  tiny-epochs=13/s1: RunFailed: loss 'task' is nan at step 3 (made/tiny-epochs=13/s1.log)",
    ]
    assert "compare with" not in captured.out
    rows = [line.replace("│", " ").split() for line in captured.out.splitlines()]
    assert ["tiny-epochs=13", "1", "failed", "-", "-", "-"] in rows
    asked.clear()
    assert run(["sweep", "-c", config, "-o", "train.epochs=1,13", "--seeds", "2", "--folder", "made"]) == 1
    assert [command[-1] for command in asked] == ["--overwrite", "--overwrite"]  # of the failed runs alone


def test_sweep__nothing_runs_before_all_is_checked(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = use_fake_training(monkeypatch)
    assert run(["sweep", "-c", config, "-o", "method.name=plain,plian", "-o", "optimizer.lr=0.1,x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["-o optimizer.lr=x", "-o method.name=plian"]
    assert not asked
    assert not Path("runs").exists()


def test_sweep__dry_run_lists_members(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", "-c", config, "--seeds", "2", "--vary", "data.dataset.seed+3", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"tiny/s1  -c {config} -o seed=1 -o data.dataset.seed=4"
    assert not Path("runs").exists()


def test_sweep__another_plan_needs_extend(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = use_fake_training(monkeypatch)
    assert run(["sweep", "-c", config, "--seeds", "1"]) == 0
    assert json.loads(Path("runs/sweep-tiny/sweep.json").read_text())["members"][0]["name"] == "tiny/s0"
    capsys.readouterr()
    assert run(["sweep", "-c", config, "--seeds", "2"]) == 2
    assert "has another plan: tiny/s1 are new; add --extend" in capsys.readouterr().err
    assert run(["sweep", "-c", config, "--seeds", "2", "--extend"]) == 0
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "name a configuration"),
        (["-c", "x.yaml", "--slurm", "a=b"], "--slurm needs --launcher submitit"),
        (["-c", "x.yaml", "--tune", "a=1:2", "--launcher", "submitit"], "--tune runs its trials here"),
        (["-c", "nowhere.yaml"], "cannot read 'nowhere.yaml'"),
        (["-c", "x.yaml", "--seeds", "x"], "--seeds x: expected a number of seeds"),
    ],
)
def test_sweep__usage(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", *arguments]) == 2
    assert error in capsys.readouterr().err


# The launcher submitit


@pytest.fixture
def _submitit() -> None:
    pytest.importorskip("submitit")


@pytest.mark.usefixtures("_submitit")
@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_submitit__runs_the_members_of_the_plan(
    config: str, cluster: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = use_fake_training(monkeypatch)
    monkeypatch.setattr("robustmm.sweep.submit.PAUSE", 0.05)
    arguments = ["sweep", "-c", config, "-o", "train.epochs=1,13", "--seeds", "1", "--folder", "made"]
    arguments += ["--launcher", "submitit", "--slurm", f"cluster={cluster}", "--slurm", "timeout=5"]
    assert run(arguments) == 1
    assert "1 of 2 runs failed" in capsys.readouterr().err
    assert Path("made/tiny-epochs=1/s0/DONE").exists()
    assert len(asked) == 2
    assert list(Path("made/submitit").glob("*/*_submitted.pkl")) or cluster == "debug"


@pytest.mark.usefixtures("_submitit")
def test_submitit__refuses_an_option_in_a_line(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_training(monkeypatch)
    arguments = ["sweep", "-c", config, "--seeds", "1", "--launcher", "submitit", "--slurm", "cluster=local"]
    assert run([*arguments, "--slurm", "timeout_min=soon"]) == 2
    assert capsys.readouterr().err.startswith("--slurm: submitit refuses: ")


def test_submitit__missing_is_told_with_the_extra(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.sys.modules, "submitit", None)  # type: ignore[attr-defined]
    assert run(["sweep", "-c", config, "--seeds", "1", "--launcher", "submitit"]) == 2
    assert "needs the package submitit; install it with: pip install 'robustmm[slurm]'" in capsys.readouterr().err


# Search


def test_tune__finds_the_best_on_validation_and_writes_its_configuration(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    asked = use_fake_training(monkeypatch)
    arguments = ["sweep", "-c", config, "--seeds", "2", "--tune", "optimizer.lr=1e-3:1.0:log", "--folder", "made"]
    assert run([*arguments, "--trials", "3"]) == 0
    assert len(asked) == 6
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("best trial ")
    assert "on validation, optimizer.lr=" in shown[0]
    best = yaml.safe_load(Path("made/best.yaml").read_text())
    rates = [
        yaml.safe_load(path.read_text())["optimizer"]["lr"] for path in Path("made/trials").glob("*/s0/config.yaml")
    ]
    assert best["optimizer"]["lr"] == min(rates, key=lambda rate: abs(rate - 0.1))  # the largest is best on test
    assert run([*arguments, "--trials", "4"]) == 0
    assert len(asked) == 8
    assert len({path.parent.name for path in Path("made/trials").glob("*/s0")}) == 4
    assert run([*arguments[:-4], "--tune", "optimizer.lr=0.1:0.2", "--folder", "made"]) == 2
    assert "holds another search (tune differ)" in capsys.readouterr().err


def test_tune__a_failed_trial_is_none_and_the_others_go_on(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    use_fake_training(monkeypatch)
    arguments = ["sweep", "-c", config, "--seeds", "1", "--tune", "train.epochs=12,13,14", "--folder", "made"]
    assert run([*arguments, "--trials", "5", "--jobs", "2"]) == 0
    assert "RunFailed: loss 'task' is nan at step 3" in capsys.readouterr().err


def test_tune__says_what_is_wrong(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", "-c", config, "--tune", "optimizer.lr=-1:1", "--tune", "method.dropuot=1:2"]) == 2
    said = capsys.readouterr().err
    assert "optimizer.lr" in said
    assert "method.dropuot" in said
    assert run(["sweep", "-c", config, "-o", "optimizer.lr=1,2", "--tune", "train.epochs=1:2"]) == 2
    assert "-o optimizer.lr: several values and --tune" in capsys.readouterr().err


def test_tune__missing_optuna_is_told_with_the_extra(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.sys.modules, "optuna", None)  # type: ignore[attr-defined]
    assert run(["sweep", "-c", config, "--seeds", "1", "--tune", "optimizer.lr=0.1:0.2"]) == 2
    assert "needs the package optuna; install it with: pip install 'robustmm[tune]'" in capsys.readouterr().err
