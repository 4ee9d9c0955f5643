"""Regression from the command line to the report: units, checkpoints, incomplete data, and what refuses it."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import CONSTANT, equal_runs, records, results, write_config, write_plugins

from robustmm.build import assemble
from robustmm.cli import run
from robustmm.config.load import load_config
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.scores import summarise
from robustmm.engine.trained import load_selected
from robustmm.plugin_manager import get_plugins

DIABETES = {"name": "diabetes"}


def made(tmp_path: Path, folder: str, *more: str, **changes: Any) -> Path:
    config = write_config(tmp_path, **{"data": {"dataset": DIABETES, "batch_size": 32}, **changes})
    assert run([*more, "train", "-c", config, "--folder", folder]) == 0
    return Path(folder)


def table(path: Path, *, factor: float = 1.0, shift: float = 0.0, several: bool = False, holes: bool = False) -> Path:
    """A manifest of 60 rows whose target is a sum of two numbers, in some unit."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "goal", "split"])
        for row in range(60):
            a, b = draw.gauss(0, 1), draw.gauss(0, 1)
            goal = f"{(a + b) * factor + shift:.9g}" + (f" {a - b:.6g}" if several else "")
            lacks = row % 4 if holes else 3  # every fourth row lacks a, every fourth b
            split = "train" if row < 36 else "val" if row < 48 else "test"
            writer.writerow(["" if lacks == 0 else a, "" if lacks == 1 else b, goal, split])
    return path


def manifest(csv_file: Path, **options: Any) -> dict[str, Any]:
    modalities = {"a": {"kind": "vector"}, "b": {"kind": "vector"}}
    dataset = {"name": "manifest", "csv": str(csv_file), "task": "regression", "target": "goal", **options}
    return {"dataset": {**dataset, "modalities": modalities}, "batch_size": 8}


def test_train__scores_errors_in_the_unit_of_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, "run", train={"epochs": 6})
    found = results(folder)
    assert (found["score"], found["classes"], found["targets"]) == ("mae", [], ["progression"])
    assert 30 < found["aggregates"]["complete"]["mae"] < 0.9 * found["chance"]
    assert found["directions"]["mae"] == "min"
    assert found["aggregates"]["worst"]["mae"] == max(row["metrics"]["mae"] for row in found["rows"])
    assert not any("per_class" in row for row in found["rows"])
    assert found["selection"]["metric"] == "mean/mae"
    validated = [record["validation/mean/mae"] for record in records(folder, "epoch")]
    assert found["selection"]["value"] == min(validated)
    assert "│ clinical" in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "MAE on the test part" in page
    assert "Class by class" not in page


def test_evaluate__of_a_loaded_run_gives_what_training_measured(tmp_path: Path) -> None:
    folder = RunFolder(made(tmp_path, "run"))
    registry = get_plugins().registry
    assembly = assemble(load_config([folder.config], [], registry).config, registry, fit_scalers=False)
    assert assembly.method.task.mean.tolist() == [0]  # the targets were not looked at
    load_selected(assembly.method, folder)
    evaluation = evaluate_combinations(
        assembly.method,
        assembly.loader("validation").ordered(),
        torch.device("cpu"),
        combinations=assembly.combinations,
    )
    again = summarise(evaluation, assembly.method.task, assembly.directions()).flat
    best = results(folder.path)["selection"]
    (measured,) = [record for record in records(folder.path, "epoch") if record["epoch"] == best["epoch"]]
    for name, value in again.items():
        assert value == pytest.approx(measured.get(f"validation/{name}", value), abs=0), name
    assert again["mean/mae"] == best["value"]


def test_evaluate__gives_the_same_bytes_again(tmp_path: Path) -> None:
    folder = made(tmp_path, "run")
    before = (folder / "results.json").read_bytes()
    (folder / "results.json").unlink()
    assert run(["evaluate", "run"]) == 0
    assert (folder / "results.json").read_bytes() == before


def test_train__two_runs_of_one_seed_are_equal(tmp_path: Path) -> None:
    assert equal_runs(made(tmp_path, "one"), made(tmp_path, "two"))


@pytest.mark.parametrize(("factor", "shift"), [(1000.0, 0.0), (0.01, -5.0)])
def test_train__another_unit_changes_errors_and_nothing_else(tmp_path: Path, factor: float, shift: float) -> None:
    plain = results(made(tmp_path, "plain", data=manifest(table(tmp_path / "a.csv"))))
    moved = table(tmp_path / "b.csv", factor=factor, shift=shift)
    other = results(made(tmp_path, "other", data=manifest(moved)))
    for ours, theirs in zip(plain["rows"], other["rows"], strict=True):
        assert theirs["metrics"]["mae"] == pytest.approx(factor * ours["metrics"]["mae"], rel=1e-3)
        assert theirs["metrics"]["correlation"] == pytest.approx(ours["metrics"]["correlation"], abs=1e-3)
    assert other["chance"] == pytest.approx(factor * plain["chance"], rel=1e-4)


def test_train__of_several_quantities_on_incomplete_data(tmp_path: Path) -> None:
    data = manifest(table(tmp_path / "a.csv", several=True, holes=True), classes=["sum", "difference"])
    found = results(
        made(tmp_path, "run", data=data, method="modality_dropout", task={"name": "regression", "loss": "huber"})
    )
    assert found["targets"] == ["sum", "difference"]
    counts = {row["combination"]: (row["samples"], row["excluded"], row["incomplete"]) for row in found["rows"]}
    assert counts == {"a": (9, 3, 0), "b": (9, 3, 0), "a+b": (12, 0, 6)}
    assert all(0 < row["metrics"]["mae"] < 10 for row in found["rows"])


def test_degenerate__regression_counts_as_the_mean_of_the_training_targets(tmp_path: Path) -> None:
    plugins = write_plugins(tmp_path, constant=CONSTANT)
    found = results(made(tmp_path, "run", "--plugins-dir", plugins, model={"head": "constant"}))
    assert found["degenerate"] == ["clinical", "serum", "clinical+serum"]
    assert found["aggregates"]["mean"]["mae"] >= found["chance"]
    assert found["aggregates"]["worst"]["correlation"] is None  # a constant has none, in any combination


def test_config_init__of_regression_validates(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "init", "--dataset", "diabetes", "--method", "modality_dropout", "-o", "a.yaml"]) == 0
    assert run(["train", "-c", "a.yaml", "--dry-run"]) == 0
    assert "a training step and an evaluation batch over 3 combinations work" in capsys.readouterr().out


@pytest.mark.parametrize("part", [{"balancer": "ogm_ge"}, {"method": "mmanet"}, {"evaluation": {"metrics": ["aurc"]}}])
def test_train__refuses_what_needs_class_probabilities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: dict[str, Any]
) -> None:
    config = write_config(tmp_path, data={"dataset": DIABETES, "batch_size": 32}, **part)
    assert run(["train", "-c", config, "--folder", "run"]) == 2
    assert "class_probability" in capsys.readouterr().err


def test_train__refuses_labels_as_quantities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "-c", write_config(tmp_path, task="regression"), "--folder", "run"]) == 2
    assert "training target 0 is torch.int64 of shape ()" in capsys.readouterr().err


def test_train__says_in_json_lines_what_validation_measured(tmp_path: Path) -> None:
    folder = made(tmp_path, "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["validation/complete/mae"] > 10 for line in lines if line["kind"] == "epoch")
