"""Whole runs of methods with state or teachers of their own, on data that lack modalities, stopped and resumed."""

import signal
from pathlib import Path

import pytest
from cli_runs import STOP, TINY, equal_runs, results, write_config, write_plugins

from robustmm.cli import run

DATA = TINY["data"] | {"dataset": TINY["data"]["dataset"] | {"missing_rate": 0.3, "modalities": 3}}
DIABETES = {"dataset": "diabetes", "batch_size": 64}
#: The STOP schedule counts the steps of teachers too: umt's three train for 8 steps each before.
CALLS = {"tmc": 6, "qmf": 6, "ume": 6, "mmcosine": 6, "monig": 6, "umt": 29}


@pytest.mark.parametrize("method", CALLS)
def test_resume__equals_an_uninterrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    data = DIABETES if method == "monig" else DATA
    config = write_config(tmp_path, data=data, method=method, schedule="stop", sampler="uniform")
    command = ["--plugins-dir", write_plugins(tmp_path, stop=STOP), "train", "-c", config]
    assert run([*command, "--dry-run"]) == 0
    assert run([*command, "--folder", "whole"]) == 0
    monkeypatch.setenv("STOP_AT_CALL", str(CALLS[method]))
    monkeypatch.setenv("STOP_SIGNAL", str(int(signal.SIGINT)))
    assert run([*command, "--folder", "parts"]) == 130
    monkeypatch.delenv("STOP_AT_CALL")
    assert run([*command, "--folder", "parts", "--resume"]) == 0
    assert equal_runs(Path("whole"), Path("parts"))
    assert len(results(Path("whole"))["rows"]) == (3 if method == "monig" else 7)


def test_teachers__of_umt_are_kept_and_can_be_loaded_by_another_run(tmp_path: Path) -> None:
    config = write_config(tmp_path, data=DATA, method="umt")
    assert run(["train", "-c", config, "--folder", "first"]) == 0
    teachers = {name: f"first/checkpoints/teacher_{name}/best.safetensors" for name in ("m0", "m1", "m2")}
    assert all(Path(path).is_file() for path in teachers.values())
    again = [part for name, path in teachers.items() for part in ("-o", f"method.teachers.{name}={path}")]
    assert run(["train", "-c", config, *again, "--folder", "second"]) == 0
    assert not Path("second/checkpoints/teacher_m0").exists()
    assert equal_runs(Path("first"), Path("second"))
