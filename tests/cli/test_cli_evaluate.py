"""``robustmm evaluate``: the same results again, anywhere, and no good word for a model that does nothing."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from cli_runs import CONSTANT, TINY, results, write_config, write_plugins

from robustmm.cli import run
from robustmm.config.schema import TrainSection
from robustmm.launch import one_process


@pytest.fixture
def made(tmp_path: Path) -> Path:
    assert run(["train", "-c", write_config(tmp_path, method="dmrnet"), "--folder", "made"]) == 0
    return Path("made")


def test_evaluate__gives_the_same_bytes_again(made: Path) -> None:
    files = [made / name for name in ("results.json", "eval/combinations.json", "eval/combinations.csv")]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    (made / "report.html").unlink()
    assert run(["evaluate", "made"]) == 0
    assert [path.read_bytes() for path in files] == before
    assert (made / "report.html").exists()


def test_evaluate__works_on_a_copy_elsewhere(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "far" / "away"
    shutil.copytree(made, copy)
    before = (made / "results.json").read_bytes()
    shutil.rmtree(made)
    Path("tiny.yaml").unlink()
    (copy / "results.json").unlink()
    monkeypatch.chdir(tmp_path / "far")
    capsys.readouterr()
    assert run(["evaluate", "away"]) == 0
    assert (copy / "results.json").read_bytes() == before
    assert "results     away/results.json" in capsys.readouterr().out


def test_evaluate__prints_every_combination_and_what_was_selected(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["evaluate", "made"]) == 0
    shown = capsys.readouterr().out
    record = results(made)
    for row in record["rows"]:
        line = next(line for line in shown.splitlines() if line.startswith(f"│ {row['combination']} "))
        assert f"{row['metrics']['accuracy']:.4f}" in line
    for aggregate in ("mean", "worst", "complete", "drop"):
        assert f"│ {aggregate} " in shown
    assert "selected by mean/accuracy on validation" in shown
    assert "missing policy zero_feature" in shown


def test_evaluate__csv_rows_say_what_they_belong_to(made: Path) -> None:
    with (made / "eval/combinations.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["combination"] for row in rows] == ["m0", "m1", "m0+m1"]
    for row, full in zip(rows, results(made)["rows"], strict=True):
        assert (row["method"], row["balancer"], row["missing_policy"]) == ("dmrnet", "none", "zero_feature")
        assert (row["run"], row["dataset"], row["split"], row["seed"]) == ("tiny", "synthetic", "test", "0")
        assert float(row["accuracy"]) == full["metrics"]["accuracy"]


# What is wrong with a run


@pytest.mark.parametrize("damage", ["cut", "no state", "gone", "other shapes"])
def test_evaluate__bad_checkpoint_ends_with_2(made: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    best = made / "checkpoints" / "best.safetensors"
    if damage == "cut":
        best.write_bytes(best.read_bytes()[:-20])
        text = f"{best} is damaged or not a safetensors file"
    elif damage == "no state":
        best.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
        text = f"{best} is not a checkpoint of robustmm: it has no state header"
    elif damage == "gone":
        best.unlink()
        text = "made has no weights (checkpoints/best.safetensors); has it been trained?"
    else:
        config = made / "config.yaml"
        config.write_text(config.read_text().replace("size: 8", "size: 9"))
        text = f"{best} does not fit this configuration"
    assert run(["evaluate", "made"]) == 2
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


def test_evaluate__not_a_run_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    Path("empty").mkdir()
    assert run(["evaluate", "empty"]) == 2
    shown = capsys.readouterr().err
    assert "empty" in shown
    assert "config.yaml" in shown
    assert "Traceback" not in shown


# Models that do nothing


def test_degenerate__is_flagged_everywhere_and_never_above_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["gas,heat,label,split"]
    for number in range(60):
        label = "rare" if number % 10 in (0, 1, 2) else "common"  # 30 % in each part
        lines.append(f"{number} 1,{number / 7} 2,{label},{('train', 'val', 'test')[number // 20]}")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    modalities = {"gas": {"kind": "vector"}, "heat": {"kind": "vector"}}
    dataset = {"name": "manifest", "csv": "own.csv", "modalities": modalities}
    config = write_config(tmp_path, data={"dataset": dataset}, model={"head": "constant"})
    plugins = write_plugins(tmp_path, constant=CONSTANT)
    assert run(["--plugins-dir", plugins, "train", "-c", config, "--folder", "made"]) == 0
    record = results(Path("made"))
    assert record["degenerate"] == ["gas", "heat", "gas+heat"]
    assert [row["metrics"]["accuracy"] for row in record["rows"]] == [0.7, 0.7, 0.7]
    assert record["aggregates"]["mean"]["accuracy"] == 0.5
    assert record["aggregates"]["worst"]["accuracy"] == 0.5
    assert record["aggregates"]["complete"]["accuracy"] == 0.5
    shown = capsys.readouterr()
    assert "gas+heat  DEGENERATE" in shown.out
    assert "degenerate: heat gives one answer for everything; it counts as chance in mean and worst" in shown.out
    assert "degenerate (one answer for everything): gas, heat, gas+heat" in shown.err
    assert "true" in Path("made/eval/combinations.csv").read_text().lower()


def test_degenerate__spoofing_model_that_says_live_to_all_has_acer_one_half(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        data={"dataset": {**TINY["data"]["dataset"], "classes": 2}},
        task={"name": "classification", "live_class": "class0"},
        model={"head": "constant"},
    )
    plugins = write_plugins(tmp_path, constant=CONSTANT)
    assert run(["--plugins-dir", plugins, "train", "-c", config, "--folder", "made"]) == 0
    record = results(Path("made"))
    for row in record["rows"]:
        values = row["metrics"]
        assert (values["acer"], values["apcer"], values["bpcer"]) == (0.5, 1.0, 0.0)
    assert record["aggregates"]["mean"]["acer"] == 0.5
    assert json.loads(Path("made/checkpoints/best.json").read_text())["score"] == 0.5


def test_degenerate__only_the_combination_that_collapsed_is_held_down(tmp_path: Path) -> None:
    """Without the gas every sample looks alike, and the majority is worth no more than a guess."""
    lines = ["gas,heat,label,split"]
    for number in range(60):
        rare = number % 10 in (0, 1, 2)
        lines.append(
            f"{3 if rare else -3} 1,0 0,{'rare' if rare else 'common'},{('train', 'val', 'test')[number // 20]}"
        )
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    modalities = {name: {"kind": "vector", "scaling": "none"} for name in ("gas", "heat")}
    dataset = {"name": "manifest", "csv": "own.csv", "modalities": modalities}
    config = write_config(tmp_path, data={"dataset": dataset}, method="modality_dropout", train={"epochs": 12})
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    record = results(Path("made"))
    assert record["degenerate"] == ["heat"]
    gas, heat, both = (row["metrics"]["accuracy"] for row in record["rows"])
    assert (gas, heat, both) == (1.0, 0.7, 1.0)
    assert record["aggregates"]["mean"]["accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert record["aggregates"]["worst"]["accuracy"] == 0.5


def test_evaluate__runs_alone_and_where_it_is_told(tmp_path: Path) -> None:
    section = TrainSection(epochs=1, accelerator="cuda", devices=8, nodes=2, strategy="ddp", precision="bf16-mixed")
    alone = one_process(section, "cpu")
    assert (alone.accelerator, alone.devices, alone.nodes, alone.strategy) == ("cpu", 1, 1, "auto")
    assert alone.precision == "bf16-mixed"
    assert one_process(section).accelerator == "cuda"
