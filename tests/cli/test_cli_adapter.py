"""Adapters through the command line: trained with one, evaluated with one, and what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from cli_runs import results, write_config

from robustmm.cli import run

ATTENTION = {"fusion": {"name": "attention", "dim": 8, "heads": 2}}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    assert run(["train", "-c", write_config(tmp_path, model=ATTENTION), "--folder", "made"]) == 0
    return Path("made")


def adapted(folder: Path, name: str = "read") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return dict(record["protocols"][f"combinations-{name}"])


def test_evaluate__adds_a_protocol_and_leaves_the_others(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [made / "eval/combinations.json", made / "eval/combinations.csv", made / "checkpoints/best.safetensors"]
    before, plain = [path.read_bytes() for path in files], results(made)
    capsys.readouterr()
    assert run(["evaluate", "made", "--adapter", "read", "--adapter-option", "lr=0.1"]) == 0
    assert [path.read_bytes() for path in files] == before
    assert results(made) == plain
    record = adapted(made)
    assert (record["adapter"], plain["adapter"]) == ("read", "none")
    assert record["adapter_options"]["lr"] == 0.1
    assert [row["combination"] for row in record["rows"]] == ["m0", "m1", "m0+m1"]
    assert [row["metrics"] for row in record["rows"]] != [row["metrics"] for row in plain["rows"]]
    shown = capsys.readouterr().out
    assert "tiny on test, missing policy zero_feature, adapter read" in shown
    assert "change of accuracy" in shown
    page = (made / "report.html").read_text(encoding="utf-8")
    assert 'id="combination-table"' in page
    assert 'id="adapter-table-read"' in page


def test_evaluate__every_row_names_the_adapter(made: Path) -> None:
    assert run(["evaluate", "made", "--adapter", "read"]) == 0
    for name, adapter in (("combinations", "none"), ("combinations-read", "read")):
        with (made / "eval" / f"{name}.csv").open(encoding="utf-8") as file:
            assert [row["adapter"] for row in csv.DictReader(file)] == [adapter] * 3


def test_evaluate__gives_the_same_bytes_again(made: Path) -> None:
    written = []
    for _ in range(2):
        assert run(["evaluate", "made", "--adapter", "read", "--adapter-option", "lr=0.1"]) == 0
        written.append([(made / "eval" / f"combinations-read.{kind}").read_bytes() for kind in ("json", "csv")])
    assert written[0] == written[1]


def test_evaluate__lr_0_scores_as_without(made: Path) -> None:
    assert run(["evaluate", "made", "--adapter", "read", "--adapter-option", "lr=0"]) == 0
    for own, plain in zip(adapted(made)["rows"], results(made)["rows"], strict=True):
        assert own["metrics"]["accuracy"] == plain["metrics"]["accuracy"]
        assert own["metrics"] == pytest.approx(plain["metrics"], abs=1e-6)
        assert own["samples"] == plain["samples"]


def test_evaluate__measures_without_adapter_where_that_is_not_there(made: Path) -> None:
    plain = results(made)
    (made / "results.json").unlink()
    assert run(["evaluate", "made", "--adapter", "read"]) == 0
    assert results(made) == plain


def test_train__with_an_adapter_measures_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = {"adapter": {"name": "read", "lr": 0.1, "reset": "batch"}, "batch_size": 4}
    config = write_config(tmp_path, model=ATTENTION, evaluation=evaluation)
    assert run(["train", "-c", config, "--dry-run"]) == 0
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    first = adapted(Path("made"))
    assert first["adapter_options"]["reset"] == "batch"
    assert "adapter read" in capsys.readouterr().out
    assert run(["evaluate", "made"]) == 0
    assert adapted(Path("made")) == first


# What is wrong


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--adapter", "raed"], "unknown adapter 'raed' - did you mean 'read'? Known: read"),
        (
            ["--adapter", "read", "--adapter-option", "lrr=1"],
            "evaluation.adapter.lrr: unknown key - did you mean 'lr' (default 0.0001)?",
        ),
        (["--adapter", "read", "--adapter-option", "lr"], "expected key=value"),
        (["--adapter", "read", "--adapter-option", "reset=always"], "evaluation.adapter.reset: "),
        (["--adapter-option", "lr=1"], "--adapter-option needs --adapter NAME"),
        (["--adapter", "read", "--pictures", "2"], "--pictures shows the model without adapter"),
    ],
)
def test_evaluate__mistake_ends_with_2_and_changes_nothing(
    made: Path, options: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (made / "results.json").read_bytes()
    capsys.readouterr()
    assert run(["evaluate", "made", *options]) == 2
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown
    assert (made / "results.json").read_bytes() == before


def test_train__fusion_without_parameters_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, model={"fusion": "concat"}, evaluation={"adapter": "read"})
    assert run(["train", "-c", config, "--folder", "made"]) == 2
    assert (
        "evaluation.adapter: 'read' finds no parameter to adapt: fusion 'concat' in trunk 'late' offers none; train "
        "with a fusion that has parameters, such as attention, gated, film or sum"
    ) in capsys.readouterr().err
    assert not (Path("made") / "checkpoints").exists()


def test_train__task_without_class_probability_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, model=ATTENTION, task="regression", evaluation={"adapter": "read"})
    assert run(["train", "-c", config, "--folder", "made"]) == 2
    assert "adapter 'read' needs 'class_probability', which no chosen component provides" in capsys.readouterr().err
